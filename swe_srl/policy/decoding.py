"""Attention while answers are written: each row of new tokens sees its prompt and its own tokens before.

A row may bring several tokens at once, the last one written and guesses at what follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swe_srl.policy.attention import over
from swe_srl.policy.cache import PrefixCache
from swe_srl.policy.pasts import OwnPasts, Ragged, SharedPasts
from swe_srl.policy.tree import End


class DecodePlan:
    """One call of the model after the other: the new tokens of each row see its prompt's keys and its own."""

    def __init__(self, cache: PrefixCache, ends: Sequence[End], capacity: int) -> None:
        """`ends`: where each row's prompt ends, rows of one prompt together; `capacity`: tokens that a row may have of its own."""
        self._pasts = (OwnPasts if len(set(ends)) == len(ends) else SharedPasts)(cache, ends)
        self._num_rows = len(ends)
        self._capacity = capacity
        self._own: list[tuple[Tensor, Tensor]] = []

    def advance(self, held: Sequence[int], counts: Sequence[int], device: torch.device) -> Ragged:
        """Make room for `counts` new tokens behind the `held` that each row keeps of its own; call before each call of the model."""
        self._new = Ragged(counts, device)
        self._slots = torch.tensor(held, device=device)[self._new.rows] + self._new.offsets
        self._reach = max(map(sum, zip(held, counts, strict=True)))
        self._hidden = None
        if self._new.width > 1 or len(set(held)) > 1:
            last = torch.tensor(held, device=device)[:, None] + torch.arange(self._new.width, device=device)
            self._hidden = (torch.arange(self._reach, device=device) > last[:, :, None])[:, None]
        return self._new

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but `rows`, which are in ascending order."""
        self._own = [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in self._own]
        self._pasts.keep(rows)
        self._num_rows = len(rows)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; the batch is one row, in which the new tokens of each answer follow each other."""
        if layer == len(self._own):
            # What was guessed wrongly stays until it is written over; it is hidden, but must be a number.
            shape = (self._num_rows, key.shape[1], self._capacity, key.shape[3])
            self._own.append((key.new_zeros(shape), value.new_zeros(shape)))
        keys, values = self._own[layer]
        keys[self._new.rows, :, self._slots] = key[0].transpose(0, 1)
        values[self._new.rows, :, self._slots] = value[0].transpose(0, 1)
        mask = None
        if self._hidden is not None:
            mask = query.new_zeros(self._hidden.shape).masked_fill_(self._hidden, float("-inf"))
        reach = slice(self._reach)
        own = over(self._new.pad(query), keys[:, :, reach], values[:, :, reach], scale, mask)
        out, lse = (self._new.flatten(found) for found in own)
        return self._pasts.join(layer, query, self._new, out, lse, scale)
