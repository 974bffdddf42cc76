"""A student at work on tasks in boxes → graded episodes. What broke is dropped and counted, and is no reward."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from swe_srl.agent import EpisodeResult, OpenBox
from swe_srl.episodes import run_episodes
from swe_srl.errors import SandboxError
from swe_srl.fanout import fan_out
from swe_srl.policy.base import Sampling
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.tree import TokenTree
from swe_srl.schema import Prediction, Task, Verdict
from swe_srl.training.config import RlvrConfig, TrainConfig
from swe_srl.training.team import ALONE, Team

_GRADERS = 4
"""Verdicts at once, beside the episodes."""


class Arena(NamedTuple):
    """Where episodes take place, and who judges them."""

    open_box: OpenBox
    grade: Callable[[Prediction], Verdict]
    """Raises ApparatusError where it cannot."""
    worth: Callable[[EpisodeResult], float] | None = None
    """What an episode is worth where that is not the verdict on its patch."""


class Attempt(NamedTuple):
    """One episode and what it is worth."""

    result: EpisodeResult
    reward: float


class Attempts(NamedTuple):
    """The episodes on one task."""

    key: str
    """Of this group of episodes, in all of the run."""
    attempts: tuple[Attempt, ...]
    num_dropped: int = 0
    """Episodes whose box, or whose grading, broke."""

    @property
    def rewards(self) -> list[float]:
        """Of the episodes that are left."""
        return [attempt.reward for attempt in self.attempts]


def attempt_all(
    tasks: Sequence[Task],
    per_task: int,
    policy: TokenPolicy,
    config: TrainConfig,
    settings: RlvrConfig,
    arena: Arena,
    *,
    name: str,
    team: Team = ALONE,
) -> list[Attempts]:
    """`per_task` graded episodes on each task. What broke is dropped and counted, never a reward.

    `name` is part of the keys, and with the run's seed decides the episodes' seeds. Each process of `team` lets its share of
    the tasks be worked on.
    """
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=config.max_new_tokens)

    def judge(result: EpisodeResult) -> Attempt:
        if result.infra_failure:
            raise SandboxError(result.infra_failure)
        if arena.worth is not None:
            return Attempt(result, arena.worth(result))
        verdict = arena.grade(result.prediction(policy.name))
        if verdict.status == "infra_failure":
            raise SandboxError(f"{result.task.task_id} could not be graded: {verdict.note}")
        return Attempt(result, float(verdict.resolved))

    def attempt(positions: list[int]) -> list[Attempts]:
        numbers = [position * per_task + number for position in positions for number in range(per_task)]
        seeds = [_seed(f"{config.seed}/{name}/{number}") for number in numbers]
        with closing(
            run_episodes(
                policy, [tasks[number // per_task] for number in numbers], arena.open_box, sampling, seeds=seeds,
                context=config.context, limits=settings.limits, max_parallel=settings.max_parallel, overlap=True,
            )
        ) as results:  # fmt: skip
            judged = [outcome.value for outcome in fan_out(judge, results, workers=_GRADERS) if outcome.value]
        judged.sort(key=lambda attempt: attempt.result.number)
        of_task: dict[int, list[Attempt]] = {position: [] for position in positions}
        for result, reward in judged:
            number = numbers[result.number]
            of_task[number // per_task].append(Attempt(result._replace(number=number), reward))
        return [
            Attempts(f"{tasks[position].task_id}@{name}.{position}", tuple(attempts), per_task - len(attempts))
            for position, attempts in of_task.items()
        ]

    before = policy.num_prompts_cut
    found = team.spread(range(len(tasks)), attempt)
    policy.num_prompts_cut = before + sum(team.gather(policy.num_prompts_cut - before))
    return found


class _Turn(NamedTuple):
    """A prompt and its one answer, see Answers."""

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]


def num_sampled_tokens(found: Sequence[Attempts]) -> int:
    """Tokens of the tree of all turns of these episodes, thrown away or not."""
    turns = [
        _Turn(completion.prompt_ids, (completion.token_ids,))
        for of_task in found
        for attempt in of_task.attempts
        for completion in attempt.result.completions
    ]
    return TokenTree(turns).num_tokens


def _seed(name: str) -> int:
    """A number that depends on `name`. Turns add to it: the seeds of two episodes lie far apart."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little")
