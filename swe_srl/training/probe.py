"""Tasks → those that a student solves now and then: what is always or never solved teaches RLVR nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swe_srl.errors import NothingToLearn, SandboxError
from swe_srl.policy.local import LocalPolicy
from swe_srl.schema import Task
from swe_srl.store import Run
from swe_srl.training.attempts import Arena, attempt_all, num_sampled_tokens
from swe_srl.training.config import RlvrConfig, TrainConfig
from swe_srl.training.metrics import PROBE, Probed
from swe_srl.training.team import ALONE, Team


def solvable(
    tasks: Sequence[Task],
    load: Callable[[], LocalPolicy],
    config: TrainConfig,
    settings: RlvrConfig,
    arena: Arena,
    run: Run,
    team: Team = ALONE,
) -> list[Task]:
    """Those of `tasks` that `settings.probe` episodes solve now and then; each is tried once in a run, and kept in `probe.jsonl`.

    `load` gives the student where one is still to be tried.

    Raises NothingToLearn where none is, SandboxError where all boxes broke.
    """
    known = {item.task_id: item for item in team.agree(run.read(PROBE, Probed))}
    pending = [task for task in tasks if task.task_id not in known]
    policy = load() if pending else None
    size = team.size * max(
        1, settings.max_parallel // settings.probe
    )  # so that what is done is on disk before the next is begun
    with team.appending(run, PROBE, Probed) as write:
        for start in range(0, len(pending), size):
            assert policy is not None
            chosen = pending[start : start + size]
            found = attempt_all(
                chosen, settings.probe, policy, config, settings, arena, name=f"probe.{chosen[0].task_id}", team=team
            )
            for task, attempts in zip(chosen, found, strict=True):
                if not attempts.attempts:
                    continue  # its boxes broke: that says nothing about the student
                record = Probed(
                    task_id=task.task_id,
                    num_episodes=len(attempts.attempts),
                    num_resolved=round(sum(attempts.rewards)),
                    num_tokens=num_sampled_tokens([attempts]),
                )
                known[task.task_id] = record
                write(record)
    if policy is not None:
        policy.close()
    kept = [task for task in tasks if task.task_id in known and known[task.task_id].is_solvable]
    if tasks and not known:
        raise SandboxError(
            f"none of {len(tasks)} tasks could be tried, for all boxes broke: see `swe-srl doctor`, then call the same command again"
        )
    if not kept:
        always = sum(item.num_resolved == item.num_episodes for item in known.values())
        raise NothingToLearn(
            f"none of {len(tasks)} tasks is solved by some of {settings.probe} episodes and not by others ({always} by all): train with SRL "
            "first, give other tasks, or raise probe"
        )
    return kept
