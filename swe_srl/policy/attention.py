"""Packed queries, keys and values → attention, where many answers share one prompt.

Every layer of a Hugging Face model calls `attend`, which hands over to the plan that the caller passed to the model as
`plan=`. A prompt's keys and values stand once in memory, whoever reads them; two pieces of attention over disjoint keys
are joined by their log-sum-exps, and the flash kernel's backward is exact for each piece when it is given the joined
output and log-sum-exp, so no score matrix is ever kept (as in ring attention, arXiv 2310.01889).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

IMPLEMENTATION = "swe_srl"
"""Name under which `attend` is known to transformers."""

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001


class Plan(Protocol):
    """Who attends to whom in one call of the model."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer: (batch, heads, tokens, head_dim) → the same shape; keys may have fewer heads."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    plan: Plan | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer. Without a plan, every row of the batch is one causal sequence."""
    assert attention_mask is None, "plans say who attends to whom; masks are not read"
    dtype = query.dtype
    if dtype == torch.bfloat16 and query.device.type == "cpu" and not _has_fast_bfloat16():
        query, key, value = query.float(), key.float(), value.float()
    out = (
        causal(query, key, value, scaling)
        if plan is None
        else plan.attend(module.layer_idx, query, key, value, scaling)
    )
    return out.to(dtype).transpose(1, 2), None


@cache
def _has_fast_bfloat16() -> bool:
    # The flash kernel needs the tile unit to be quick in bfloat16: without it, one layer of a prompt of 700 tokens and
    # 8 answers takes 70 ms forward and backward, in float32 31 ms.
    return bool(torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def register() -> None:
    """Make `attend` known to transformers; calling it again is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, attend)


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Plain causal attention."""
    return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)


class Shape(NamedTuple):
    """One prompt and the answers that hang from it, as they lie in a packed row: prompt, answer 1, answer 2, …"""

    prompt: int
    answers: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Tokens of prompt and answers together."""
        return self.prompt + sum(self.answers)


class PackedPlan:
    """Training: one row of packed shapes; an answer sees its prompt and itself."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._shapes = tuple(shapes)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; the batch is one row."""
        del layer
        outs, start = [], 0
        for shape in self._shapes:
            part = slice(start, start := start + shape.total)
            pieces = (query[:, :, part], key[:, :, part], value[:, :, part])
            if not shape.answers:
                outs.append(causal(*pieces, scale))
            elif query.device.type == "cpu":
                outs.append(shared_prompt(*pieces, shape, scale))
            else:
                outs.append(shared_prompt_reference(*pieces, shape, scale))
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)


def shared_prompt_reference(query: Tensor, key: Tensor, value: Tensor, shape: Shape, scale: float) -> Tensor:
    """Attention of one prompt and its answers, each answer's keys laid behind a copy of the prompt's. Any device."""
    prompt = slice(0, shape.prompt)
    outs = [causal(query[:, :, prompt], key[:, :, prompt], value[:, :, prompt], scale)]
    start = shape.prompt
    for length in shape.answers:
        own = slice(start, start := start + length)
        keys = torch.cat([key[:, :, prompt], key[:, :, own]], dim=2)
        values = torch.cat([value[:, :, prompt], value[:, :, own]], dim=2)
        mask = torch.ones(length, shape.prompt + length, dtype=torch.bool, device=query.device).tril(shape.prompt)
        outs.append(
            scaled_dot_product_attention(query[:, :, own], keys, values, attn_mask=mask, scale=scale, enable_gqa=True)
        )
    return torch.cat(outs, dim=2)


