"""Log-probabilities → loss. Each token's weight is fixed before the batch is split, so micro-batches just add up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swe_srl.training.config import ObjectiveConfig


class Group(NamedTuple):
    """One prompt, its answers, and what they are worth."""

    step_id: str
    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    """Ids of each answer; none is empty."""
    advantages: tuple[float, ...] = ()
    """One for each answer; none for supervised targets."""
    old_log_probs: tuple[tuple[float, ...], ...] | None = None
    """Under which each token was drawn; None where the ratio is to be 1."""


def group_advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """(r - mean) / std inside the group, with the population's std. The rewards must differ."""
    mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
    return tuple((reward - mean) / std for reward in rewards)


def token_weights(groups: Sequence[Group], normalise: str) -> list[Tensor]:
    """For each group, the (N,) weights of its answer tokens; over the batch they sum to 1."""
    lengths = [[len(completion) for completion in group.completions] for group in groups]
    num_answers = sum(len(group) for group in lengths)
    num_tokens = sum(sum(group) for group in lengths)
    if normalise == "token":
        return [torch.full((sum(group),), 1.0 / num_tokens) for group in lengths]
    return [torch.cat([torch.full((length,), 1.0 / (num_answers * length)) for length in group]) for group in lengths]


def per_token(group: Group) -> Tensor:
    """(N,) the advantage of each answer token."""
    lengths = torch.tensor([len(completion) for completion in group.completions])
    return torch.tensor(group.advantages).repeat_interleave(lengths)


def cross_entropy(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood, a scalar."""
    return -(weights * log_probs).sum()


def policy_gradient(
    log_probs: Tensor, old_log_probs: Tensor | None, advantages: Tensor, weights: Tensor, config: ObjectiveConfig
) -> tuple[Tensor, Tensor]:
    """The clipped objective as a loss, and the weighted share of tokens whose ratio was clipped. All inputs (N,).

    Without `old_log_probs` the ratio is 1 and its gradient that of the log-probability.
    """
    old = log_probs.detach() if old_log_probs is None else old_log_probs
    ratio = (log_probs - old).exp()
    bounded = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    gain, bounded_gain = ratio * advantages, bounded * advantages
    clipped = (weights * (bounded_gain < gain)).sum().detach()
    return -(weights * torch.minimum(gain, bounded_gain)).sum(), clipped
