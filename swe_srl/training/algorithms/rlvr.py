"""Reinforcement learning from verified rewards: the student works on tasks in boxes, and a patch that resolves its task pays.

Each turn of an episode is a prompt and an answer. What is left out of the history afterwards (the thought) is a leaf of
the tree, what stays is its trunk: an episode is one tree, and so are the episodes of a task.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from swe_srl.errors import NothingToLearn, SandboxError
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.schema import Task
from swe_srl.training.algorithms.base import Batch, compared
from swe_srl.training.attempts import Arena, Attempts, attempt_all, num_sampled_tokens
from swe_srl.training.config import RlvrConfig, TrainConfig
from swe_srl.training.data import Cursor
from swe_srl.training.objective import Group, Loss, fresh, group_advantages, ratio_loss
from swe_srl.training.selection import BROKEN, Refilled, refill
from swe_srl.training.team import ALONE, Team

ALWAYS, NEVER = "always solved", "never solved"


class Rlvr:
    """See Algorithm."""

    def __init__(
        self,
        settings: RlvrConfig,
        config: TrainConfig,
        tasks: Sequence[Task],
        policy: TokenPolicy,
        arena: Arena,
        reference: LocalPolicy | None = None,
        team: Team = ALONE,
    ) -> None:
        """`policy` acts; `reference`: the frozen student that `objective.kl_weight` holds on to; `team`: who works, each on a share."""
        self._settings = settings
        self._config = config
        self._tasks = tasks
        self._policy = policy
        self._arena = arena
        self._reference = reference
        self._team = team
        self._left_over: list[list[Group]] = []
        self.temperature = settings.temperature

    def collect(self, cursor: Cursor, update: int) -> Batch:
        """Let the student work until the batch is full. Raises NothingToLearn when no task at all is worth keeping, SandboxError when that is the boxes' doing."""
        settings = self._settings

        def sample(count: int, round_: int) -> list[Attempts]:
            tasks = [self._tasks[index] for index in cursor.take(count)]
            return attempt_all(
                tasks, settings.group_size, self._policy, self._config, settings, self._arena,
                name=f"{update}.{round_}", team=self._team,
            )  # fmt: skip

        filled = refill(
            settings.batch_size,
            self._left_over,
            sample,
            reason=lambda found: reason_to_drop(found, dynamic=settings.dynamic_sampling),
            make=lambda found: groups_of(found, divide_by_std=settings.objective.divide_by_std),
            max_rounds=settings.max_rounds,
        )
        if not filled.made:
            if set(filled.thrown) == {BROKEN}:
                raise SandboxError(
                    f"of {len(filled.found)} tasks tried for update {update}, none had two episodes whose boxes and grading held: "
                    "see `swe-srl doctor`, then call the same command again"
                )
            raise NothingToLearn(_nothing_kept(filled, update), num_sampled_tokens(filled.found))
        own, keep_old = self._policy.is_student, settings.objective.old_log_probs == "sampler"
        chosen = [  # what was left over keeps the sampler's numbers: the weights have moved
            groups if index < filled.num_old else [fresh(group, own=own, keep_old=keep_old) for group in groups]
            for index, groups in enumerate(filled.made[: settings.batch_size])
        ]
        self._left_over = filled.made[settings.batch_size :]
        groups = [group for of_task in chosen for group in of_task]
        weights = episode_weights(groups, settings.objective.normalise, settings.limits.max_turns * self._config.max_new_tokens)  # fmt: skip
        scored = compared(
            groups, self._reference, temperature=self.temperature, max_tokens=self._config.micro_batch_tokens,
            team=self._team,
        )  # fmt: skip
        metrics = _metrics(filled, len(chosen), settings.batch_size)
        return Batch(scored, weights, metrics, num_sampled_tokens(filled.found))

    def loss(self, log_probs: Tensor, groups: list[Group], weights: Tensor) -> Loss:
        """The clipped policy gradient. Fresh groups are their own old policy: their ratio is 1."""
        return ratio_loss(log_probs, groups, weights, self._settings.objective)

    def state(self) -> list[Group]:
        """Groups of tasks that did not fit into the last batch."""
        return [group for groups in self._left_over for group in groups]

    def restore(self, state: list[Group]) -> None:
        """See Algorithm."""
        self._left_over = [list(groups) for _, groups in groupby(state, key=lambda group: group.step_id.split("#")[0])]


