"""Prompt ids → sampled ids, in this process: each prompt is read once, all its answers are written side by side.

The keys and values of a prompt stand once in memory, whatever the number of answers; each answer has only its own.
Rows that are finished leave the batch. A row's random numbers depend on the seed, its prompt and its number alone, not
on what else is in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from swe_srl.policy.attention import causal, flash, join, shared_decode_reference
from swe_srl.policy.base import Sampling

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


class PrefillPlan:
    """Reads one prompt and keeps its keys and values."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; the batch is one prompt."""
        assert layer == len(self.keys)
        self.keys.append(key.contiguous())
        self.values.append(value.contiguous())
        return causal(query, key, value, scale)


class DecodePlan:
    """One new token for each row: a row sees its prompt's keys and its own."""

    def __init__(self, prompts: Sequence[PrefillPlan], owners: Sequence[int], capacity: int) -> None:
        """`owners`: index of each row's prompt, in ascending order; `capacity`: tokens that a row may have of its own."""
        self._prompts = prompts
        self._capacity = capacity
        self._own: list[tuple[Tensor, Tensor]] = []
        self._length = 0
        self._spans = _spans(owners)

    def advance(self) -> None:
        """Make room for the next token; call before each call of the model."""
        self._length += 1

    def keep(self, rows: Tensor, owners: Sequence[int]) -> None:
        """Drop all rows but `rows`, which belong to `owners`."""
        self._own = [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in self._own]
        self._spans = _spans(owners)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; one token a row."""
        if layer == len(self._own):
            shape = (key.shape[0], key.shape[1], self._capacity, key.shape[3])
            self._own.append((key.new_empty(shape), value.new_empty(shape)))
        keys, values = self._own[layer]
        keys[:, :, self._length - 1] = key[:, :, 0]
        values[:, :, self._length - 1] = value[:, :, 0]
        keys, values = keys[:, :, : self._length], values[:, :, : self._length]
        if query.device.type != "cpu":
            return shared_decode_reference(
                query, keys, values, [(s, p.keys[layer], p.values[layer]) for s, p in self._parts()], scale
            )
        # The query heads that share a key head lie side by side as if they were tokens: each key is read once.
        rows, heads, _, dim = query.shape
        kv_heads = key.shape[1]
        folded = query.reshape(rows, kv_heads, heads // kv_heads, dim)
        own, own_lse = flash(folded, keys, values, 0.0, False, scale=scale)
        past = torch.empty_like(folded)
        past_lse = own_lse.new_empty(rows, kv_heads, heads // kv_heads)
        for span, prompt in self._parts():
            size = span.stop - span.start
            # All rows of one prompt become the tokens of one query over it.
            asked = folded[span].transpose(0, 1).reshape(1, kv_heads, -1, dim)
            out, lse = flash(asked, prompt.keys[layer], prompt.values[layer], 0.0, False, scale=scale)
            past[span] = out.reshape(kv_heads, size, -1, dim).transpose(0, 1)
            past_lse[span] = lse.reshape(kv_heads, size, -1).transpose(0, 1)
        return join(own, own_lse, past, past_lse)[0].reshape(rows, heads, 1, dim)

    def _parts(self) -> list[tuple[slice, PrefillPlan]]:
        return [(span, self._prompts[owner]) for owner, span in self._spans]


def _spans(owners: Sequence[int]) -> list[tuple[int, slice]]:
    spans: list[tuple[int, slice]] = []
    start = 0
    for index in range(1, len(owners) + 1):
        if index == len(owners) or owners[index] != owners[start]:
            spans.append((owners[start], slice(start, index)))
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
        return ids, logits.log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
    log_probs = (logits if sampling.temperature == 1.0 else logits / sampling.temperature).log_softmax(dim=-1)
    probs = log_probs.exp()
    if sampling.top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        probs = probs.scatter(1, order, ordered.masked_fill(beyond, 0.0))
    # Inverse of the distribution function: one random number a row and token, however many tokens there are. The sum of
    # 50,000 float32 terms is off by up to 1e-5, so the draw is scaled by the sum that came out.
    total = probs.cumsum(dim=-1)
    point = draws.to(total)[:, None] * total[:, -1:]
    ids = torch.searchsorted(total, point, right=True)[:, 0].clamp(max=total.shape[1] - 1)
    return ids, log_probs.gather(1, ids[:, None])[:, 0]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    rows: Sequence[Row],
    sampling: Sampling,
    ended: Callable[[list[int]], bool],
) -> None:
    """Write every row's answer. `rows` are in the order of their prompts; `ended` tells from a row's ids whether it stops."""
    backbone, head = model.base_model, model.get_output_embeddings()
    device = head.weight.device
    plans: list[PrefillPlan] = []
    hidden: list[Tensor] = []
    for prompt in prompts:
        plans.append(PrefillPlan())
        out = backbone(input_ids=torch.tensor([prompt], device=device), use_cache=False, plan=plans[-1])
        hidden.append(out.last_hidden_state[0, -1])
    active = list(rows)
    owners = [row.prompt for row in active]
    draws = torch.stack([row.draws for row in active]).to(device)
    lengths = torch.tensor([len(prompts[owner]) for owner in owners], device=device)
    plan = DecodePlan(plans, owners, sampling.max_new_tokens)
    last = torch.stack(hidden).index_select(0, torch.tensor(owners, device=device))
    for step in range(sampling.max_new_tokens):
        ids, log_probs = choose(head(last), draws[:, step], sampling)
        going = _take(active, ids.tolist(), log_probs.tolist(), ended)
        if not going:
            return
        if len(going) < len(active):
            active = [active[index] for index in going]
            kept = torch.tensor(going, device=device)
            draws, lengths, ids = draws.index_select(0, kept), lengths.index_select(0, kept), ids.index_select(0, kept)
            plan.keep(kept, [row.prompt for row in active])
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
