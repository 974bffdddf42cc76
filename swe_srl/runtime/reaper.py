"""Boxes whose owner is dead → removed, so that a killed process leaves nothing behind once another starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from docker import DockerClient

from swe_srl.runtime.engine import LABEL, OWNER_LABEL, engine_errors, owner_label, remove_container, start_time
from swe_srl.runtime.engine import client as default_client


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


def reap(client: DockerClient | None = None, *, even_alive: bool = False) -> int:
    """Remove every box of this host whose owner no longer lives (or every box at all); how many there were.

    Raises EngineUnavailable.
    """
    return _remove(client or default_client(), lambda owner: even_alive or not owner_lives(owner))


def reap_own() -> int:
    """Remove every box that this process has left open; how many there were. Raises EngineUnavailable."""
    mine = owner_label()
    return _remove(default_client(), lambda owner: owner == mine)


def _remove(engine: DockerClient, doomed: Callable[[str], bool]) -> int:
    with engine_errors("looking for abandoned boxes"):
        found = engine.containers.list(all=True, filters={"label": f"{LABEL}=box"}, ignore_removed=True)
    boxes = [box for box in found if doomed(box.labels.get(OWNER_LABEL, ""))]
    for box in boxes:
        remove_container(box)
    return len(boxes)
