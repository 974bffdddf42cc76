"""Which process a box belongs to, and whether that process still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def owner_label(pid: int | None = None) -> str:
    """What this process (or process `pid`) signs its boxes with."""
    pid = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}:{pid}:{start_time(pid)}"


def start_time(pid: int) -> str:
    """When process `pid` began, in clock ticks since boot: tells it from a later one of the same number. Empty if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name of the program stands in brackets and may hold anything; field 22 is the 20th after it.
    return stat.rpartition(")")[2].split()[19]


def owner_lives(owner: str) -> bool:
    """Whether the process that signed with `owner` still runs. One of another host cannot be asked and counts as alive."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    began = owner.rpartition(":")[2]
    if host != socket.gethostname():
        return True
    try:
        pid = int(rest)
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return not began or start_time(pid) == began
