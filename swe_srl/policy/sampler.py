"""Prompt ids → sampled ids, in this process: each prompt is read once, all its answers are written side by side.

The keys and values of a prompt stand once in memory, whatever the number of answers; each answer has only its own.
Rows that are finished leave the batch. A row's random numbers depend on the seed, its prompt and its number alone, not
on what else is in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from swe_srl.policy.attention import join, over
from swe_srl.policy.base import Sampling
from swe_srl.policy.cache import Past, PrefixCache
from swe_srl.policy.tree import End

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Row:
    """One answer while it is being written."""

    prompt: int
    """Which prompt it answers."""
    sample: int
    draws: Tensor
    """(max_new_tokens,) float64 in [0, 1): one random number for each token."""
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: str = "length"


class DecodePlan:
    """One new token for each row: a row sees its prompt's keys and its own."""

    def __init__(self, cache: PrefixCache, ends: Sequence[End], capacity: int) -> None:
        """`ends`: where each row's prompt ends, rows of one prompt together; `capacity`: tokens that a row may have of its own."""
        self._cache = cache
        self._ends = list(ends)
        self._make = _ByLength if len(set(ends)) == len(ends) else _ByPrompt
        self._capacity = capacity
        self._own: list[tuple[Tensor, Tensor]] = []
        self._pasts: list[_ByLength | _ByPrompt] = []
        self._length = 0

    def advance(self) -> None:
        """Make room for the next token; call before each call of the model."""
        self._length += 1

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but `rows`, which are in ascending order."""
        self._ends = [self._ends[row] for row in rows.tolist()]
        self._own = [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in self._own]
        for past in self._pasts:
            past.keep(rows)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; one token a row."""
        if layer == len(self._own):
            shape = (key.shape[0], key.shape[1], self._capacity, key.shape[3])
            self._own.append((key.new_empty(shape), value.new_empty(shape)))
            # What a prompt has read lies in pieces. Laid together once, it takes one call of the kernel for each token.
            self._pasts.append(self._make(self._ends, {end: self._cache.past(layer, end) for end in set(self._ends)}))
        keys, values = self._own[layer]
        keys[:, :, self._length - 1] = key[:, :, 0]
        values[:, :, self._length - 1] = value[:, :, 0]
        own = over(query, keys[:, :, : self._length], values[:, :, : self._length], scale)
        return join(*own, *self._pasts[layer].seen_by(query, scale))[0]


