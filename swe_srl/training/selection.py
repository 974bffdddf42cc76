"""Sampled groups → the ones worth an update: dynamic sampling with refill.

A group whose rewards are all alike has no advantages to learn from. Such groups are thrown away, counted by reason,
and replaced until the batch is full.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from swe_srl.schema import Reward
from swe_srl.training.objective import Group, group_advantages


class Sampled(NamedTuple):
    """A group as it was sampled and rewarded, before it is known whether it is kept."""

    step_id: str
    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]
    rewards: tuple[Reward, ...]


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
    """Why a group teaches nothing; empty when it does, and when `min_std` is None."""
    if min_std is None or statistics.pstdev([reward.value for reward in rewards]) > min_std:
        return ""
    if all(reward.parts.get("well_formed") == 0.0 for reward in rewards):
        return "all malformed"
    return "rewards alike"


def fill(
    batch_size: int,
    left_over: list[Group],
    sample: Callable[[int, int], list[Sampled]],
    *,
    min_std: float | None,
    max_rounds: int,
    keep_old: bool,
    divide_by_std: bool,
) -> Selection:
    """Call `sample(count, round)` until `batch_size` groups are kept, at most `max_rounds` times.

    The first round asks for what is missing; later ones for as many as the rate of kept groups so far makes likely to
    fill the batch, at most twice what is missing. With `keep_old`, groups carry the sampler's log-probabilities; groups left over always
    do, for they are trained on after the weights have moved.
    """
    kept = list(left_over)
    num_old = len(kept)
    sampled: list[Sampled] = []
    thrown: Counter[str] = Counter()
    rounds = 0
    while len(kept) < batch_size and rounds < max_rounds:
        missing = batch_size - len(kept)
        rate = (len(kept) - num_old + 1) / (len(sampled) + 1)
        found = sample(min(2 * missing, max(missing, round(missing / rate))), rounds)
        rounds += 1
        sampled += found
        for group in found:
            reason = reason_to_drop(group.rewards, min_std)
            if reason:
                thrown[reason] += 1
            else:
                kept.append(_group(group, divide_by_std))
    groups = kept[:batch_size]
    if not keep_old:
        groups = [
            group if index < num_old else group._replace(old_log_probs=None) for index, group in enumerate(groups)
        ]
    return Selection(groups, kept[batch_size:], sampled, dict(thrown), rounds)


def _group(sampled: Sampled, divide_by_std: bool) -> Group:
    advantages = group_advantages([reward.value for reward in sampled.rewards], divide_by_std=divide_by_std)
    return Group(sampled.step_id, sampled.prompt_ids, sampled.completions, advantages, sampled.log_probs)
