"""A student's answers at expert steps → rewards: of what they say, or of what they do in boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from swe_srl.agent import open_task_box
from swe_srl.errors import ApparatusError
from swe_srl.fanout import fan_out
from swe_srl.replay.effect import rewards_of
from swe_srl.rewards.base import RewardFn
from swe_srl.schema import Reward
from swe_srl.training.config import EffectRewardConfig, StepRewardConfig
from swe_srl.training.data import Example


class Answered(NamedTuple):
    """An expert step, and what the student wrote there."""

    example: Example
    texts: tuple[str, ...]


class Rewarded(NamedTuple):
    """What answers are worth, or what kept them from being tried."""

    rewards: tuple[Reward, ...]
    """One for each answer; none where a box broke, for that is no answer's doing."""
    failure: ApparatusError | None = None


class StepRewards(Protocol):
    """Rewards whole groups of answers, so that who needs boxes can open several."""

    def __call__(self, answered: Sequence[Answered]) -> list[Rewarded]:
        """For each group its rewards, in the order of `answered`."""


class Said:
    """By what answers say: a pure comparison with the expert's action."""

    def __init__(self, reward: RewardFn) -> None:
        self._reward = reward

    def __call__(self, answered: Sequence[Answered]) -> list[Rewarded]:
        """See StepRewards."""
        return [
            Rewarded(tuple(self._reward(text, example.step.command) for text in texts)) for example, texts in answered
        ]


class Done:
    """By what answers do, each in a copy of the state that the expert was in."""

    def __init__(self, config: EffectRewardConfig) -> None:
        self._config = config

    def __call__(self, answered: Sequence[Answered]) -> list[Rewarded]:
        """See StepRewards."""
        found: dict[int, Rewarded] = {}
        for outcome in fan_out(
            lambda place: self._tried(answered[place]), range(len(answered)), workers=self._config.workers
        ):
            found[outcome.item] = Rewarded(outcome.value or (), outcome.failure)
        return [found[place] for place in range(len(answered))]

    def _tried(self, answered: Answered) -> tuple[Reward, ...]:
        example, config = answered.example, self._config
        history = example.trajectory[: example.step.index]
        return tuple(
            rewards_of(
                answered.texts, example.step, history, lambda: open_task_box(example.task, config.sandbox, "effect"), config
            )
        )  # fmt: skip


def step_rewards(config: StepRewardConfig) -> StepRewards:
    """What `config` says."""
    return Done(config) if isinstance(config, EffectRewardConfig) else Said(config.build())
