"""Groups of answers to one prompt → one row of ids, in which each prompt stands once.

Plain sequences repeat the prompt for each of the G answers. Here the row is prompt, answer 1, …, answer G; position ids
start again behind the prompt for each answer, and `PackedPlan` lets an answer see its prompt and itself only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from swe_srl.policy.attention import PackedPlan, Shape


class Answers(Protocol):
    """One prompt and what was answered to it."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Ids of the prompt."""

    @property
    def completions(self) -> tuple[tuple[int, ...], ...]:
        """Ids of each answer; none is empty."""


class Packed(NamedTuple):
    """What one call of the model gets, and where its answers' tokens are predicted."""

    input_ids: Tensor
    """(1, T) ids."""
    position_ids: Tensor
    """(1, T)"""
    plan: PackedPlan
    sources: Tensor
    """(N,) the place in the row whose hidden state predicts each answer token, in order of group, answer, token."""
    targets: Tensor
    """(N,) ids of the answer tokens."""


def pack(groups: Sequence[Answers], device: torch.device | str = "cpu") -> Packed:
    """Lay `groups` side by side in one row."""
    ids: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    shapes: list[Shape] = []
    for group in groups:
        start, length = len(ids), len(group.prompt_ids)
        ids += group.prompt_ids
        positions += range(length)
        for completion in group.completions:
            sources += [start + length - 1, *range(len(ids), len(ids) + len(completion) - 1)]
            targets += completion
            ids += completion
            positions += range(length, length + len(completion))
        lengths = tuple(len(completion) for completion in group.completions)
        # One answer and its prompt are a plain causal sequence, which has a faster kernel.
        shapes.append(Shape(length + lengths[0]) if len(lengths) == 1 else Shape(length, lengths))

    def row(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Packed(row(ids)[None], row(positions)[None], PackedPlan(shapes), row(sources), row(targets))


def num_tokens(group: Answers) -> int:
    """Tokens of the row that `group` takes."""
    return len(group.prompt_ids) + sum(len(completion) for completion in group.completions)


def micro_batches(groups: Sequence[Answers], max_tokens: int) -> Iterator[list[int]]:
    """Indices of `groups`, in order, in runs of at most `max_tokens` tokens; a group that is longer goes alone."""
    batch: list[int] = []
    size = 0
    for index, group in enumerate(groups):
        tokens = num_tokens(group)
        if batch and size + tokens > max_tokens:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += tokens
    if batch:
        yield batch
