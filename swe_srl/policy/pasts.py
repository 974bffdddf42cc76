"""The prompts of the rows that are being written → what their keys and values add to the attention of each new token.

`SharedPasts` is for several answers to each prompt: keys and values are read where the cache has them, and what several
prompts have in common is read once for all their rows (Hydragen, arXiv 2402.05099; here over a whole forest).
`OwnPasts` is for rows that have a prompt each: they lie side by side, in few calls of the kernel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from swe_srl.policy.attention import join, over
from swe_srl.policy.cache import Past, PrefixCache
from swe_srl.policy.tree import End

CHUNK = 512
"""Keys of a node that are read at once for all rows that see any of them; from the others they are hidden."""

NUM_LENGTHS = 3
"""Batches of like length into which rows with prompts of their own are sorted."""


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


class SharedPasts:
    """Rows of one prompt, and of prompts with the same beginning, become the tokens of one query over what they share."""

    def __init__(self, cache: PrefixCache, ends: Sequence[End]) -> None:
        """`ends`: where each row's prompt ends, in an order in which prompts that begin alike are neighbours."""
        self._pieces = [_Piece(cache, *piece) for piece in _pieces(cache, ends)]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but `rows`, which are in ascending order."""
        kept = rows.tolist()
        for piece in self._pieces:
            piece.keep(kept)
        self._pieces = [piece for piece in self._pieces if piece.rows.start < piece.rows.stop]

    def join(self, layer: int, query: Tensor, new: Ragged, out: Tensor, lse: Tensor, scale: float) -> Tensor:
        """Attention (1, heads, N, dim) over what the rows' prompts left and what `out` and `lse` were computed over."""
        for piece in self._pieces:
            tokens = slice(new.starts[piece.rows.start], new.starts[piece.rows.stop])
            past = piece.past(layer)
            found = over(query[:, :, tokens], past.keys, past.values, scale, piece.mask(new, query))
            out[:, :, tokens], lse[:, :, tokens] = join(out[:, :, tokens], lse[:, :, tokens], *found)
        return out


class _Run(NamedTuple):
    """Tokens of one node of the forest, counted from the node's first."""

    node: int
    start: int
    stop: int


class _Piece:
    """Keys that neighbouring rows see, each row the first `counts` of them."""

    def __init__(self, cache: PrefixCache, rows: slice, runs: Sequence[_Run], counts: Sequence[int]) -> None:
        self.rows = rows
        self._cache = cache
        self._runs = runs
        self._laid: dict[int, Past] = {}
        self._hidden: Tensor | None = None
        num_keys = sum(run.stop - run.start for run in runs)
        if min(counts) < num_keys:
            seen = torch.arange(num_keys)[None] < torch.tensor(counts)[:, None]
            self._hidden = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
        self._mask: tuple[Ragged, Tensor] | None = None

    def past(self, layer: int) -> Past:
        """Views of what the cache holds; a piece of several runs is laid together once."""
        if len(self._runs) == 1:
            return self._cache.run(layer, *self._runs[0])
        if layer not in self._laid:
            pieces = [self._cache.run(layer, *run) for run in self._runs]
            self._laid[layer] = Past(*(torch.cat(parts, dim=2) for parts in zip(*pieces, strict=True)))
        return self._laid[layer]

    def mask(self, new: Ragged, query: Tensor) -> Tensor | None:
        """(1, 1, tokens, keys) minus infinity where a new token's row does not see a key; of the query's dtype and device."""
        if self._hidden is None:
            return None
        if self._mask is None or self._mask[0] is not new:  # the same in every layer
            rows = new.rows[new.starts[self.rows.start] : new.starts[self.rows.stop]] - self.rows.start
            self._mask = new, self._hidden.to(query)[rows][None, None]
        return self._mask[1]

    def keep(self, rows: Sequence[int]) -> None:
        """`rows` of the whole batch stay, in ascending order."""
        start, stop = bisect_left(rows, self.rows.start), bisect_left(rows, self.rows.stop)
        if self._hidden is not None:
            self._hidden = self._hidden[[row - self.rows.start for row in rows[start:stop]]]
        self.rows = slice(start, stop)


def _pieces(cache: PrefixCache, ends: Sequence[End]) -> Iterator[tuple[slice, list[_Run], list[int]]]:
    """The arguments of each piece: what rows of different prompts share, then what each prompt has for itself."""
    prompts = list(_spans(ends))
    own: list[list[_Run]] = [[] for _ in prompts]
    by_node: dict[int, dict[int, int]] = {}
    for number, (end, _) in enumerate(prompts):
        for node, count in cache.segments(end):
            by_node.setdefault(node, {})[number] = count
    for node, counts in by_node.items():
        for start in range(0, max(counts.values()), CHUNK):
            for readers in _neighbours([number for number in counts if counts[number] > start]):
                if len(readers) == 1:
                    own[readers[0]].append(_Run(node, start, min(start + CHUNK, counts[readers[0]])))
                else:
                    yield from _shared(node, start, [(prompts[number][1], counts[number]) for number in readers])
    for (_, rows), runs in zip(prompts, own, strict=True):
        if runs:
            joined = _joined(runs)
            yield rows, joined, [sum(run.stop - run.start for run in joined)]


