"""Boxes of several kinds side by side in one run: commands, starting, stopping, and many boxes at once.

    pip install mini-swe-agent swe-rex          (each is left out where it is not installed)
    python scripts/bench/boxes.py [--rounds 3] [--ways docker,mini-swe-agent] [--out FILE]

Every kind runs the same image (the newest base image) on the same engine, and takes its turn in every round. Starting is
cold: the image is there, the box is not, and the time ends with the first result of `true`. `close` is how long its caller
waits; `gone` is how long it takes until nothing of the box is left, which for some is later. Latencies and times are
medians; the kinds that take tens of milliseconds for a command are given fewer commands.

Peers have their defaults, but for what costs them least: no log on our terminal, and no network to be set up. SWE-ReX's
server has to be in the image and to be reached: an image is derived that holds it (removed at the end), and its boxes have
the host's network, each on a port of its own, where it would publish one. It is given a persistent session, as SWE-agent does.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from boxes_ways import WAYS, Ground, Way, wait_until

from swe_srl.runtime.docker.images import base_images

MEGABYTE = f"yes {'x' * 63} | head -c 1000000"
"""A command that prints 15,625 lines, a million bytes."""
SPARE_MIB = 1024
"""Of memory: no further box is opened where less is left."""
BASELINE = "mini-swe-agent"
FIGURES = {
    "true_ms": "`true`, ms", "megabyte_ms": "1 MB, ms", "start_s": "start, s", "close_s": "close, s", "gone_s": "gone, s",
    "per_s": "commands/s",
}  # fmt: skip
Figures = dict[str, float]


class Counts(NamedTuple):
    """How much is measured of a way in one round."""

    commands: int
    megabytes: int
    starts: int
    boxes: int
    each: int


def counts(options: argparse.Namespace, *, slow: bool) -> Counts:
    """What the options say, and less for a slow way."""
    commands = max(1, options.commands // (10 if slow else 1))
    each = max(1, options.each // (4 if slow else 1))
    return Counts(commands, max(5, commands // 10), options.starts, options.boxes, each)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--commands", type=int, default=200, help="of one box; slow ways run a tenth")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--boxes", type=int, default=32, help="open at once")
    parser.add_argument("--each", type=int, default=20, help="commands of each of those; slow ways run a quarter")
    parser.add_argument("--out", type=Path, help="append the figures to this JSONL file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that boxes are closed then, too
    rounds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    notes: dict[str, None] = {}
    with contextlib.closing(Ground(base_images()[0], private_folder())) as ground:
        for number, name, figures in measure(ground, options, notes):
            print(f"round {number}, {name}: {figures}", file=sys.stderr, flush=True)
            for figure, value in figures.items():
                rounds[name][figure].append(value)
            if options.out:
                write_rows(options, {"round": number, "way": name, "version": version_of(name)}, figures)
    print("\n".join(table(rounds, options)), *notes, sep="\n")


def measure(ground: Ground, options: argparse.Namespace, notes: dict[str, None]) -> Iterator[tuple[int, str, Figures]]:
    """Round, way and what was measured. What cannot be is told in `notes`, and is not tried again."""
    names, failed = options.ways.split(","), set()
    for number, name, part in itertools.product(range(1, options.rounds + 1), names, (latencies, starts, many)):
        kind = WAYS[name]
        if (name, part) in failed:
            continue
        if not version_of(name):
            notes[f"- {name}: left out: `pip install {kind.package}`"] = None
            continue
        try:
            yield number, name, part(partial(kind.make, ground), counts(options, slow=kind.slow))
        except Exception as error:  # noqa: BLE001  # a peer may raise anything, and the others are to go on
            ground.sweep()
            failed.add((name, part))
            notes[f"- {name}: no {part.__name__}: {type(error).__name__}: {str(error).strip()[:300]}"] = None


def latencies(make: Callable[[], Way], num: Counts) -> Figures:
    """Of commands in one box."""
    box = make()
    try:
        box.open()
        box.run("true")
        # A terminal may take the last line's end.
        assert len(box.run(MEGABYTE).strip()) >= 999_999, "not all of the million bytes came back"
        true_ms = median_ms(lambda: box.run("true"), num.commands)
        return {"true_ms": true_ms, "megabyte_ms": median_ms(lambda: box.run(MEGABYTE), num.megabytes)}
    finally:
        box.close()
        wait_until(box.is_gone)


def starts(make: Callable[[], Way], num: Counts) -> Figures:
    """Of one box after the other."""
    seconds = defaultdict(list)
    for _ in range(num.starts):
        box = make()
        begun = time.perf_counter()
        try:
            box.open()
            box.run("true")
            seconds["start_s"].append(time.perf_counter() - begun)
        finally:
            begun = time.perf_counter()
            box.close()
            seconds["close_s"].append(time.perf_counter() - begun)
            wait_until(box.is_gone)
            seconds["gone_s"].append(time.perf_counter() - begun)
    return {figure: statistics.median(values) for figure, values in seconds.items()}


def many(make: Callable[[], Way], num: Counts) -> Figures:
    """Commands per second of boxes that are open at once, each driven by a thread of its own."""
    boxes = [make() for _ in range(num.boxes)]
    try:
        with contextlib.ExitStack() as stack:
            for number, box in enumerate(boxes):
                require_memory(number)
                stack.callback(box.close)
                box.open()
                box.run("true")
            return {"per_s": per_second(boxes, num.each)}
    finally:
        for box in boxes:
            wait_until(box.is_gone)


def per_second(boxes: list[Way], num_each: int) -> float:
    """See `many`; the clock starts when every thread is there."""
    begun: list[float] = []
    gate = threading.Barrier(len(boxes), lambda: begun.append(time.perf_counter()))

    def drive(box: Way) -> None:
        gate.wait()
        for _ in range(num_each):
            box.run("true")

    with ThreadPoolExecutor(len(boxes)) as pool:
        list(pool.map(drive, boxes))
        return len(boxes) * num_each / (time.perf_counter() - begun[0])


def median_ms(call: Callable[[], object], count: int) -> float:
    """Of so many calls."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1000


