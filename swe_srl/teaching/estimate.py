"""Tasks + settings → what teaching them may cost, before any call is made."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from swe_srl.dialogue import render
from swe_srl.policy.chat import MESSAGE_TOKENS, TEMPLATE_TOKENS, estimate_tokens, most_tokens
from swe_srl.policy.prices import Tokens
from swe_srl.schema import Task, Usage
from swe_srl.settings import Config
from swe_srl.teaching.teach import Lesson, TeachConfig

STATUS_CHARS = 100
"""What an observation may hold beside the characters that are kept of it: an exit code, a note of what is left out."""


class Assumptions(Config):
    """What an episode is expected to be like.

    Recorded trajectories of SWE-agent, OpenHands and SWE-smith (60, of Claude 3.5 and 3.7) have 22 to 30 turns in the
    mean, 330 to 480 characters in an answer, and 750 to 900 of each observation within the default limit. A model that
    thinks at length writes many times as much.
    """

    turns: int = Field(25, ge=1)
    completion_tokens: int = Field(200, ge=1)
    """In an answer, thinking included."""
    observation_tokens: int = Field(300, ge=0)
    accepted_share: float = Field(0.5, gt=0, le=1)
    """Of the trajectories; decides how many are made where a task's first accepted one is its last."""


class Estimate(NamedTuple):
    """What is to be made, and what it may use."""

    num_tasks: int
    num_trajectories: int
    """To be made at the most; those that exist already are not counted."""
    num_expected: float
    """Trajectories, fewer where the first accepted one of a task is its last."""
    first_prompts: tuple[int, ...]
    """Estimated tokens of the first prompt of each task, ascending."""
    expected: Usage
    """No call is lost, and nothing is read from a cache."""
    worst: Usage
    """Every episode takes all its turns, every answer and observation is as long as it may be, a character is a token.
    A call that is lost, and asked again, comes on top."""

    @property
    def median_first_prompt(self) -> int:
        """Tokens."""
        return round(statistics.median(self.first_prompts)) if self.first_prompts else 0


def estimate(chains: Sequence[Sequence[Lesson]], config: TeachConfig, assumed: Assumptions | None = None) -> Estimate:
    """What the lessons may use. `chains` are those that wait for each other, see `pending`."""
    assumed = assumed or Assumptions()
    expected, worst, num_expected = Usage(), Usage(), 0.0
    first_prompts: dict[str, int] = {}
    for chain in chains:
        task = chain[0].task
        first_prompts[task.task_id] = estimate_tokens(render(task, (), config.context))
        times = _expected_attempts(len(chain), assumed.accepted_share)
        num_expected += times
        expected += _times(_expected_episode(first_prompts[task.task_id], config, assumed), times)
        worst += _times(_worst_episode(task, config), len(chain))
    prompts = tuple(sorted(first_prompts.values()))
    return Estimate(len(prompts), sum(map(len, chains)), num_expected, prompts, expected, worst)


def _expected_attempts(most: int, accepted_share: float) -> float:
    """How many of `most` attempts are made where the first success ends them."""
    return float(sum((1 - accepted_share) ** number for number in range(most)))


def _expected_episode(first_prompt: int, config: TeachConfig, assumed: Assumptions) -> Usage:
    a_round = assumed.completion_tokens + assumed.observation_tokens
    turns = min(assumed.turns, config.limits.max_turns)
    price = config.budget.price
    return sum(
        (
            price.cost(Tokens(prompt, assumed.completion_tokens))
            for prompt in _prompts(config, turns, first_prompt, a_round)
        ),
        start=Usage(),
    )


def _worst_episode(task: Task, config: TeachConfig) -> Usage:
    longest = config.sampling.max_new_tokens
    a_round = longest + config.context.max_observation_chars + STATUS_CHARS + 2 * MESSAGE_TOKENS
    first_prompt = TEMPLATE_TOKENS + most_tokens(render(task, (), config.context))
    price, turns = config.budget.price, config.limits.max_turns
    return sum(
        (price.worst(prompt, longest) for prompt in _prompts(config, turns, first_prompt, a_round)), start=Usage()
    )


def _prompts(config: TeachConfig, turns: int, first_prompt: int, a_round: int) -> list[int]:
    """Tokens of an episode's prompts: each shows the rounds before it as far as the context's window goes."""
    window = config.context.window
    return [first_prompt + (turn if window == "all" else min(turn, window)) * a_round for turn in range(turns)]


def _times(usage: Usage, factor: float) -> Usage:
    return Usage(
        prompt_tokens=round(usage.prompt_tokens * factor),
        completion_tokens=round(usage.completion_tokens * factor),
        cost_usd=usage.cost_usd * factor,
    )
