"""Attention while answers are written: each row of new tokens sees its prompt and its own tokens before.

The keys and values of a prompt stand once in memory, whatever the number of its answers; each answer has only its own.
A row may bring several tokens at once, the last one written and guesses at what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from swe_srl.policy.attention import join, over
from swe_srl.policy.cache import Past, PrefixCache
from swe_srl.policy.tree import End


class Ragged:
    """New tokens of several rows, some with more than others: one behind the other, or side by side and padded."""

    def __init__(self, counts: Sequence[int], device: torch.device) -> None:
        """`counts`: tokens of each row, at least one."""
        self.starts = [0, *accumulate(counts)]
        """Where each row begins in the flat form, and where the last one ends."""
        self.width = max(counts)
        widths = torch.tensor(counts, device=device)
        self.rows = torch.arange(len(counts), device=device).repeat_interleave(widths)
        """(N,) the row of each token."""
        self.offsets = torch.arange(len(self.rows), device=device) - (widths.cumsum(0) - widths)[self.rows]
        """(N,) its place among its row's."""

    def pad(self, flat: Tensor) -> Tensor:
        """(1, heads, N, …) → (rows, heads, width, …), with zeros behind a row's last token."""
        tokens = flat[0].transpose(0, 1)
        if self.width == 1:
            return tokens.unsqueeze(2)
        padded = flat.new_zeros(len(self.starts) - 1, self.width, *tokens.shape[1:])
        padded[self.rows, self.offsets] = tokens
        return padded.transpose(1, 2)

    def flatten(self, padded: Tensor) -> Tensor:
        """The way back."""
        tokens = padded[:, :, 0] if self.width == 1 else padded[self.rows, :, self.offsets]
        return tokens.transpose(0, 1).unsqueeze(0)


