"""Project in a box → what its own tests say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from swe_srl.making.recipe import Recipe
from swe_srl.runtime.base import Sandbox, SandboxConfig

SUMMARY = re.compile(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) (\S+)(.*)$", re.MULTILINE)
GOOD = ("PASSED", "XFAIL")
BASELINE_TIMEOUT_S = 300.0
"""Of a run of the whole suite without a bug."""


class SuiteRun(NamedTuple):
    """One run of the test command."""

    statuses: dict[str, str]
    """Status of each test whose id survives SWE-bench's log parser."""
    log: str
    exit_code: int | None
    timed_out: bool
    duration_s: float

    @property
    def passed(self) -> set[str]:
        """Tests that pass, or fail as their authors expect."""
        return {test for test, status in self.statuses.items() if status in GOOD}


def suite_sandbox() -> SandboxConfig:
    """How boxes are made in which a project's suite runs many times."""
    limits = SandboxConfig().limits.model_copy(update={"output_bytes": 20_000_000, "cpus": 1.0, "memory_mib": 1024})
    return SandboxConfig(limits=limits)


def suite_command(recipe: Recipe, tests: Sequence[str] = (), *options: str) -> str:
    """The test command over `tests` (all of the recipe's where empty), the same for planting and for grading.

    `-rA` writes one line a test, which SWE-bench parses.
    """
    deselect = [f"--ignore={test}" if test.endswith(".py") else f"--deselect={test}" for test in recipe.deselect]
    command = [
        "python",
        "-m",
        "pytest",
        "-rA",
        "-q",
        "--color=no",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        *deselect,
        *options,
    ]
    return shlex.join([*command, *(tests or recipe.tests)])


def run_suite(
    recipe: Recipe, sandbox: Sandbox, *, timeout_s: float, tests: Sequence[str] = (), max_failing: int | None = None
) -> SuiteRun:
    """Run `tests`, or the whole suite, once over the work tree as it is; end early beyond `max_failing` failures."""
    options = () if max_failing is None else (f"--maxfail={max_failing + 1}",)
    result = sandbox.run(suite_command(recipe, tests, *options), timeout_s=timeout_s)
    return SuiteRun(read_statuses(result.output), result.output, result.exit_code, result.timed_out, result.duration_s)


def read_statuses(log: str) -> dict[str, str]:
    """Test id → status. Left out: ids with blanks or unbalanced brackets, which SWE-bench's parser cuts at the blank."""
    statuses: dict[str, str] = {}
    cut: set[str] = set()
    for status, test, rest in SUMMARY.findall(log):
        if "::" not in test or test.count("[") != test.count("]") or (rest and not rest.startswith(" - ")):
            cut.add(test)
        statuses[test] = status
    return {test: status for test, status in statuses.items() if test not in cut}


def failure_block(log: str, test: str) -> str:
    """What pytest prints of one failing test between its headline and the next; empty when it is not there."""
    title = ".".join(test.split("::")[1:])
    found = re.search(
        rf"^_+ {re.escape(title)} _+\n(.*?)(?=^_{{3,}} .* _{{3,}}$|^={{3,}} |^-{{3,}} Captured )",
        log,
        re.MULTILINE | re.DOTALL,
    )
    return found.group(1) if found else ""