class _ByPrompt:
    """What several rows of one prompt have before them stands once: they become the tokens of one query over it."""

    def __init__(self, ends: Sequence[End], pasts: Mapping[End, Past]) -> None:
        self._pasts = pasts
        self._ends = list(ends)
        self._spans = _spans(self._ends)

    def keep(self, rows: Tensor) -> None:
        self._ends = [self._ends[row] for row in rows.tolist()]
        self._spans = _spans(self._ends)

    def seen_by(self, query: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        outs, lses = [], []
        heads, dim = query.shape[1], query.shape[3]
        for end, span in self._spans:
            past, size = self._pasts[end], span.stop - span.start
            kv_heads = past.keys.shape[1]
            asked = query[span].reshape(size, kv_heads, heads // kv_heads, dim).transpose(0, 1)
            out, lse = over(asked.reshape(1, kv_heads, -1, dim), past.keys, past.values, scale)
            outs.append(out.reshape(kv_heads, size, -1, dim).transpose(0, 1).reshape(size, heads, 1, dim))
            lses.append(lse.reshape(kv_heads, size, -1).transpose(0, 1).reshape(size, heads, 1))
        return torch.cat(outs), torch.cat(lses)


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

    def seen_by(self, query: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        found = [batch.seen_by(query, scale) for batch in self._batches]
        order = torch.cat([batch.rows for batch in self._batches]).argsort()
        outs, lses = (torch.cat(parts).index_select(0, order) for parts in zip(*found, strict=True))
        return outs, lses


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


def random_numbers(seed: int, prompt: Sequence[int], occurrence: int, sample: int, count: int) -> Tensor:
    """(count,) float64 in [0, 1), from these arguments alone."""
    key = hashlib.sha256(repr((seed, tuple(prompt), occurrence, sample)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Ids (R,) and their log-probabilities (R,) from logits (R, V) and one random number a row.

    Log-probabilities are those at the sampling temperature over the whole vocabulary (at 1 where sampling is greedy).
    """
    logits = logits.float()
    if sampling.temperature == 0.0:
        ids = logits.argmax(dim=-1)
        return ids, logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=-1)
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    logits = logits - logits.amax(dim=-1, keepdim=True)
    weights = logits.exp()
    total = weights.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1.0:
        ordered, order = weights.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p * total
        weights = weights.scatter(1, order, ordered.masked_fill(beyond, 0.0))
    ids = _where_passed(weights, draws.to(weights.device))
    return ids, (logits.gather(1, ids[:, None]) - total.log())[:, 0]


def _where_passed(weights: Tensor, draws: Tensor) -> Tensor:
    """(R,) the first place at which each row's running sum, as a share of its total, passes the row's draw in [0, 1).

    One random number a row, however many tokens there are. Running sums over 50,000 numbers are slow and, in float32,
    off by up to 1e-5: here they are taken over blocks, then inside the one block in question, in float64.
    """
    size = 128
    missing = -weights.shape[1] % size
    blocks = (pad(weights, (0, missing)) if missing else weights).reshape(len(weights), -1, size)
    sums = blocks.sum(dim=-1).double()
    ends = sums.cumsum(dim=-1)
    point = draws[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, point, right=True).clamp_(max=ends.shape[1] - 1)
    share = (point - (ends - sums).gather(1, block)) / sums.gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, size))[:, 0].double().cumsum(dim=-1)
    place = torch.searchsorted(inside, share.clamp(0.0, 1.0 - 1e-12) * inside[:, -1:], right=True)
    return (block * size + place)[:, 0]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    cache: PrefixCache,
    prompts: Sequence[tuple[int, ...]],
    rows: Sequence[Row],
    sampling: Sampling,
    ended: Callable[[list[int]], bool],
) -> None:
    """Write every row's answer. `rows` are in the order of their prompts; `ended` tells from a row's ids whether it stops."""
    backbone, head = model.base_model, model.get_output_embeddings()
    device = head.weight.device
    ends, hidden = cache.read(prompts)
    active = list(rows)
    draws = torch.stack([row.draws for row in active]).to(device)
    lengths = torch.tensor([len(prompts[row.prompt]) for row in active], device=device)
    plan = DecodePlan(cache, [ends[row.prompt] for row in active], sampling.max_new_tokens)
    last = hidden.index_select(0, torch.tensor([row.prompt for row in active], device=device))
    for step in range(sampling.max_new_tokens):
        ids, log_probs = choose(head(last), draws[:, step], sampling)
        going = _take(active, ids.tolist(), log_probs.tolist(), ended)
        if not going:
            return
        if len(going) < len(active):
            active = [active[index] for index in going]
            kept = torch.tensor(going, device=device)
            draws, lengths, ids = draws.index_select(0, kept), lengths.index_select(0, kept), ids.index_select(0, kept)
            plan.keep(kept)
        if step + 1 < sampling.max_new_tokens:
            plan.advance()
            out = backbone(input_ids=ids[:, None], position_ids=(lengths + step)[:, None], use_cache=False, plan=plan)
            last = out.last_hidden_state[:, 0]


def _take(
    active: Sequence[Row], ids: list[int], log_probs: list[float], ended: Callable[[list[int]], bool]
) -> list[int]:
    """Give each row its new token; the indices of those that go on."""
    going = []
    for index, (row, token, log_prob) in enumerate(zip(active, ids, log_probs, strict=True)):
        row.ids.append(token)
        row.log_probs.append(log_prob)
        if ended(row.ids):
            row.finish_reason = "stop"
        else:
            going.append(index)
    return going
