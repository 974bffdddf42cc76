"""A box of every backend in both kinds of session. Tests ask for `box` (shared, with a small repository), `kind` or `config`."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from swe_srl.errors import EngineUnavailable, SandboxError
from swe_srl.runtime import Limits, Sandbox, SandboxConfig, open_sandbox
from swe_srl.runtime.rootless.launch import require_bubblewrap
from swe_srl.runtime.rootless.store import remove_tree

LIMITS = Limits(cpus=1, memory_mib=256, pids=64, disk_mib=200, output_bytes=20_000)
BACKENDS = [
    SandboxConfig(type=kind, session=session, limits=LIMITS)
    for kind in ("docker", "bubblewrap")
    for session in ("persistent", "fresh")
] + [SandboxConfig(type="bubblewrap", cluster="two machines", limits=LIMITS)]
CANNOT = "no bubblewrap, no user namespaces, or no ray, on this machine"
REPOSITORY = """
cd /testbed && git init -q . && git config user.email a@example.org && git config user.name A
printf 'one\\ntwo\\n' > f.txt && printf '*.log\\n' > .gitignore && mkdir d && echo keep > d/g.txt && git add -A && git commit -qm start
"""


class Kind(NamedTuple):
    """A config, and a box of it that holds a small repository."""

    config: SandboxConfig
    box: Sandbox


class Docker:
    """What befalls a container from outside."""

    def __init__(self, box: Sandbox) -> None:
        self._id = box.machine.container.id

    def kill(self) -> None:
        self._do("kill")

    def end(self) -> None:
        self._do("stop", "-t", "0")

    def remove(self) -> None:
        self._do("rm", "-f")

    def pause(self) -> None:
        self._do("pause")

    def _do(self, *arguments: str) -> None:
        subprocess.run(["docker", *arguments, self._id], check=True, capture_output=True)

    @staticmethod
    def boxes(name: str) -> int:
        listing = ["docker", "ps", "-aq", "--filter", f"label=swe-srl.name={name}"]
        return len(subprocess.run(listing, capture_output=True, check=True).stdout.split())


class Bubblewrap:
    """What befalls a box without an engine from outside."""

    def __init__(self, box: Sandbox) -> None:
        self._pid = box.machine.pid

    def kill(self) -> None:
        box = Path(f"/proc/{self._pid}/stat")
        os.kill(self._pid, signal.SIGKILL)
        while box.exists() and " Z " not in box.read_text():
            time.sleep(0.01)

    remove = end = kill

    def pause(self) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def _processes(self) -> list[int]:
        found = [self._pid]
        for pid in found:
            found += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found

    @staticmethod
    def boxes(name: str) -> int:
        from swe_srl.runtime.rootless.store import store

        clean = "".join(char if char.isalnum() or char in "-_" else "_" for char in name)
        return len(list((store() / "boxes").glob(f"{clean[:60]}-*")))


OUTSIDE = {"docker": Docker, "bubblewrap": Bubblewrap}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of the contract runs over every backend; `@pytest.mark.session(kind)` limits it to one kind of session."""
    wanted = metafunc.definition.get_closest_marker("session")
    configs = [config for config in BACKENDS if wanted is None or config.session in wanted.args]
    if "outside" in metafunc.fixturenames or metafunc.definition.get_closest_marker("here"):
        configs = [config for config in configs if not config.cluster]
    for name in {"kind", "config"} & set(metafunc.fixturenames):
        metafunc.parametrize(name, configs, ids=_name, indirect=True)


def _name(config: SandboxConfig) -> str:
    return f"{config.type}-{config.session}{'-cluster' * bool(config.cluster)}"


def _can_run(config: SandboxConfig) -> bool:
    if config.type == "bubblewrap":
        try:
            require_bubblewrap()
        except EngineUnavailable:
            return False
    return not config.cluster or importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="package")
def archives(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base image as `docker save` writes it."""
    folder = tmp_path_factory.mktemp("archives")
    subprocess.run(["docker", "save", "-o", folder / "base.tar", base_image], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="package", autouse=True)
def store() -> Iterator[Path]:
    """Boxes without an engine of these tests, apart from those of runs beside them."""
    # Not below pytest's own folder: as root, boxes run as another account, and every pytest that starts closes it to others.
    folder = Path(tempfile.mkdtemp(prefix="swe-srl-boxes-"))
    folder.chmod(0o711)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SWE_SRL_BOXES", str(folder))
            yield folder
    finally:
        remove_tree(folder)


@pytest.fixture
def outside() -> dict[str, type[Docker | Bubblewrap]]:
    """What befalls a box from outside, by the kind of its backend."""
    return OUTSIDE


@pytest.fixture(scope="package")
def shared(
    base_image: str, archives: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[SandboxConfig], Sandbox]]:
    boxes: dict[str, Sandbox] = {}

    def open_once(bare: SandboxConfig) -> Sandbox:
        name = _name(bare)
        if name not in boxes or (bare.cluster and _is_gone(boxes[name])):  # tests take machines away
            boxes[name] = open_sandbox(_here(bare, request), base_image, name=f"contract-{name}")
            assert boxes[name].run(REPOSITORY, timeout_s=30).exit_code == 0
        return boxes[name]

    try:
        yield open_once
    finally:
        for box in boxes.values():
            box.close()


def _is_gone(box: Sandbox) -> bool:
    try:
        box.run("true", timeout_s=20)
    except SandboxError:
        return True
    return False


def _here(config: SandboxConfig, request: pytest.FixtureRequest) -> SandboxConfig:
    """With the places of this run."""
    places = {"archives": request.getfixturevalue("archives")}
    if config.cluster:
        machines = request.getfixturevalue("machines")
        machines.have(2)
        places["cluster"] = machines.address
    return config.model_copy(update=places)


@pytest.fixture
def config(request: pytest.FixtureRequest) -> SandboxConfig:
    if not _can_run(request.param):
        pytest.skip(CANNOT)
    return _here(request.param, request)


@pytest.fixture
def kind(request: pytest.FixtureRequest, shared: Callable[[SandboxConfig], Sandbox]) -> Iterator[Kind]:
    """The shared box of one config; what a test changed in the repository is undone after it."""
    if not _can_run(request.param):
        pytest.skip(CANNOT)
    box = shared(request.param)
    yield Kind(request.param, box)
    assert box.run("cd /testbed && git reset -q --hard && git clean -qfdx", timeout_s=30).exit_code == 0


@pytest.fixture
def box(kind: Kind) -> Sandbox:
    return kind.box