def join(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint sets of keys, from the attention over each and its log-sum-exp (…, tokens)."""
    joined = torch.logaddexp(lse, other_lse)
    weight = (lse - joined).exp().unsqueeze(-1)
    other_weight = (other_lse - joined).exp().unsqueeze(-1)
    return (out * weight + other * other_weight).to(out.dtype), joined


class _SharedPrompt(torch.autograd.Function):
    """Attention of one prompt and its answers by the CPU's flash kernel; exact, and without a copy of the prompt."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, shape: Shape, scale: float) -> Tensor:
        p, groups = shape.prompt, query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (key, value))
        out_prompt, lse_prompt = flash(query[:, :, :p], key[:, :, :p], value[:, :, :p], 0.0, True, scale=scale)
        out_past, lse_past = flash(query[:, :, p:], key[:, :, :p], value[:, :, :p], 0.0, False, scale=scale)
        own = [
            flash(query[:, :, a], key[:, :, a], value[:, :, a], 0.0, True, scale=scale) for a in _answer_slices(shape)
        ]
        out_answers, lse_answers = join(
            out_past, lse_past, torch.cat([out for out, _ in own], dim=2), torch.cat([lse for _, lse in own], dim=2)
        )
        ctx.save_for_backward(query, key, value, out_prompt, lse_prompt, out_answers, lse_answers)
        ctx.shape, ctx.scale, ctx.groups = shape, scale, groups
        return torch.cat([out_prompt, out_answers], dim=2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out_prompt, lse_prompt, out_answers, lse_answers = ctx.saved_tensors
        p, scale = ctx.shape.prompt, ctx.scale
        past = slice(0, p)
        to_prompt = flash_backward(
            grad[:, :, past],
            query[:, :, past],
            key[:, :, past],
            value[:, :, past],
            out_prompt,
            lse_prompt,
            0.0,
            True,
            scale=scale,
        )
        to_past = flash_backward(
            grad[:, :, p:],
            query[:, :, p:],
            key[:, :, past],
            value[:, :, past],
            out_answers,
            lse_answers,
            0.0,
            False,
            scale=scale,
        )
        grads: list[list[Tensor]] = [[to_prompt[0]], [to_prompt[1] + to_past[1]], [to_prompt[2] + to_past[2]]]
        for own in _answer_slices(ctx.shape):
            inside = slice(own.start - p, own.stop - p)
            to_own = flash_backward(
                grad[:, :, own], query[:, :, own], key[:, :, own], value[:, :, own],
                out_answers[:, :, inside], lse_answers[:, :, inside], 0.0, True, scale=scale,
            )  # fmt: skip
            grads[0].append(to_own[0] + to_past[0][:, :, inside])
            grads[1].append(to_own[1])
            grads[2].append(to_own[2])
        grad_query, grad_key, grad_value = (torch.cat(parts, dim=2) for parts in grads)
        return grad_query, _fold(grad_key, ctx.groups), _fold(grad_value, ctx.groups), None, None


def shared_prompt(query: Tensor, key: Tensor, value: Tensor, shape: Shape, scale: float) -> Tensor:
    """As `shared_prompt_reference`, by the CPU's flash kernel."""
    out: Tensor = _SharedPrompt.apply(query, key, value, shape, scale)  # type: ignore[no-untyped-call]
    return out


def _answer_slices(shape: Shape) -> list[slice]:
    slices, start = [], shape.prompt
    for length in shape.answers:
        slices.append(slice(start, start + length))
        start += length
    return slices


def _fold(grad: Tensor, groups: int) -> Tensor:
    """Sum the gradients of the query heads that share one key head."""
    return grad if groups == 1 else grad.reshape(grad.shape[0], -1, groups, *grad.shape[2:]).sum(dim=2)


def shared_decode_reference(
    query: Tensor, own_keys: Tensor, own_values: Tensor, parts: Sequence[tuple[slice, Tensor, Tensor]], scale: float
) -> Tensor:
    """One new token a row, the rows of each part over its prompt's keys and their own. Any device."""
    outs = []
    for span, keys, values in parts:
        rows = span.stop - span.start
        seen = torch.cat([keys.expand(rows, -1, -1, -1), own_keys[span]], dim=2)
        said = torch.cat([values.expand(rows, -1, -1, -1), own_values[span]], dim=2)
        outs.append(scaled_dot_product_attention(query[span], seen, said, scale=scale, enable_gqa=True))
    return torch.cat(outs)
