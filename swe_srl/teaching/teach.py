"""Tasks + a teacher → accepted Trajectories: the teacher works in boxes, and only what resolves its task is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from swe_srl.agent import AgentLimits, Episode, EpisodeResult, OpenBox, run_episode
from swe_srl.dialogue import ContextConfig
from swe_srl.errors import EndpointError, SandboxError, StorageError
from swe_srl.fanout import fan_out
from swe_srl.policy.base import Policy, Sampling
from swe_srl.runtime.base import SandboxConfig
from swe_srl.schema import Prediction, Record, Task, Trajectory, Usage, Verdict
from swe_srl.settings import Config
from swe_srl.store import Run, write_json
from swe_srl.teaching.budget import Account, BudgetConfig, BudgetReached
from swe_srl.teaching.journal import Journal, JournaledPolicy, StoppedEarly

TRAJECTORIES = "trajectories.jsonl"
REJECTED = "rejected.jsonl"
SUMMARY = "summary.json"
SETTINGS = "teach.json"

SEED_STRIDE = 1000
"""Between the seeds of two samples of a task; a turn adds one."""


class TeachConfig(Config):
    """How trajectories are made."""

    samples: int = Field(1, ge=1)
    """Trajectories per task."""
    workers: int = Field(2, ge=1)
    """Episodes at once."""
    sampling: Sampling = Sampling(temperature=0.7, max_new_tokens=2048)
    context: ContextConfig = ContextConfig(window="all")
    """The teacher sees everything; what the student is shown is decided in training."""
    limits: AgentLimits = AgentLimits()
    sandbox: SandboxConfig = SandboxConfig()
    budget: BudgetConfig = BudgetConfig()
    licence: str = ""
    """Terms under which the teacher's words may be used; kept in every trajectory."""


class Rejection(Record):
    """A finished trajectory that is not to be learned from."""

    reason: str
    trajectory: Trajectory


class TeachSummary(Record):
    """What a run has come to, earlier starts included."""

    exit_status: Literal["finished", "budget", "incomplete"]
    """`incomplete`: infrastructure failures are left to do again; call the same command."""
    num_tasks: int
    num_wanted: int
    """Tasks times samples."""
    num_accepted: int
    num_rejected: int
    num_infra_failures: int
    infra_failure: str = ""
    """The first of them."""
    num_not_begun_or_stopped: int
    """Because the budget was reached."""
    rejected_because: dict[str, int]
    usage: Usage
    """All calls, those that failed or did not parse included."""


class Lesson(NamedTuple):
    """One trajectory to make."""

    task: Task
    sample: int

    @property
    def trajectory_id(self) -> str:
        """`<task_id>.<sample>`."""
        return f"{self.task.task_id}.{self.sample}"


GradeFn = Callable[[Prediction], Verdict]
"""Grades a prediction in a clean box; raises ApparatusError where it cannot."""


def teach(
    tasks: Sequence[Task],
    config: TeachConfig,
    run: Run,
    *,
    policy: Policy,
    open_box: OpenBox,
    grade: GradeFn,
    progress: Callable[[int, int], None] | None = None,
) -> TeachSummary:
    """Make `config.samples` trajectories per task; accepted ones go to `trajectories.jsonl`, the others, with a reason, to `rejected.jsonl`.

    Every answer is on disk (`calls.jsonl`) before the next call; a run that is called again pays for none twice and
    goes on where it stopped. When the budget is reached it stops and says so in the summary. A box that breaks leaves
    its trajectory for the next start; an endpoint that fails for good raises EndpointError.
    """
    with run.exclusive():
        run.remember(
            SETTINGS, {"model": policy.name, **config.model_dump(mode="json", exclude={"workers", "budget", "samples"})}
        )
        done = run.done(TRAJECTORIES, Trajectory, lambda item: item.trajectory_id)
        done |= run.done(REJECTED, Rejection, lambda item: item.trajectory.trajectory_id)
        lessons = [Lesson(task, sample) for sample in range(config.samples) for task in tasks]
        journal = Journal(run, Account(config.budget))
        pending = [lesson for lesson in lessons if lesson.trajectory_id not in done]
        try:
            stopped, broken = _teach(pending, config, run, policy, journal, open_box, grade, progress, len(lessons))
        finally:
            journal.close()
        summary = _summarise(run, lessons, stopped, broken, journal.account.spent)
        write_json(run.path / SUMMARY, summary.model_dump(mode="json"))
    return summary


