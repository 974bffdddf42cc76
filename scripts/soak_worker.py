"""One owner of boxes, for soak.py: opens them, does to them what agents do, and is killed at any moment."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swe_srl.errors import SandboxError
from swe_srl.runtime import Limits, Sandbox, SandboxConfig, open_sandbox
from swe_srl.runtime.docker.images import base_images

ACTS: tuple[Callable[[Sandbox], object], ...] = (
    lambda box: box.run("for i in $(seq 200); do echo $i > /tmp/$i; done; ls /tmp | wc -l", timeout_s=20),
    lambda box: box.run("sleep 1000 & setsid sleep 1001 & echo started", timeout_s=20),
    lambda box: box.run("sleep 60", timeout_s=0.2),
    lambda box: box.run("yes | head -c 5000000", timeout_s=20),
    lambda box: box.run("exit 3", timeout_s=20),
    lambda box: box.write_file("/testbed/file", b"x" * 3_000_000),
    lambda box: box.read_file("/etc/passwd"),
    lambda box: box.diff(),
)


def main() -> None:
    """Two boxes at a time, for ever; with --once one of each kind, and the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--archives", type=Path, required=True)
    parser.add_argument("--backends", required=True)
    parser.add_argument("--seed", type=float, required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--steady", action="store_true", help="no kills from inside, one box at a time")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    configs = [
        SandboxConfig(type=kind, archives=options.archives, limits=Limits(memory_mib=256, pids=64), session=session)
        for kind in options.backends.split(",")
        for session in ("persistent", "fresh")
    ]
    if options.once:
        for config in configs:
            use(config, options.log, random.Random(chance.random()), deadly=False)
        return
    with ThreadPoolExecutor(1 if options.steady else 2) as pool:
        while True:
            chosen = [chance.choice(configs) for _ in range(8)]
            seeds = [random.Random(chance.random()) for _ in chosen]
            list(pool.map(lambda pair: use(pair[0], options.log, pair[1], deadly=not options.steady), zip(chosen, seeds, strict=True)))  # fmt: skip


def use(config: SandboxConfig, log: Path, chance: random.Random, *, deadly: bool) -> None:
    """Open a box, do some of what agents do, and close it. It may be killed under its owner."""
    with open_sandbox(config, base_images()[0], name="swe-srl-soak") as box:
        with log.open("a") as file:
            file.write(json.dumps({"type": config.type}) + "\n")
        try:
            for act in chance.sample(ACTS, 4):
                if deadly and chance.random() < 0.05:
                    box.run("kill -9 -1", timeout_s=5)
                act(box)
        except SandboxError:
            if not deadly:
                raise


if __name__ == "__main__":
    main()