def require_memory(num_open: int) -> None:
    """Raises MemoryError when the next box may be one too many."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    if int(lines["MemAvailable"].split()[0]) < SPARE_MIB * 1024:
        raise MemoryError(f"no memory for more than {num_open} boxes at once")


def private_folder() -> Path:
    """A folder for this run, removed at its end, that also holds our boxes without an engine and mini-swe-agent's settings."""
    # What runs in those boxes as `nobody` has to reach it; and overlayfs wants a disk, which /tmp may not be.
    folder = Path(tempfile.mkdtemp(prefix="swe-srl-bench-", dir="/var/tmp"))
    # Not a `with`: at exit our package looks for boxes there once more, after what was registered last and before this.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path in (folder, folder / "boxes"):
        path.mkdir(exist_ok=True)
        path.chmod(0o711)
    os.environ |= {
        "SWE_SRL_BOXES": str(folder / "boxes"), "MSWEA_GLOBAL_CONFIG_DIR": str(folder / "mini"),
        "MSWEA_SILENT_STARTUP": "1", "SWE_REX_LOG_STREAM_LEVEL": "CRITICAL",
    }  # fmt: skip
    return folder


def version_of(name: str) -> str:
    """Of what the way needs; empty where that is not installed."""
    try:
        return metadata.version(WAYS[name].package or "swe-srl")
    except metadata.PackageNotFoundError:
        return ""


def write_rows(options: argparse.Namespace, head: dict[str, object], figures: Figures) -> None:
    """Append a line for each figure."""
    made_by = counts(options, slow=WAYS[str(head["way"])].slow)._asdict() | {"cpus": os.cpu_count()}
    with options.out.open("a") as file:
        for figure, value in figures.items():
            file.write(json.dumps(head | {"figure": figure, "value": value, "made_by": made_by}) + "\n")


def table(rounds: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> Iterator[str]:
    """Markdown: a row for each way; a cell holds the figure of each round, and how many times better than the baseline they are."""
    versions = ", ".join(f"{WAYS[name].package} {version_of(name)}" for name in rounds if WAYS[name].package)
    yield f"{options.boxes} boxes at once for commands/s; in brackets: times better than {BASELINE} ({versions})\n"
    yield f"| | {' | '.join(FIGURES.values())} |"
    yield "|---" * (len(FIGURES) + 1) + "|"
    baseline = rounds.get(BASELINE, {})
    for name, figures in rounds.items():
        cells = (cell(figure, figures[figure], baseline.get(figure, [])) for figure in FIGURES)
        yield f"| {name} | {' | '.join(cells)} |"


def cell(figure: str, values: list[float], baseline: list[float]) -> str:
    """The values, and the ratio of medians."""
    words = ", ".join(short(value) for value in values) or "–"
    if not values or not baseline:
        return words
    ratio = statistics.median(baseline) / statistics.median(values)
    return f"{words} ({short(1 / ratio if figure == 'per_s' else ratio)} x)"


def short(value: float) -> str:
    """Three digits that count, or a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
