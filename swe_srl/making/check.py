"""Task repo → Checks: the gold patch resolves, no patch does not, and every repeat says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from swe_srl.benchmarks.load import FLAKY_FILE, flaky_ids
from swe_srl.benchmarks.task_repo import TaskRepo
from swe_srl.fanout import fan_out
from swe_srl.grading.grader import Grader
from swe_srl.runtime.base import SandboxConfig
from swe_srl.schema import Record, Verdict
from swe_srl.store import Run, write_text

CHECKS_FILE = "checks.jsonl"
TIMEOUT_S = 300.0

Patch = Literal["gold", "none"]
PATCHES: tuple[Patch, ...] = ("gold", "none")


class Check(Record):
    """One run of a task's trusted tests."""

    task_id: str
    base_commit: str
    patch: Patch
    repeat: int
    verdict: Verdict

    @property
    def as_wanted(self) -> bool:
        """Gold: resolved. None: every FAIL_TO_PASS fails, every PASS_TO_PASS passes."""
        verdict = self.verdict
        if self.patch == "gold":
            return verdict.resolved
        untouched = verdict.num_pass_to_pass_passed == verdict.num_pass_to_pass
        return verdict.status == "unresolved" and verdict.num_fail_to_pass_passed == 0 and untouched


class _Run(NamedTuple):
    task_id: str
    base_commit: str
    patch: Patch
    repeat: int


class Checked(NamedTuple):
    """What a check of a task repo found."""

    num_tasks: int
    good: list[str]
    flaky: list[str]
    """Tasks of which at least one run did not say what it should; listed in `flaky.txt` and used by nobody."""
    failures: list[str]
    """Runs that the apparatus prevented, in words; call again to repeat them."""


def check_tasks(
    path: str | Path,
    *,
    ids: Sequence[str] = (),
    repeats: int = 2,
    workers: int = 2,
    sandbox: SandboxConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Run gold and no patch `repeats` times on each task. Runs that stand in `checks.jsonl` already are not repeated.

    Raises UserError kinds for a repository that cannot be read, EngineUnavailable without an engine.
    """
    repo = TaskRepo(path)
    commits = {
        task.task_id: task.base_commit for task in ([repo.task(task_id) for task_id in ids] or repo.tasks.values())
    }
    run = Run(path)
    grader = Grader(path, sandbox, timeout_s=TIMEOUT_S, ids=list(commits))
    done = {_key(check) for check in run.read(CHECKS_FILE, Check)}
    wanted = [
        _Run(task_id, commit, patch, repeat)
        for task_id, commit in commits.items()
        for patch in PATCHES
        for repeat in range(repeats)
    ]
    todo = [item for item in wanted if item not in done]
    failures: list[str] = []
    with run.append(CHECKS_FILE, Check) as checks:
        for number, outcome in enumerate(fan_out(lambda item: _check(item, grader), todo, workers=workers), start=1):
            if outcome.value is not None:
                checks.write(outcome.value)
            else:
                failures.append(f"{outcome.item.task_id}: {outcome.failure}")
            if progress:
                progress(len(wanted) - len(todo) + number, len(wanted))
    return _conclude(run, wanted, failures)


def _check(item: _Run, grader: Grader) -> Check:
    graded = grader.grade(grader.gold(item.task_id)) if item.patch == "gold" else grader.grade_unpatched(item.task_id)
    return Check(
        task_id=item.task_id, base_commit=item.base_commit, patch=item.patch, repeat=item.repeat, verdict=graded.verdict
    )


def _key(check: Check) -> _Run:
    return _Run(check.task_id, check.base_commit, check.patch, check.repeat)


def _conclude(run: Run, wanted: list[_Run], failures: list[str]) -> Checked:
    """Write the list of flaky tasks; one that this call did not look at stays on it."""
    found = {_key(check): check for check in run.read(CHECKS_FILE, Check)}
    told: dict[str, list[bool]] = {item.task_id: [] for item in wanted}
    for item in wanted:
        if item in found:
            told[item.task_id].append(found[item].as_wanted)
    flaky = sorted(task_id for task_id, answers in told.items() if not all(answers))
    num_runs = len(wanted) // len(told) if told else 0
    good = sorted(task_id for task_id, answers in told.items() if len(answers) == num_runs and all(answers))
    listed = sorted((flaky_ids(run.path) - set(told)) | set(flaky))
    if listed or (run.path / FLAKY_FILE).is_file():
        write_text(run.path / FLAKY_FILE, "".join(f"{task_id}\n" for task_id in listed))
    return Checked(len(told), good, flaky, failures)