def reason_to_drop(found: Attempts, *, dynamic: bool) -> str:
    """Why the episodes of a task teach nothing; empty when they do."""
    if len(found.attempts) < 2:
        return BROKEN
    if not dynamic or statistics.pstdev(found.rewards) > 0.0:
        return ""
    return {1.0: ALWAYS, 0.0: NEVER}.get(found.rewards[0], "rewards alike")


def groups_of(found: Attempts, *, divide_by_std: bool) -> list[Group]:
    """Every turn of every episode as a group of one answer, with the advantage of its episode; named `<key>#<episode>/<turn>`."""
    advantages = group_advantages(found.rewards, divide_by_std=divide_by_std)
    return [
        Group(
            f"{found.key}#{attempt.result.number}/{turn}",
            completion.prompt_ids,
            (completion.token_ids,),
            (advantage,),
            (completion.log_probs,),
        )
        for attempt, advantage in zip(found.attempts, advantages, strict=True)
        for turn, completion in enumerate(attempt.result.completions)
        if completion.token_ids
    ]


def episode_weights(groups: Sequence[Group], normalise: str, most_tokens: int) -> list[Tensor]:
    """For each group, the (N,) weights of its answer tokens; as `objective.token_weights`, with episodes in the place of answers."""
    episodes = [group.step_id.rpartition("/")[0] for group in groups]
    lengths = [len(group.completions[0]) for group in groups]
    of_episode: Counter[str] = Counter()
    for episode, length in zip(episodes, lengths, strict=True):
        of_episode[episode] += length
    if normalise == "sequence":
        each = [1.0 / (len(of_episode) * of_episode[episode]) for episode in episodes]
    elif normalise == "token":
        each = [1.0 / sum(lengths)] * len(groups)
    else:
        each = [1.0 / (len(of_episode) * most_tokens)] * len(groups)
    return [torch.full((length,), weight) for length, weight in zip(lengths, each, strict=True)]


def _nothing_kept(filled: Refilled[Attempts, list[Group]], number: int) -> str:
    thrown = ", ".join(f"{count} {reason}" for reason, count in filled.thrown.items())
    if filled.thrown.get(ALWAYS, 0) > filled.thrown.get(NEVER, 0):
        advice = "give harder tasks, raise the temperature, or leave out by `probe` what is always solved"
    else:
        advice = (
            "train with SRL first, give easier tasks or larger groups, or leave out by `probe` what is never solved"
        )
    return f"of {len(filled.found)} tasks tried for update {number}, none has episodes that differ ({thrown}): {advice}"


def _metrics(
    filled: Refilled[Attempts, list[Group]], num_kept: int, batch_size: int
) -> dict[str, float | int | dict[str, int]]:
    attempts = [attempt for found in filled.found for attempt in found.attempts]
    metrics: dict[str, float | int | dict[str, int]] = {
        "groups_kept": num_kept, "groups_missing": batch_size - num_kept, "groups_left_over": max(0, len(filled.made) - batch_size),
        "groups_thrown": filled.thrown, "rounds": filled.num_rounds, "episodes": len(attempts),
        "episodes_dropped": sum(found.num_dropped for found in filled.found),
        "exits": dict(Counter(attempt.result.exit_status for attempt in attempts)),
    }  # fmt: skip
    if attempts:
        metrics["reward_mean"] = statistics.fmean(attempt.reward for attempt in attempts)
        metrics["reward_std"] = statistics.fmean(
            statistics.pstdev(found.rewards) for found in filled.found if found.attempts
        )
        metrics["turns_mean"] = statistics.fmean(len(attempt.result.turns) for attempt in attempts)
    return metrics
