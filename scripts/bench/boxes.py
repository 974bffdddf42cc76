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
import asyncio
import atexit
import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Protocol

from swe_srl.runtime.base import SandboxConfig
from swe_srl.runtime.docker.client import client, remove_container
from swe_srl.runtime.docker.images import base_images, build_image, context_digest, has_image
from swe_srl.runtime.open import backend_of, open_sandbox

MEGABYTE = f"yes {'x' * 63} | head -c 1000000"
"""A command that prints 15,625 lines, a million bytes."""
TIMEOUT_S = 120
WORKDIR = "/tmp"  # noqa: S108  # in the box
SPARE_MIB = 1024
"""Of memory: no further box is opened where less is left."""
BASELINE = "mini-swe-agent"
FIGURES = {
    "true_ms": "`true`, ms", "megabyte_ms": "1 MB, ms", "start_s": "start, s", "close_s": "close, s", "gone_s": "gone, s",
    "per_s": "commands/s",
}  # fmt: skip
REX_DOCKERFILE = r"""FROM {image}
COPY wheels /tmp/wheels
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-index --find-links /tmp/wheels swe-rex=={version}
# Its server listens on port 8000, which only one box can have on the host's network.
RUN server=$(command -v swerex-remote) && mv $server $server.real \
 && printf '#!/bin/sh\nexec %s.real "$@" --port "$SWEREX_PORT"\n' $server > $server && chmod +x $server
"""


class Way(Protocol):
    """One kind of box; an object is one box. Making the object costs what is no part of a box: imports, images."""

    def open(self) -> None:
        """Start the box."""

    def run(self, command: str) -> str:
        """What `command` prints. Raises RuntimeError unless it exits with 0."""

    def close(self) -> None:
        """Give the box back; harmless where it is not open."""

    def is_gone(self) -> bool:
        """Whether nothing is left of it."""


class Ground:
    """What boxes stand on. What only one kind of them wants is made when it is first asked for."""

    def __init__(self, image: str, folder: Path) -> None:
        self.image = image
        self.label = f"swe-srl.bench={os.getpid()}"
        """On every container of a peer's."""
        self._folder = folder
        self._rex_tag = ""

    @cached_property
    def archives(self) -> Path:
        """A folder with the image as `docker save` writes it."""
        folder = self._folder / "archives"
        folder.mkdir(exist_ok=True)
        subprocess.run(["docker", "save", "-o", folder / "image.tar", self.image], check=True)
        return folder

    @cached_property
    def rex_image(self) -> str:
        """The image with SWE-ReX's server in it. Its wheels are fetched here: a build may reach no package index."""
        context, version = self._folder / "rex", metadata.version("swe-rex")
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(REX_DOCKERFILE.format(image=self.image, version=version))
        tag = f"swe-srl/bench-swerex:{context_digest(context)}"
        if not has_image(tag):
            ask = "import sys; print('%d.%d' % sys.version_info[:2])"
            python = client().containers.run(self.image, ["python3", "-c", ask], remove=True, network_mode="none")
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:", "--python-version", python.decode().strip(),
                 "--dest", context / "wheels", f"swe-rex=={version}"], check=True,
            )  # fmt: skip
            build_image(context, tag, {})
        self._rex_tag = tag
        return tag

    def sweep(self) -> None:
        """Remove what a peer has left running, as SWE-ReX does where its server does not answer."""
        for container in client().containers.list(all=True, filters={"label": self.label}):
            remove_container(container)
            wait_until(partial(is_removed, container.id))

    def close(self) -> None:
        """Leave nothing behind."""
        self.sweep()
        if self._rex_tag:
            client().images.remove(self._rex_tag)


class Docker:
    """Ours in a container; `session` as in SandboxConfig."""

    def __init__(self, ground: Ground, config: SandboxConfig) -> None:
        backend_of(config.type).ensure_image(config, ground.image, None)
        self._open = partial(open_sandbox, config, ground.image, WORKDIR)
        self._box = self._machine = None

    def open(self) -> None:
        self._box = self._open()
        self._machine = self._box.machine

    def run(self, command: str) -> str:
        result = self._box.run(command, timeout_s=TIMEOUT_S)
        return checked(result.output, result.exit_code)

    def close(self) -> None:
        if self._box:
            self._box.close()

    def is_gone(self) -> bool:
        return not self._machine or is_removed(self._machine.container.id)


class Bubblewrap(Docker):
    """Ours without an engine."""

    def is_gone(self) -> bool:
        return not self._machine or not self._machine.folder.exists()


