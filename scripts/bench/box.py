"""What one `true` costs in a box: our persistent and fresh shells beside one `docker exec` per command, in one run.

    python scripts/bench/box.py [--rounds 3] [--commands 200]

Prints the median of each per round in milliseconds, and the ratio to `docker exec` through the same SDK.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from swe_srl.runtime import open_sandbox
from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.docker.images import base_images


def median_ms(call: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1000


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--commands", type=int, default=200)
options = parser.parse_args()
image = base_images()[0]
with (
    open_sandbox(SandboxConfig(), image, "/tmp") as persistent,  # noqa: S108
    open_sandbox(SandboxConfig(session="fresh"), image, "/tmp") as fresh,  # noqa: S108
):
    container = persistent.machine.container
    for number in range(1, options.rounds + 1):
        ours = median_ms(lambda: persistent.run("true", timeout_s=10), options.commands)
        apart = median_ms(lambda: fresh.run("true", timeout_s=10), options.commands)
        exec_ = median_ms(lambda: container.exec_run(["bash", "-c", "true"]), max(5, options.commands // 10))
        print(
            f"round {number}: persistent {ours:.3f} ms, fresh {apart:.3f} ms, docker exec {exec_:.1f} ms: "
            f"{exec_ / ours:.0f} and {exec_ / apart:.0f} times lower"
        )