def _shared(
    node: int, start: int, readers: Sequence[tuple[slice, int]]
) -> Iterator[tuple[slice, list[_Run], list[int]]]:
    """The CHUNK of `node` from `start`, for neighbouring (rows of a prompt, tokens of the node that they see)."""
    # Those that end here apart from those that go on, from which nothing is to be hidden.
    for _, group in groupby(readers, key=lambda reader: reader[1] < start + CHUNK):
        alike = list(group)
        stop = min(start + CHUNK, max(count for _, count in alike))
        seen = [min(count, stop) - start for rows, count in alike for _ in range(rows.start, rows.stop)]
        yield slice(alike[0][0].start, alike[-1][0].stop), [_Run(node, start, stop)], seen


def _spans(ends: Sequence[End]) -> Iterator[tuple[End, slice]]:
    """Each prompt's end with its rows."""
    start = 0
    for end, of_prompt in groupby(ends):
        stop = start + sum(1 for _ in of_prompt)
        yield end, slice(start, stop)
        start = stop


def _neighbours(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Ascending numbers in runs without gaps."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _joined(runs: Sequence[_Run]) -> list[_Run]:
    """The same tokens in as few runs as can be."""
    joined: list[_Run] = []
    for run in runs:
        if joined and joined[-1].node == run.node and joined[-1].stop == run.start:
            joined[-1] = _Run(run.node, joined[-1].start, run.stop)
        else:
            joined.append(run)
    return joined


class OwnPasts:
    """Every row has a prompt of its own: rows of like length lie side by side, one call of the kernel for each such batch."""

    def __init__(self, cache: PrefixCache, ends: Sequence[End]) -> None:
        """`ends`: where each row's prompt ends."""
        order = sorted(range(len(ends)), key=lambda row: ends[row].depth)
        cuts = [len(order) * number // NUM_LENGTHS for number in range(NUM_LENGTHS + 1)]
        batches = [order[start:stop] for start, stop in pairwise(cuts) if start < stop]
        self._batches = [_SideBySide(cache, rows, [ends[row] for row in rows]) for rows in batches]
        self._order = self._inverse()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but `rows`, which are in ascending order."""
        for batch in self._batches:
            batch.keep(rows)
        self._batches = [batch for batch in self._batches if len(batch.rows)]
        self._order = self._inverse()

    def join(self, layer: int, query: Tensor, new: Ragged, out: Tensor, lse: Tensor, scale: float) -> Tensor:
        """Attention (1, heads, N, dim) over what the rows' prompts left and what `out` and `lse` were computed over."""
        padded = new.pad(query)
        found = [batch.seen_by(layer, padded, scale) for batch in self._batches]
        past = (torch.cat(parts).index_select(0, self._order) for parts in zip(*found, strict=True))
        return join(out, lse, *map(new.flatten, past))[0]

    def _inverse(self) -> Tensor:
        return torch.cat([batch.rows for batch in self._batches]).argsort()


class _SideBySide:
    """Some rows' pasts, padded to the longest."""

    def __init__(self, cache: PrefixCache, rows: Sequence[int], ends: Sequence[End]) -> None:
        self._cache = cache
        self._ends = ends
        self._layers: list[Past] = []
        depths = torch.tensor([end.depth for end in ends], device=cache.device)
        seen = torch.arange(int(depths.max()), device=cache.device)[None] < depths[:, None]
        self._mask = torch.zeros(seen.shape, device=cache.device).masked_fill_(~seen, float("-inf"))[:, None, None]
        self.rows = torch.tensor(rows, device=cache.device)
        """Of the query, those that look here."""
        self._places = torch.arange(len(rows), device=cache.device)

    def keep(self, rows: Tensor) -> None:
        place = torch.searchsorted(rows, self.rows).clamp_(max=len(rows) - 1)
        stays = rows[place] == self.rows
        self.rows, self._places = place[stays], self._places[stays]
        # To copy all that is left costs as much as a few tokens: only when a good part of it is of no more use.
        if len(self._places) <= 0.75 * len(self._mask):
            self._layers = [Past(past.keys[self._places], past.values[self._places]) for past in self._layers]
            self._mask = self._mask[self._places]
            self._places = torch.arange(len(self._places), device=self._places.device)

    def seen_by(self, layer: int, query: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        if layer == len(self._layers):
            self._layers.append(self._lay(layer))
        past = self._layers[layer]
        asked = query.index_select(0, self.rows)
        if len(self._places) == len(self._mask):
            return over(asked, past.keys, past.values, scale, self._mask.to(query.dtype))
        padded = query.new_zeros(len(self._mask), *query.shape[1:]).index_copy_(0, self._places, asked)
        out, lse = over(padded, past.keys, past.values, scale, self._mask.to(query.dtype))
        return out.index_select(0, self._places), lse.index_select(0, self._places)

    def _lay(self, layer: int) -> Past:
        pasts = [self._cache.past(layer, end) for end in self._ends]
        like = pasts[0].keys
        shape = (len(pasts), like.shape[1], self._mask.shape[-1], like.shape[3])
        laid = Past(like.new_zeros(shape), like.new_zeros(shape))
        for place, (past, end) in enumerate(zip(pasts, self._ends, strict=True)):
            laid.keys[place, :, : end.depth], laid.values[place, :, : end.depth] = past.keys[0], past.values[0]
        return laid
