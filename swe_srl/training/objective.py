"""Log-probabilities → loss. Each token's weight is fixed before the batch is split, so micro-batches just add up."""

from __future__ import annotations

import math
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
    reference_log_probs: tuple[tuple[float, ...], ...] | None = None
    """Of each token under the frozen reference; None where nothing is compared with it."""
    sampler_log_probs: tuple[tuple[float, ...], ...] | None = None
    """Of each token under the engine that drew it a moment ago, with what should be the trainer's weights; None where the
    trainer itself drew it, or other weights."""


class Mismatch(NamedTuple):
    """How far an engine's log-probabilities of the tokens that it drew lie from the trainer's."""

    sum: float = 0.0
    """Of |Δ log p|, in nats."""
    max: float = 0.0
    num_truncated: int = 0
    """Tokens whose importance went beyond its cap."""
    num_tokens: int = 0

    @property
    def mean(self) -> float:
        """Of |Δ log p|; 0 where no engine drew anything."""
        return self.sum / self.num_tokens if self.num_tokens else 0.0

    @property
    def truncated_share(self) -> float:
        """Of the tokens."""
        return self.num_truncated / self.num_tokens if self.num_tokens else 0.0

    def joined(self, other: Mismatch) -> Mismatch:
        """Over the tokens of both."""
        return Mismatch(
            self.sum + other.sum,
            max(self.max, other.max),
            self.num_truncated + other.num_truncated,
            self.num_tokens + other.num_tokens,
        )


class Loss(NamedTuple):
    """A scalar to go down, and what it came from."""

    value: Tensor
    clip_share: float = 0.0
    """Weighted share of tokens whose ratio was clipped."""
    kl: float = 0.0
    """Weighted estimate of the divergence from the reference, in nats."""
    mismatch: Mismatch = Mismatch()


def group_advantages(rewards: Sequence[float], *, divide_by_std: bool = True) -> tuple[float, ...]:
    """(r - mean) / std inside the group, with the population's std; zero where all rewards are alike."""
    mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
    return tuple((reward - mean) / (std if divide_by_std and std > 0.0 else 1.0) for reward in rewards)


def fresh(group: Group, *, own: bool, keep_old: bool) -> Group:
    """A group that was drawn a moment ago, with the sampler's numbers where they are needed.

    `own`: the trainer itself drew it, so that nothing is to be corrected; `keep_old`: the ratio is taken against the sampler's.
    """
    drawn = group.old_log_probs
    return group._replace(old_log_probs=drawn if keep_old else None, sampler_log_probs=None if own else drawn)


def token_weights(groups: Sequence[Group], normalise: str, max_new_tokens: int) -> list[Tensor]:
    """For each group, the (N,) weights of its answer tokens, as ObjectiveConfig.normalise says; `sequence` and `token` sum to 1 over the batch."""
    lengths = [[len(completion) for completion in group.completions] for group in groups]
    num_answers = sum(len(group) for group in lengths)
    num_tokens = sum(sum(group) for group in lengths)
    if normalise != "sequence":
        weight = 1.0 / (num_tokens if normalise == "token" else num_answers * max_new_tokens)
        return [torch.full((sum(group),), weight) for group in lengths]
    return [torch.cat([torch.full((length,), 1.0 / (num_answers * length)) for length in group]) for group in lengths]


def per_token(group: Group) -> Tensor:
    """(N,) the advantage of each answer token."""
    lengths = torch.tensor([len(completion) for completion in group.completions])
    return torch.tensor(group.advantages).repeat_interleave(lengths)


def flat(rows: Sequence[Sequence[float]]) -> Tensor:
    """(N,) the values of a group's answer tokens, answer after answer."""
    return torch.tensor([value for row in rows for value in row])


def cross_entropy(log_probs: Tensor, weights: Tensor) -> Loss:
    """Weighted negative log-likelihood."""
    return Loss(-(weights * log_probs).sum())


def policy_gradient(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    config: ObjectiveConfig,
    reference_log_probs: Tensor | None = None,
    importance: Tensor | None = None,
) -> Loss:
    """The clipped objective, all inputs (N,). Where old and new log-probabilities are the same the gradient is the plain policy gradient's.

    `importance` is what each token's gain counts for, where it is not 1.
    """
    ratio = (log_probs - old_log_probs).exp()
    bounded = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    gain, bounded_gain = ratio * advantages, bounded * advantages
    clip_share = (weights * (bounded_gain < gain)).sum().item()
    counted = weights if importance is None else weights * importance
    loss = -(counted * torch.minimum(gain, bounded_gain)).sum()
    if reference_log_probs is None:
        return Loss(loss, clip_share)
    difference = reference_log_probs - log_probs
    kl = (weights * (difference.exp() - difference - 1.0)).sum()
    return Loss(loss + config.kl_weight * kl, clip_share, kl.item())


def importance_of(own: Sequence[Tensor], groups: Sequence[Group], cap: float) -> tuple[Tensor | None, Mismatch]:
    """(N,) min(p trainer / p sampler, `cap`) of each token, None where no engine drew any; and how far the two are apart.

    `own`: the trainer's log-probabilities of each group's tokens. A token counts 1 where its ratio is taken against the
    sampler's already.
    """
    if all(group.sampler_log_probs is None for group in groups):
        return None, Mismatch()
    factors, mismatch = [], Mismatch()
    for group, values in zip(groups, own, strict=True):
        factor = torch.ones_like(values)
        if group.sampler_log_probs is not None:
            difference = values - flat(group.sampler_log_probs).to(values)
            corrected = group.old_log_probs is None
            factor = difference.exp().clamp(max=cap) if corrected else factor
            num_beyond = int((difference > math.log(cap)).sum()) if corrected else 0
            apart = difference.abs()
            mismatch = mismatch.joined(Mismatch(float(apart.sum()), float(apart.max()), num_beyond, len(apart)))
        factors.append(factor)
    return torch.cat(factors), mismatch


def ratio_loss(log_probs: Tensor, groups: Sequence[Group], weights: Tensor, config: ObjectiveConfig) -> Loss:
    """`policy_gradient` from the (N,) log-probabilities of the groups' answer tokens. Without old ones a group is its own old policy."""
    own = torch.split(log_probs.detach(), [sum(map(len, group.completions)) for group in groups])
    old = [
        values if group.old_log_probs is None else flat(group.old_log_probs).to(values)
        for group, values in zip(groups, own, strict=True)
    ]
    reference = [flat(group.reference_log_probs) for group in groups if group.reference_log_probs is not None]
    importance, mismatch = importance_of(own, groups, config.importance_cap)
    return policy_gradient(
        log_probs, torch.cat(old), torch.cat([per_token(group) for group in groups]).to(log_probs), weights, config,
        torch.cat(reference).to(log_probs) if reference else None, importance,
    )._replace(mismatch=mismatch)  # fmt: skip
