"""Recipe as found → the same without the tests that do not pass: they would make every bug look like another."""

from __future__ import annotations

from swe_srl.errors import ConfigError
from swe_srl.making.images import ProjectImage
from swe_srl.making.recipe import Recipe
from swe_srl.making.suite import BASELINE_TIMEOUT_S, SUMMARY, SuiteRun, run_suite, suite_sandbox
from swe_srl.runtime import open_sandbox
from swe_srl.runtime.base import Sandbox

_NUM_RUNS = 3
_MAX_ROUNDS = 4
_TOO_MANY = 0.5
"""Share of tests that fail beyond which it is the environment that is wrong."""


def without_failing(recipe: Recipe, base: str) -> Recipe:
    """Run the suite until it passes, taking out what fails, cannot be collected, or is not the same each time.

    Raises ConfigError when most of it does not pass: then the project's needs are not met.
    """
    image = ProjectImage(recipe, base)
    try:
        image.ensure()
        with open_sandbox(suite_sandbox(), image.tag, name=f"prepare-{recipe.package}") as box:
            return _narrowed(recipe, box)
    finally:
        image.close()


def _narrowed(recipe: Recipe, box: Sandbox) -> Recipe:
    for _ in range(_MAX_ROUNDS):
        runs = [run_suite(recipe, box, timeout_s=BASELINE_TIMEOUT_S) for _ in range(_NUM_RUNS)]
        if any(run.timed_out for run in runs):
            raise ConfigError(
                f"{recipe.package}: its tests take longer than {BASELINE_TIMEOUT_S:g} s: name some of them with --tests"
            )
        bad = _bad(runs)
        if not bad and all(run.exit_code == 0 for run in runs):
            return recipe
        passed = set.intersection(*(run.passed for run in runs))
        if not bad or len(passed) < _TOO_MANY * (len(passed) + len(bad)):
            lines = runs[0].log.strip().splitlines() or ["no output"]
            words = next((line for start in ("E  ", "ERROR") for line in lines if line.startswith(start)), lines[-1])
            words = words.removeprefix("E  ").strip()
            raise ConfigError(
                f"{recipe.package}: {len(passed)} of its tests pass and {len(bad)} do not ({words}): name what they need with --with, "
                "or the tests to use with --tests"
            )
        recipe = recipe.model_copy(update={"deselect": tuple(sorted({*recipe.deselect, *bad}))})
    raise ConfigError(f"{recipe.package}: its tests fail in another way each time: name those to use with --tests")


def _bad(runs: list[SuiteRun]) -> set[str]:
    """What does not pass in every run: ids of tests, and files that cannot be collected."""
    found = set()
    for run in runs:
        for status, test, rest in SUMMARY.findall(run.log):
            if status in ("FAILED", "ERROR"):
                is_whole = "::" in test and test.count("[") == test.count("]") and (not rest or rest.startswith(" - "))
                found.add(test if is_whole else test.split("[")[0])
    return found
