"""A box of every backend in both kinds of session. Tests ask for `box` (shared, with a small repository), `kind` or `config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from swe_srl.runtime import Limits, Sandbox, SandboxConfig, open_sandbox

LIMITS = Limits(cpus=1, memory_mib=256, pids=64, output_bytes=20_000)
BACKENDS = [SandboxConfig(type="docker", session=session, limits=LIMITS) for session in ("persistent", "fresh")]
REPOSITORY = """
cd /testbed && git init -q . && git config user.email a@example.org && git config user.name A
printf 'one\\ntwo\\n' > f.txt && printf '*.log\\n' > .gitignore && mkdir d && echo keep > d/g.txt && git add -A && git commit -qm start
"""


class Kind(NamedTuple):
    """A config, and a box of it that holds a small repository."""

    config: SandboxConfig
    box: Sandbox


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of the contract runs over every backend; `@pytest.mark.session(kind)` limits it to one kind of session."""
    wanted = metafunc.definition.get_closest_marker("session")
    configs = [config for config in BACKENDS if wanted is None or config.session in wanted.args]
    for name in {"kind", "config"} & set(metafunc.fixturenames):
        metafunc.parametrize(name, configs, ids=_name, indirect=name == "kind")


def _name(config: SandboxConfig) -> str:
    return f"{config.type}-{config.session}"


@pytest.fixture(scope="package")
def shared(base_image: str) -> Iterator[dict[str, Sandbox]]:
    boxes: dict[str, Sandbox] = {}
    try:
        for config in BACKENDS:
            box = boxes[_name(config)] = open_sandbox(config, base_image, name=f"contract-{_name(config)}")
            assert box.run(REPOSITORY, timeout_s=30).exit_code == 0
        yield boxes
    finally:
        for box in boxes.values():
            box.close()


@pytest.fixture
def kind(request: pytest.FixtureRequest, shared: dict[str, Sandbox]) -> Iterator[Kind]:
    """The shared box of one config; what a test changed in the repository is undone after it."""
    box = shared[_name(request.param)]
    yield Kind(request.param, box)
    assert box.run("cd /testbed && git reset -q --hard && git clean -qfdx", timeout_s=30).exit_code == 0


@pytest.fixture
def box(kind: Kind) -> Sandbox:
    return kind.box