def _teach(
    pending: list[Lesson],
    config: TeachConfig,
    run: Run,
    policy: Policy,
    journal: Journal,
    open_box: OpenBox,
    grade: GradeFn,
    progress: Callable[[int, int], None] | None,
    total: int,
) -> tuple[int, list[str]]:
    """Work on what is pending; returns how many were stopped by the budget, and what stopped others."""
    stopped, broken = 0, list[str]()

    def work(lesson: Lesson) -> Rejection | Trajectory | None:
        try:
            return give_lesson(lesson, config, JournaledPolicy(policy, journal, lesson.trajectory_id), open_box, grade)
        except (BudgetReached, StoppedEarly):
            journal.stopped.set()  # a trajectory already under way could still afford a call, but would not get far
            return None

    with run.append(TRAJECTORIES, Trajectory) as accepted, run.append(REJECTED, Rejection) as rejected:
        try:
            for number, outcome in enumerate(fan_out(work, pending, workers=config.workers), start=1):
                if isinstance(outcome.failure, EndpointError | StorageError):
                    raise outcome.failure
                if outcome.failure:
                    broken.append(str(outcome.failure))
                elif isinstance(outcome.value, Trajectory):
                    accepted.write(outcome.value)
                elif outcome.value:
                    rejected.write(outcome.value)
                else:
                    stopped += 1
                if progress:
                    progress(total - len(pending) + number, total)
        finally:
            journal.stopped.set()
    return stopped, broken


def give_lesson(
    lesson: Lesson, config: TeachConfig, policy: Policy, open_box: OpenBox, grade: GradeFn
) -> Trajectory | Rejection:
    """One trajectory, graded in a clean box: accepted, or rejected with the reason. Raises ApparatusError."""
    sampling = config.sampling.model_copy(update={"seed": config.sampling.seed + SEED_STRIDE * lesson.sample})
    with open_box(lesson.task) as box:
        episode = Episode(lesson.task, box, config.context, config.limits, record_trees=True)
        result = run_episode(policy, episode, sampling)
    trajectory = _trajectory(lesson, result, policy.name, config)
    if result.exit_status != "submitted":
        return Rejection(reason=f"not submitted: {result.exit_status}", trajectory=trajectory)
    verdict = grade(result.prediction(policy.name))
    if verdict.status == "infra_failure":
        raise SandboxError(f"{lesson.task.task_id} could not be graded: {verdict.note}")
    judged = trajectory.model_copy(update={"resolved": verdict.resolved})
    if verdict.resolved:
        return judged
    failing = f": {', '.join(verdict.tests_failed[:3])}" if verdict.tests_failed else ""
    return Rejection(reason=f"not resolved: {verdict.status}{failing}", trajectory=judged)


def _trajectory(lesson: Lesson, result: EpisodeResult, model: str, config: TeachConfig) -> Trajectory:
    cost = config.budget.price(result.usage.prompt_tokens, result.usage.completion_tokens)
    return Trajectory(
        trajectory_id=lesson.trajectory_id,
        task_id=lesson.task.task_id,
        model=model,
        source="swe-srl",
        session=config.sandbox.session,
        turns=result.turns,
        exit_status=result.exit_status,
        patch=result.patch,
        usage=cost,
        licence=config.licence,
    )


def _summarise(run: Run, lessons: list[Lesson], stopped: int, broken: list[str], spent: Usage) -> TeachSummary:
    wanted = {lesson.trajectory_id for lesson in lessons}
    accepted = [item for item in run.read(TRAJECTORIES, Trajectory) if item.trajectory_id in wanted]
    rejected = [item for item in run.read(REJECTED, Rejection) if item.trajectory.trajectory_id in wanted]
    reasons = Counter(":".join(item.reason.split(":")[:2]) for item in rejected)
    return TeachSummary(
        exit_status="budget" if stopped else "incomplete" if broken else "finished",
        num_tasks=len({lesson.task.task_id for lesson in lessons}),
        num_wanted=len(lessons),
        num_accepted=len(accepted),
        num_rejected=len(rejected),
        num_infra_failures=len(broken),
        infra_failure=broken[0] if broken else "",
        num_not_begun_or_stopped=stopped,
        rejected_because=dict(reasons.most_common()),
        usage=spent,
    )