class DockerExec:
    """A container of the Docker SDK, and a `docker exec` for each command."""

    def __init__(self, ground: Ground) -> None:
        options = {"detach": True, "network_mode": "none", "labels": [ground.label]}
        self._start = partial(client().containers.run, ground.image, ["sleep", "2h"], **options)
        self._container = None

    def open(self) -> None:
        self._container = self._start()

    def run(self, command: str) -> str:
        exit_code, output = self._container.exec_run(["bash", "-c", command])
        return checked(output.decode("utf-8", "replace"), exit_code)

    def close(self) -> None:
        if self._container:
            self._container.remove(force=True)

    def is_gone(self) -> bool:
        return not self._container or is_removed(self._container.id)


class MiniSweAgent:
    """mini-swe-agent's DockerEnvironment: the docker program for each command, which starts a login shell."""

    def __init__(self, ground: Ground) -> None:
        from minisweagent.environments.docker import DockerEnvironment

        arguments, quiet = ["--rm", "--network", "none", "--label", ground.label], logging.getLogger("mini-swe-agent")
        self._start = partial(
            DockerEnvironment, image=ground.image, cwd=WORKDIR, timeout=TIMEOUT_S, run_args=arguments, logger=quiet
        )
        self._environment = None
        self._container_id = ""

    def open(self) -> None:
        self._environment = self._start()
        self._container_id = self._environment.container_id

    def run(self, command: str) -> str:
        result = self._environment.execute({"command": command})
        return checked(result["output"], result["returncode"])

    def close(self) -> None:
        if self._environment:
            self._environment.cleanup()
            self._environment.container_id = None  # else it stops it once more when the object is collected

    def is_gone(self) -> bool:
        return not self._container_id or is_removed(self._container_id)


class SweRex:
    """SWE-ReX's DockerDeployment: a server in the container, asked over HTTP, that holds a bash by pexpect."""

    def __init__(self, ground: Ground) -> None:
        from swerex.deployment.docker import DockerDeployment
        from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
        from swerex.utils.free_port import find_free_port

        self._action = partial(BashAction, timeout=TIMEOUT_S, check="silent")
        self._session = CreateBashSessionRequest()
        self._ground, self._find_port = ground, find_free_port
        self._deployment = partial(DockerDeployment, image=ground.rex_image, pull="never", startup_timeout=TIMEOUT_S)
        self._loop = asyncio.Runner()
        self._open = None
        self._name = ""

    def open(self) -> None:
        port = self._find_port()
        arguments = ["--network", "host", "--env", f"SWEREX_PORT={port}", "--label", self._ground.label]
        self._open = self._deployment(port=port, docker_args=arguments)
        # When its server does not answer in time, it waits for the container's end without having ended it.
        watch = threading.Timer(TIMEOUT_S + 5, self._ground.sweep)
        watch.start()
        try:
            self._loop.run(self._open.start())
        finally:
            watch.cancel()
        self._name = self._open.container_name
        self._loop.run(self._open.runtime.create_session(self._session))

    def run(self, command: str) -> str:
        result = self._loop.run(self._open.runtime.run_in_session(self._action(command=command)))
        return checked(result.output, result.exit_code)

    def close(self) -> None:
        if self._open:
            with contextlib.suppress(OSError):  # without its server it does not stop; then we sweep
                self._loop.run(self._open.stop())
            self._open = None
        self._loop.close()

    def is_gone(self) -> bool:
        return not self._name or is_removed(self._name)


class Kind(NamedTuple):
    """How boxes of one way are made."""

    make: Callable[[Ground], Way]
    package: str = ""
    """The distribution that it needs."""
    slow: bool = False
    """A command takes tens of milliseconds: fewer are run."""


# One more way is one more class above and one more line here.
WAYS = {
    "docker": Kind(lambda ground: Docker(ground, SandboxConfig())),
    "docker-fresh": Kind(lambda ground: Docker(ground, SandboxConfig(session="fresh"))),
    "bubblewrap": Kind(lambda ground: Bubblewrap(ground, SandboxConfig(type="bubblewrap", archives=ground.archives))),
    "mini-swe-agent": Kind(MiniSweAgent, "mini-swe-agent", slow=True),
    "swe-rex": Kind(SweRex, "swe-rex", slow=True),
    "docker-exec": Kind(DockerExec, slow=True),
}
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


def checked(output: str, exit_code: int | None) -> str:
    """The output of a command that went well."""
    if exit_code != 0:
        raise RuntimeError(f"a command ended with {exit_code}: {output[:200]!r}")
    return output


def is_removed(container: str) -> bool:
    """Whether the engine knows no such container any more, by id or name."""
    import docker.errors

    try:
        client().api.inspect_container(container)
    except docker.errors.NotFound:
        return True
    return False


def wait_until(is_so: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a box was still there {TIMEOUT_S} s after it was closed")
        time.sleep(0.01)


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
