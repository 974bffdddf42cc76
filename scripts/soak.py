"""Boxes opened, used and killed for minutes, their owners with kill -9 at random moments; then: is anything left?

    python scripts/soak.py [--boxes 200] [--minutes 10] [--backend docker|bubblewrap|both]

Workers, each a process of its own, open boxes, run commands in them, time out, fill them, and are killed at a random
moment; boxes die of kills from outside too. At the end one more process starts and stops, as the next run of a user
would. After it nothing of ours may be there: container, process, mount, image of the soak, file. The memory of a harness
that opens boxes all along is watched too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from swe_srl.runtime.docker.images import base_images

WORKER = Path(__file__).with_name("soak_worker.py")
MARK = "swe-srl-soak"


def main() -> None:
    """Soak, start once more, and look for what is left; exit code 1 where there is anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=200, help="at least so many are opened")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--backend", default="both", choices=("docker", "bubblewrap", "both"))
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    backends = ("docker", "bubblewrap") if options.backend == "both" else (options.backend,)
    with tempfile.TemporaryDirectory(prefix=MARK) as scratch:
        Path(scratch).chmod(0o711)
        before = traces(scratch)
        soak = Soak(Path(scratch), backends, options)
        soak.run()
        soak.start_once_more()
        left = {kind: found - before[kind] for kind, found in traces(scratch).items()}
        print(json.dumps(soak.summary()))
        for kind, found in left.items():
            print(f"left over: {kind}: {len(found)} {sorted(found)[:3] if found else ''}")
    sys.exit(any(left.values()) or soak.memory_grew())


class Soak:
    """Workers that are started, killed and replaced."""

    def __init__(self, scratch: Path, backends: tuple[str, ...], options: argparse.Namespace) -> None:
        self._log = scratch / "opened.jsonl"
        self._scratch = scratch
        self._backends = backends
        self._options = options
        self._random = random.Random(0)
        self._steady: subprocess.Popen[bytes] | None = None
        self._memory: list[int] = []
        self.num_kills = 0
        archives = scratch / "archives"
        archives.mkdir()
        subprocess.run(["docker", "save", "-o", archives / "base.tar", base_images()[0]], check=True)

    def run(self) -> None:
        """Until the time is over and enough boxes were opened."""
        deadline = time.monotonic() + 60 * self._options.minutes
        self._steady = self._start("--steady")
        workers: dict[subprocess.Popen[bytes], float] = {}
        while time.monotonic() < deadline or self.num_opened() < self._options.boxes:
            while len(workers) < self._options.workers:
                workers[self._start()] = time.monotonic() + self._random.uniform(0.3, 12)
            for worker, end in list(workers.items()):
                if worker.poll() is not None or time.monotonic() > end:
                    worker.kill()
                    worker.wait()
                    self.num_kills += 1
                    del workers[worker]
            self._memory.append(memory_kib(self._steady.pid))
            time.sleep(0.1)
        for worker in (*workers, self._steady):
            worker.send_signal(signal.SIGKILL)
            worker.wait()

    def start_once_more(self) -> None:
        """What the next run of a user does: each backend opens a box and closes it."""
        self._start("--once").wait()

    def num_opened(self) -> int:
        """Boxes so far."""
        return len(self._log.read_bytes().splitlines()) if self._log.is_file() else 0

    def memory_grew(self) -> bool:
        """Whether the steady harness took a fifth more at the end than after its first fifth."""
        settled = self._memory[len(self._memory) // 5]
        return self._memory[-1] > 1.2 * settled

    def summary(self) -> dict[str, object]:
        """In numbers."""
        kinds = [json.loads(line)["type"] for line in self._log.read_text().splitlines()]
        points = [self._memory[index * (len(self._memory) - 1) // 5] // 1024 for index in range(6)]
        return {
            "boxes": {kind: kinds.count(kind) for kind in self._backends},
            "owners killed -9": self.num_kills,
            "memory of a harness that was not killed, MiB, over time": points,
        }

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, WORKER, *arguments, "--log", self._log, "--archives", self._scratch / "archives"]
        return subprocess.Popen(
            [*map(str, command), "--backends", ",".join(self._backends), "--seed", str(self._random.random())],
            env=os.environ | {"SWE_SRL_BOXES": str(self._scratch / "boxes"), "TMPDIR": str(self._scratch)},
            stderr=subprocess.DEVNULL,
        )


def traces(scratch: str) -> dict[str, set[str]]:
    """Everything of ours that can be found, by kind."""
    containers = words("docker", "ps", "-aq", "--filter", "label=swe-srl=box")
    boxes = {str(path) for path in Path(scratch, "boxes", "boxes").glob("*")}
    temporary = {str(path) for path in Path(scratch).glob("tmp*")}
    images = words("docker", "images", "-q", "--filter", "dangling=true")
    processes = {path.name for path in Path("/proc").glob("[0-9]*") if MARK.encode() in command_line(path.name)}
    mounts = {line for line in Path("/proc/mounts").read_text().splitlines() if MARK in line}
    return {
        "containers": containers, "boxes": boxes, "temporary files": temporary, "images": images,
        "processes": processes, "mounts": mounts,
    }  # fmt: skip


def words(*command: str) -> set[str]:
    """What a command prints, split."""
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def command_line(pid: str) -> bytes:
    """Of a process; empty when it is gone, and for this one."""
    try:
        return b"" if pid == str(os.getpid()) else Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
