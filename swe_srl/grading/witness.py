"""What the test runner itself says of its tests, beside what it prints: the second witness of a verdict.

A pytest plugin (witness_plugin.py) in the process of the tests tells each result as it comes to a pipe that is read outside
the box. Of other runners there is the log only. Code under test runs in that process too and could write to the pipe itself;
it cannot take back what the plugin has said, so it contradicts itself, and what plays the runner's part wholly is found by
tests that must fail (counter.py).
"""

from __future__ import annotations

import importlib.util
import json
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self, cast

from swe_srl.runtime.base import Sandbox

FOLDER = "/tmp/swe-srl-witness"  # noqa: S108  a path inside the box, which any account of an image may write
PLUGIN = "swe_srl_witness"
ENVIRONMENT = (
    f"SWE_SRL_WIRE={FOLDER}/wire "
    'SWE_SRL_ADDOPTS="${PYTEST_ADDOPTS-}" '
    f'PYTEST_ADDOPTS="${{PYTEST_ADDOPTS:+$PYTEST_ADDOPTS }}-p {PLUGIN}" '
    f'PYTHONPATH="{FOLDER}${{PYTHONPATH:+:$PYTHONPATH}}"'
)
"""Set for the eval script, in bash; the plugin takes it away again before any test runs."""


class Account(NamedTuple):
    """What the runner said of itself."""

    complete: bool = False
    """The pipe was read to its end."""
    num_started: int = 0
    num_finished: int = 0
    statuses: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  never changed, and a NamedTuple cannot build a default
    """Test id → every status it was told with."""
    num_strange: int = 0
    """Lines that the plugin does not write."""

    @classmethod
    def read(cls, data: bytes, *, complete: bool) -> Account:
        """The account in what came through the pipe."""
        started = finished = strange = 0
        statuses: dict[str, tuple[str, ...]] = {}
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                fields = dict(json.loads(line))
                started += "start" in fields
                finished += "finish" in fields
                if "test" in fields:
                    test = str(fields["test"])
                    statuses[test] = (*statuses.get(test, ()), str(fields["status"]))
            except (ValueError, KeyError, TypeError):
                strange += 1
        return cls(complete, started, finished, statuses, strange)

    def as_log(self) -> str:
        """The same as the lines of pytest's own summary, so that a task's log parser can read it.

        A test is told of once: by what is worst of what was said of it.
        """
        order = ("PASSED", "XPASS", "XFAIL", "SKIPPED", "FAILED", "ERROR")
        worst = {
            test: max(said, key=lambda word: order.index(word) if word in order else len(order))
            for test, said in self.statuses.items()
        }
        return "".join(f"{status} {test}\n" for test, status in worst.items())

    def contradictions(self) -> list[str]:
        """Tests that were told of with results that exclude each other."""
        return sorted(test for test, said in self.statuses.items() if len(set(said) - {"ERROR"}) > 1)


class _Recorder(Protocol):
    def finish(self, timeout_s: float = 60.0) -> tuple[bytes, bool]: ...

    def close(self) -> None: ...


class _Records(Protocol):
    """What a box can do beyond a Sandbox's promises."""

    def record(self, pipe: str) -> _Recorder: ...


class Witness:
    """Listens to the runner in one box."""

    def __init__(self, sandbox: Sandbox, decisive: Sequence[str] = ()) -> None:
        """Put the plugin into the box; the run ends where one of the tests in `decisive` fails. Raises SandboxError."""
        if decisive:
            sandbox.write_file(f"{FOLDER}/decisive.json", json.dumps(decisive).encode())
        self._recorder = cast("_Records", sandbox).record(posixpath.join(FOLDER, "wire"))
        sandbox.write_file(f"{FOLDER}/{PLUGIN}.py", plugin_source().encode())

    def account(self) -> Account:
        """What was said so far."""
        data, complete = self._recorder.finish()
        return Account.read(data, complete=complete)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.close()


def plugin_source() -> str:
    """The plugin's text; it is not imported here, for it changes the environment of the process it is in."""
    found = importlib.util.find_spec("swe_srl.grading.witness_plugin")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_text(encoding="utf-8")
