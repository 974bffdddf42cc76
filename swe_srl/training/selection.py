"""Sampled groups → the ones worth an update: dynamic sampling with refill.

A group whose rewards are all alike has no advantages to learn from. Such groups are thrown away, counted by reason,
and replaced until the batch is full.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from swe_srl.schema import Reward
from swe_srl.training.objective import Group, fresh, group_advantages

Found = TypeVar("Found")
Made = TypeVar("Made")

BROKEN = "boxes broke"
"""Why what says nothing about the student is thrown away."""


class Sampled(NamedTuple):
    """A group as it was sampled and rewarded, before it is known whether it is kept."""

    step_id: str
    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]
    rewards: tuple[Reward, ...]
    """None where what rewards them broke."""
    actions: tuple[str, ...] = ()
    """What each answer would do, without its thinking; empty where it holds no action."""


class Selection(NamedTuple):
    """A batch, and what it took to fill it."""

    groups: list[Group]
    left_over: list[Group]
    """Kept groups beyond the batch, for the next one."""
    sampled: list[Sampled]
    """Everything sampled on the way, thrown away or not."""
    thrown: dict[str, int]
    """Reason → groups."""
    num_rounds: int


def reason_to_drop(rewards: tuple[Reward, ...], min_std: float | None) -> str:
    """Why a group teaches nothing; empty when it does, and when `min_std` is None and there are rewards."""
    if not rewards:
        return BROKEN
    if min_std is None or statistics.pstdev([reward.value for reward in rewards]) > min_std:
        return ""
    if all(reward.parts.get("well_formed") == 0.0 for reward in rewards):
        return "all malformed"
    return "rewards alike"


class Refilled(NamedTuple, Generic[Found, Made]):
    """What `refill` came to."""

    made: list[Made]
    """The first `num_old` of them were left over from before."""
    num_old: int
    found: list[Found]
    """Everything found on the way, thrown away or not."""
    thrown: dict[str, int]
    """Reason → how many."""
    num_rounds: int


def refill(
    batch_size: int,
    left_over: Sequence[Made],
    sample: Callable[[int, int], list[Found]],
    *,
    reason: Callable[[Found], str],
    make: Callable[[Found], Made],
    max_rounds: int,
) -> Refilled[Found, Made]:
    """Call `sample(count, round)` until `batch_size` are made, at most `max_rounds` times.

    What has a reason is thrown away. The first round asks for what is missing; later ones for as many as the rate of those
    kept so far makes likely to fill the batch, at most twice what is missing.
    """
    made = list(left_over)
    found: list[Found] = []
    thrown: Counter[str] = Counter()
    rounds = 0
    while len(made) < batch_size and rounds < max_rounds:
        missing = batch_size - len(made)
        rate = (len(made) - len(left_over) + 1) / (len(found) + 1)
        new = sample(min(2 * missing, max(missing, round(missing / rate))), rounds)
        rounds += 1
        found += new
        for item in new:
            why = reason(item)
            if why:
                thrown[why] += 1
            else:
                made.append(make(item))
    return Refilled(made, len(left_over), found, dict(thrown), rounds)


def fill(
    batch_size: int,
    left_over: list[Group],
    sample: Callable[[int, int], list[Sampled]],
    *,
    min_std: float | None,
    max_rounds: int,
    keep_old: bool,
    divide_by_std: bool,
    own: bool = True,
) -> Selection:
    """A batch of groups whose rewards differ, see `refill`; `own` and `keep_old` as in `objective.fresh`.

    Groups left over always carry the sampler's log-probabilities, for they are trained on after the weights have moved.
    """
    filled = refill(
        batch_size,
        left_over,
        sample,
        reason=lambda group: reason_to_drop(group.rewards, min_std),
        make=lambda group: _group(group, divide_by_std),
        max_rounds=max_rounds,
    )
    groups = [
        group if index < filled.num_old else fresh(group, own=own, keep_old=keep_old)
        for index, group in enumerate(filled.made[:batch_size])
    ]
    return Selection(groups, filled.made[batch_size:], filled.found, filled.thrown, filled.num_rounds)


def _group(sampled: Sampled, divide_by_std: bool) -> Group:
    advantages = group_advantages([reward.value for reward in sampled.rewards], divide_by_std=divide_by_std)
    return Group(sampled.step_id, sampled.prompt_ids, sampled.completions, advantages, sampled.log_probs)