class DecodePlan:
    """One call of the model after the other: the new tokens of each row see its prompt's keys and its own."""

    def __init__(self, cache: PrefixCache, ends: Sequence[End], capacity: int) -> None:
        """`ends`: where each row's prompt ends, rows of one prompt together; `capacity`: tokens that a row may have of its own."""
        self._cache = cache
        self._ends = list(ends)
        self._make = _ByLength if len(set(ends)) == len(ends) else _ByPrompt
        self._capacity = capacity
        self._own: list[tuple[Tensor, Tensor]] = []
        self._pasts: list[_ByLength | _ByPrompt] = []

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
        self._ends = [self._ends[row] for row in rows.tolist()]
        self._own = [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in self._own]
        for past in self._pasts:
            past.keep(rows)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; the batch is one row, in which the new tokens of each answer follow each other."""
        if layer == len(self._own):
            # What was guessed wrongly stays until it is written over; it is hidden, but must be a number.
            shape = (len(self._ends), key.shape[1], self._capacity, key.shape[3])
            self._own.append((key.new_zeros(shape), value.new_zeros(shape)))
            # What a prompt has read lies in pieces. Laid together once, it takes one call of the kernel for each token.
            self._pasts.append(self._make(self._ends, {end: self._cache.past(layer, end) for end in set(self._ends)}))
        keys, values = self._own[layer]
        keys[self._new.rows, :, self._slots] = key[0].transpose(0, 1)
        values[self._new.rows, :, self._slots] = value[0].transpose(0, 1)
        mask = None
        if self._hidden is not None:
            mask = query.new_zeros(self._hidden.shape).masked_fill_(self._hidden, float("-inf"))
        reach = slice(self._reach)
        own, own_lse = over(self._new.pad(query), keys[:, :, reach], values[:, :, reach], scale, mask)
        past = self._pasts[layer].seen_by(query, self._new, scale)
        return join(self._new.flatten(own), self._new.flatten(own_lse), *past)[0]


class _ByPrompt:
    """What several rows of one prompt have before them stands once: they become the tokens of one query over it."""

    def __init__(self, ends: Sequence[End], pasts: Mapping[End, Past]) -> None:
        self._pasts = pasts
        self._ends = list(ends)
        self._spans = _spans(self._ends)

    def keep(self, rows: Tensor) -> None:
        self._ends = [self._ends[row] for row in rows.tolist()]
        self._spans = _spans(self._ends)

    def seen_by(self, query: Tensor, new: Ragged, scale: float) -> tuple[Tensor, Tensor]:
        found = []
        for end, rows in self._spans:
            tokens = slice(new.starts[rows.start], new.starts[rows.stop])
            past = self._pasts[end]
            found.append(over(query[:, :, tokens], past.keys, past.values, scale))
        outs, lses = zip(*found, strict=True)
        return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


NUM_LENGTHS = 3
"""Batches of like length into which rows with prompts of their own are sorted."""


class _ByLength:
    """Every row has a prompt of its own: rows of like length lie side by side, one call of the kernel for each such batch."""

    def __init__(self, ends: Sequence[End], pasts: Mapping[End, Past]) -> None:
        order = sorted(range(len(ends)), key=lambda row: pasts[ends[row]].keys.shape[2])
        cuts = [len(order) * number // NUM_LENGTHS for number in range(NUM_LENGTHS + 1)]
        batches = [order[start:stop] for start, stop in pairwise(cuts) if start < stop]
        self._batches = [_Padded(rows, [pasts[ends[row]] for row in rows]) for rows in batches]

    def keep(self, rows: Tensor) -> None:
        for batch in self._batches:
            batch.keep(rows)
        self._batches = [batch for batch in self._batches if len(batch.rows)]

    def seen_by(self, query: Tensor, new: Ragged, scale: float) -> tuple[Tensor, Tensor]:
        padded = new.pad(query)
        found = [batch.seen_by(padded, scale) for batch in self._batches]
        order = torch.cat([batch.rows for batch in self._batches]).argsort()
        out, lse = (torch.cat(parts).index_select(0, order) for parts in zip(*found, strict=True))
        return new.flatten(out), new.flatten(lse)


class _Padded:
    """Some rows' pasts side by side, padded to the longest."""

    def __init__(self, rows: Sequence[int], pasts: Sequence[Past]) -> None:
        lengths = [past.keys.shape[2] for past in pasts]
        like = pasts[0].keys
        shape = (len(pasts), like.shape[1], max(lengths), like.shape[3])
        self._keys, self._values = like.new_empty(shape), like.new_empty(shape)
        self._mask = like.new_full((len(pasts), 1, 1, max(lengths)), float("-inf"))
        for place, (past, length) in enumerate(zip(pasts, lengths, strict=True)):
            self._keys[place, :, :length], self._keys[place, :, length:] = past.keys[0], 0.0
            self._values[place, :, :length], self._values[place, :, length:] = past.values[0], 0.0
            self._mask[place, :, :, :length] = 0.0
        self.rows = torch.tensor(rows, device=like.device)
        """Of the query, those that look here."""
        self._places = torch.arange(len(rows), device=like.device)

    def keep(self, rows: Tensor) -> None:
        place = torch.searchsorted(rows, self.rows).clamp_(max=len(rows) - 1)
        stays = rows[place] == self.rows
        self.rows, self._places = place[stays], self._places[stays]
        # To copy all that is left costs as much as a few tokens: only when a good part of it is of no more use.
        if len(self._places) <= 0.75 * len(self._keys):
            self._keys, self._values = self._keys[self._places], self._values[self._places]
            self._mask = self._mask[self._places]
            self._places = torch.arange(len(self._places), device=self._places.device)

    def seen_by(self, query: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        asked = query.index_select(0, self.rows)
        if len(self._places) == len(self._keys):
            return over(asked, self._keys, self._values, scale, self._mask)
        padded = query.new_zeros(len(self._keys), *query.shape[1:]).index_copy_(0, self._places, asked)
        out, lse = over(padded, self._keys, self._values, scale, self._mask)
        return out.index_select(0, self._places), lse.index_select(0, self._places)


def _spans(ends: Sequence[End]) -> list[tuple[End, slice]]:
    spans: list[tuple[End, slice]] = []
    start = 0
    for index in range(1, len(ends) + 1):
        if index == len(ends) or ends[index] != ends[start]:
            spans.append((ends[start], slice(start, index)))
            start = index
    return spans
