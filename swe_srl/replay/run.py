"""Trajectories → a run directory: many replays at once, each kept when it is done, with numbers that say what became of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from swe_srl.errors import SandboxError, StorageError
from swe_srl.fanout import THREADS, Executor, fan_out, grouped
from swe_srl.replay.repair import in_other_session
from swe_srl.replay.replay import Outcome, ReplayConfig, Replayed, replay_with_verdict
from swe_srl.replay.spool import Place, Spool
from swe_srl.replay.summary import ReplaySummary, summarise
from swe_srl.runtime.base import Sandbox
from swe_srl.schema import Prediction, Step, Task, Trajectory, Verdict
from swe_srl.store import Run, line_of, read_jsonl, write_json

TRAJECTORIES = "trajectories.jsonl"
STEPS = "steps.jsonl"
REPLAYED = "replayed.jsonl"
SUMMARY = "summary.json"
SETTINGS = "replay.json"

OpenBox = Callable[[Task, Trajectory], Sandbox]
"""Opens a fresh box of a task, with the kind of shell session that the trajectory had."""
GradeFn = Callable[[Prediction], Verdict]
"""Grades a prediction in a clean box; raises ApparatusError where it cannot."""


def replay_all(
    trajectories: Iterable[Trajectory],
    tasks: Mapping[str, Task],
    run: Run,
    config: ReplayConfig,
    *,
    open_box: OpenBox,
    grade: GradeFn | None = None,
    executor: Executor = THREADS,
    progress: Callable[[int, int], None] | None = None,
) -> ReplaySummary:
    """Replay trajectories into `steps.jsonl`, one line per trajectory in `replayed.jsonl`, numbers in `summary.json`.

    The trajectories are written to `trajectories.jsonl` as they come, and read from there one at a time. One counts as
    done when its line stands in `replayed.jsonl`; steps that a killed run wrote of others are dropped at the next start.
    A box that breaks leaves its trajectory for the next start. With `grade` the final diff is graded, and a claim that
    does not hold is an objection. `executor` is where boxes are; where that is elsewhere, `open_box` and `grade` are
    pickled for it, and all that is written is written here. Raises UnknownTask, before anything is run, for a trajectory of a task that is not there.
    """
    broken: list[str] = []
    with run.exclusive():
        run.remember(SETTINGS, config.model_dump(mode="json", exclude={"workers"}) | {"grade": grade is not None})
        spool = Spool(run.path / TRAJECTORIES, trajectories, tasks)
        wanted = [item for item in spool.places if _is_wanted(item, config, can_grade=grade is not None)]
        done = run.done(REPLAYED, Replayed, lambda item: item.trajectory_id)
        _drop_unfinished(run, done)
        pending = grouped(
            (item for item in wanted if item.trajectory_id not in done), lambda item: tasks[item.task_id].image
        )

        def work(trajectory: Trajectory) -> Outcome:
            outcome = replay_repaired(trajectory, lambda item: open_box(tasks[item.task_id], item), config)
            return _graded(trajectory, outcome, config, grade) if grade else outcome

        found = fan_out(
            work,
            (spool.load(place) for place in pending),
            workers=config.workers,
            executor=executor,
            near=lambda trajectory: tasks[trajectory.task_id].image,
        )
        with run.append(STEPS, Step) as steps, run.append(REPLAYED, Replayed) as replayed:
            for number, outcome in enumerate(found, start=1):
                if isinstance(outcome.failure, StorageError):
                    raise outcome.failure
                if outcome.value is None:
                    broken.append(str(outcome.failure))
                else:
                    steps.write(*outcome.value.steps)
                    replayed.write(outcome.value.record)
                if progress:
                    progress(len(wanted) - len(pending) + number, len(wanted))
        ids = {item.trajectory_id for item in wanted}
        records = [item for item in run.read(REPLAYED, Replayed) if item.trajectory_id in ids]
        summary = summarise(records, num_trajectories=len(spool.places), num_wanted=len(wanted), broken=broken)
        write_json(run.path / SUMMARY, summary.model_dump(mode="json"))
    return summary


def replay_repaired(trajectory: Trajectory, open_box: Callable[[Trajectory], Sandbox], config: ReplayConfig) -> Outcome:
    """Replay in a fresh box; where that is not faithful and the kind of shell session may be why, in the other kind too."""
    with open_box(trajectory) as box:
        outcome = replay_with_verdict(trajectory, box, config)
    if not config.repair or (outcome.record.fidelity == 1.0 and not outcome.record.objection):
        return outcome
    other = in_other_session(trajectory)
    if other is None:
        return outcome
    with open_box(other) as box:
        again = replay_with_verdict(other, box, config)
    if _worth(again.record) <= _worth(outcome.record):
        return outcome
    repairs = (*again.record.repairs, f"a {other.session} shell")
    return again._replace(record=again.record.model_copy(update={"repairs": repairs}))


def _worth(record: Replayed) -> tuple[bool, int]:
    """Of two replays of one trajectory the better is worth more."""
    return not record.objection, record.statuses.get("faithful", 0)


def _graded(trajectory: Trajectory, outcome: Outcome, config: ReplayConfig, grade: GradeFn) -> Outcome:
    """`outcome` with its final diff graded: what does not resolve its task, or not as claimed, gives no steps."""
    if outcome.record.objection:
        return outcome
    patch = trajectory.patch if outcome.record.same_patch else outcome.patch
    verdict = grade(Prediction(task_id=trajectory.task_id, model=trajectory.model, patch=patch, exit_status=trajectory.exit_status))  # fmt: skip
    if verdict.status == "infra_failure":
        raise SandboxError(f"{trajectory.trajectory_id} could not be graded: {verdict.note}")
    objection = ""
    if trajectory.resolved is not None and trajectory.resolved != verdict.resolved:
        objection = f"claimed {'' if trajectory.resolved else 'not '}to be resolved, but is {verdict.status}"
    elif config.only_resolved and not verdict.resolved:
        objection = f"not resolved: {verdict.status}"
    steps = [] if objection else outcome.steps
    update = {"resolved": verdict.resolved, "objection": objection, "num_steps": len(steps)}
    return outcome._replace(steps=steps, record=outcome.record.model_copy(update=update))


def _is_wanted(place: Place, config: ReplayConfig, *, can_grade: bool) -> bool:
    return not config.only_resolved or bool(place.resolved) or (place.resolved is None and can_grade)


def _drop_unfinished(run: Run, done: set[str]) -> None:
    """Remove steps of trajectories whose replay did not come to its end."""
    path = run.path / STEPS
    if not path.is_file() or all(value.get("trajectory_id") in done for _, value in read_jsonl(path)):
        return
    scratch = path.with_name(f".{STEPS}.new")
    with scratch.open("wb") as file:
        for _, value in read_jsonl(path):
            if value.get("trajectory_id") in done:
                file.write(line_of(value))
    scratch.replace(path)
