"""Prompts → their keys and values, read once: what two prompts share, or a prompt and the one of the turn before, is not read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from swe_srl.policy.attention import join, over, within
from swe_srl.policy.tree import End, Forest, Growth

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_READ_TOKENS = 2048
"""Tokens of one call of the model, unless a single prompt has more to be read."""


class Past(NamedTuple):
    """Keys and values of one layer for one run of tokens, each (1, key heads, tokens, head_dim)."""

    keys: Tensor
    values: Tensor


class PrefixCache:
    """A forest of prompts with the keys, the values and the last hidden states of its tokens. Good for one set of weights."""

    def __init__(self, model: PreTrainedModel, max_tokens: int) -> None:
        """Holds at most `max_tokens` tokens when a new batch of prompts comes, and all of that batch."""
        self._model = model
        self._max_tokens = max_tokens
        self.clear()

    def clear(self) -> None:
        """Forget everything: the weights have changed, or there is no room."""
        self._forest = Forest()
        self._layers: list[dict[int, Past]] = [{} for _ in range(self._model.config.num_hidden_layers)]
        self._hidden: dict[int, Tensor] = {}
        self.num_tokens = 0
        """Tokens held."""

    @torch.inference_mode()
    def read(self, prompts: Sequence[tuple[int, ...]]) -> tuple[list[End], Tensor]:
        """Where each prompt ends, and the (prompts, hidden) states behind its last token, which predict the first of its answer."""
        if self.num_tokens > self._max_tokens:
            self.clear()
        ends: list[End] = []
        grown: list[Growth] = []
        for prompt in prompts:
            end, growth = self._forest.add(prompt)
            ends.append(end)
            if growth:
                grown.append(growth)
        try:
            for batch in _batches(grown):
                self._read(batch)
        except BaseException:
            self.clear()  # the forest already has what was not read
            raise
        last = [self._hidden[end.node][end.depth - 1 - self._forest.nodes[end.node].depth] for end in ends]
        return ends, torch.stack(last)

    def past(self, layer: int, end: End) -> Past:
        """All that stands on the path to `end`, in one piece, in no order that matters."""
        pieces = self.pieces(layer, end)
        if len(pieces) == 1:
            return pieces[0]
        return Past(
            torch.cat([piece.keys for piece in pieces], dim=2), torch.cat([piece.values for piece in pieces], dim=2)
        )

    def pieces(self, layer: int, end: End) -> list[Past]:
        """What stands on the path to `end`, without a copy."""
        return [self.run(layer, node, 0, count) for node, count in self.segments(end)]

    def run(self, layer: int, node: int, start: int, stop: int) -> Past:
        """What stands in `node`, counted from its first token, without a copy."""
        held = self._layers[layer][node]
        return Past(held.keys[:, :, start:stop], held.values[:, :, start:stop])

    def segments(self, end: End) -> list[tuple[int, int]]:
        """See Forest.segments."""
        return self._forest.segments(*end)

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        device: torch.device = self._model.device
        return device

    def _read(self, batch: Sequence[Growth]) -> None:
        device = self.device
        nodes = self._forest.nodes
        ids: list[int] = []
        positions: list[int] = []
        for growth in batch:
            depth = nodes[growth.node].depth
            ids += nodes[growth.node].ids[growth.start - depth : growth.stop - depth]
            positions += range(growth.start, growth.stop)
        hidden = self._model.base_model(
            input_ids=torch.tensor([ids], device=device), position_ids=torch.tensor([positions], device=device),
            use_cache=False, plan=_ReadPlan(self, batch),
        ).last_hidden_state[0]  # fmt: skip
        for growth, states in zip(batch, hidden.split([g.stop - g.start for g in batch]), strict=True):
            known = self._hidden.get(growth.node)
            self._hidden[growth.node] = states if known is None else torch.cat([known, states])
        self.num_tokens += len(ids)

    def keep(self, layer: int, node: int, keys: Tensor, values: Tensor) -> None:
        """Lay new keys and values behind those of `node`."""
        held = self._layers[layer]
        if node in held:
            keys, values = torch.cat([held[node].keys, keys], dim=2), torch.cat([held[node].values, values], dim=2)
        held[node] = Past(keys.contiguous(), values.contiguous())


class _ReadPlan:
    """One row of new tokens: each sees what is held of its path and the new tokens before it."""

    def __init__(self, cache: PrefixCache, batch: Sequence[Growth]) -> None:
        self._cache = cache
        self._batch = batch

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; the batch is one row."""
        outs, start = [], 0
        for growth in self._batch:
            part = slice(start, start := start + growth.stop - growth.start)
            # A batch stands in the order in which its tokens were added, so what a node stands on is kept before it.
            before = self._cache.pieces(layer, End(growth.node, growth.start))
            self._cache.keep(layer, growth.node, key[:, :, part], value[:, :, part])
            out, lse = within(query[:, :, part], key[:, :, part], value[:, :, part], scale)
            for past in before:
                out, lse = join(out, lse, *over(query[:, :, part], past.keys, past.values, scale))
            outs.append(out)
        return torch.cat(outs, dim=2)


def _batches(grown: Sequence[Growth]) -> Iterator[list[Growth]]:
    batch: list[Growth] = []
    size = 0
    for growth in grown:
        tokens = growth.stop - growth.start
        if batch and size + tokens > MAX_READ_TOKENS:
            yield batch
            batch, size = [], 0
        batch.append(growth)
        size += tokens
    if batch:
        yield batch
