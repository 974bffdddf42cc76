"""Queries, keys and values of a token tree → attention, in which a token sees its own node's past and its ancestors.

Every layer of a Hugging Face model calls `attend`, which hands over to the plan that the caller passed to the model as
`plan=`. Keys and values stand once in memory, whoever reads them; pieces of attention over disjoint keys are joined by
their log-sum-exps, and the flash kernel's backward is exact for each piece when it is given the joined output and
log-sum-exp, so no score matrix is ever kept (as in ring attention, arXiv 2310.01889).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

IMPLEMENTATION = "swe_srl"
"""Name under which `attend` is known to transformers."""

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001

SHORT = 256
"""Nodes of at most so many tokens go through the kernel side by side, padded to the longest."""


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
    if not isinstance(plan, TreePlan):  # it widens where autograd does not look, and so keeps less for the backward
        query, key, value = widened(query, key, value)
    out = (
        causal(query, key, value, scaling)
        if plan is None
        else plan.attend(module.layer_idx, query, key, value, scaling)
    )
    return out.to(dtype).transpose(1, 2), None


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype in which the flash kernel of their device is quick."""
    first = tensors[0]
    if first.dtype == torch.bfloat16 and first.device.type == "cpu" and not _has_fast_bfloat16():
        return tuple(tensor.float() for tensor in tensors)
    return tensors


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


class Sight(NamedTuple):
    """All of `queries` see all of `keys`, which lie before them on their path. Both are places in the row."""

    queries: slice
    keys: slice


class TreePlan:
    """Training: one row of nodes. A token sees its own node's earlier tokens and what `sights` grant it."""

    def __init__(self, nodes: Sequence[slice], sights: Sequence[Sight]) -> None:
        """`nodes`: the places of each node, which together are the row."""
        self.nodes = tuple(nodes)
        self.sights = tuple(sights)
        self.long, self.short = _by_length(self.nodes)
        self._block_mask: BlockMask | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Plan; the batch is one row."""
        del layer
        if query.device.type == "cpu":
            return blockwise(query, key, value, self, scale)
        if query.device.type == "cuda":
            return self._flex(query, key, value, scale)
        return dense(query, key, value, self, scale)

    def _flex(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        from swe_srl.policy.flex import block_mask, flex

        if self._block_mask is None:
            self._block_mask = block_mask(self, query.device)
        return flex(query, key, value, self._block_mask, scale)

    def mask(self, device: torch.device) -> Tensor:
        """(T, T) whether a query (first axis) sees a key."""
        seen = torch.zeros(self.nodes[-1].stop, self.nodes[-1].stop, dtype=torch.bool, device=device)
        for node in self.nodes:
            seen[node, node] = True
        seen.tril_()
        for sight in self.sights:
            seen[sight.queries, sight.keys] = True
        return seen


class Padded(NamedTuple):
    """Short nodes side by side."""

    places: Tensor
    """(nodes, longest) the place of each token; behind a node's end, its first place again."""
    real: Tensor
    """(nodes, longest) False behind a node's end. Padding stands after all real tokens, so no real query sees it."""

    def gather(self, *tensors: Tensor) -> list[Tensor]:
        """(1, heads, row, …) → (nodes, heads, longest, …)."""
        flat = self.places.flatten()
        # Token by token, as the model lays them out: whole rows of memory are copied.
        return [
            tensor[0]
            .transpose(0, 1)
            .index_select(0, flat)
            .view(*self.places.shape, *tensor.shape[1:2], *tensor.shape[3:])
            .transpose(1, 2)
            for tensor in tensors
        ]

    def scatter(self, whole: Tensor, part: Tensor) -> None:
        """Write the real tokens of `part`, (nodes, heads, longest, …), to their places in `whole`, (1, heads, row, …)."""
        whole[0].transpose(0, 1)[self.places[self.real]] = part.transpose(1, 2)[self.real]


def _by_length(nodes: Sequence[slice]) -> tuple[list[slice], list[Padded]]:
    """Long nodes, and the short ones in batches of like length."""
    long = [node for node in nodes if node.stop - node.start > SHORT]
    by_size: dict[int, list[slice]] = {}
    for node in nodes:
        if 0 < node.stop - node.start <= SHORT:
            by_size.setdefault((node.stop - node.start - 1).bit_length(), []).append(node)
    short = []
    for alike in by_size.values():
        longest = max(node.stop - node.start for node in alike)
        first = torch.tensor([node.start for node in alike])[:, None]
        offset = torch.arange(longest)[None]
        real = offset < torch.tensor([node.stop - node.start for node in alike])[:, None]
        short.append(Padded(torch.where(real, first + offset, first), real))
    return long, short


def dense(query: Tensor, key: Tensor, value: Tensor, plan: TreePlan, scale: float) -> Tensor:
    """Attention over a tree by one dense mask: the reference, on any device."""
    mask = plan.mask(query.device)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)


def blockwise(query: Tensor, key: Tensor, value: Tensor, plan: TreePlan, scale: float) -> Tensor:
    """As `dense`, node by node with the CPU's flash kernel."""
    out: Tensor = _Blockwise.apply(query, key, value, plan, scale)  # type: ignore[no-untyped-call]
    return out


def join(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint sets of keys, from the attention over each and its log-sum-exp (…, tokens)."""
    joined = torch.logaddexp(lse, other_lse)
    weight = (lse - joined).exp().unsqueeze(-1)
    other_weight = (other_lse - joined).exp().unsqueeze(-1)
    return (out * weight + other * other_weight).to(out.dtype), joined


class _Blockwise(torch.autograd.Function):
    """Each node by itself, then each sight joined to what its queries have seen so far; backward piece by piece."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: TreePlan, scale: float) -> Tensor:
        given = query, key, value
        query, key, value = _for_kernel(*given)
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32 if query.dtype != torch.float64 else query.dtype)
        for node in plan.long:
            out[:, :, node], lse[:, :, node] = flash(*_span(node, query, key, value), 0.0, True, scale=scale)
        for padded in plan.short:
            side_by_side, side_lse = flash(*padded.gather(query, key, value), 0.0, True, scale=scale)
            padded.scatter(out, side_by_side)
            padded.scatter(lse, side_lse)
        for queries, keys in plan.sights:
            piece, piece_lse = flash(query[:, :, queries], key[:, :, keys], value[:, :, keys], 0.0, False, scale=scale)
            out[:, :, queries], lse[:, :, queries] = join(out[:, :, queries], lse[:, :, queries], piece, piece_lse)
        ctx.save_for_backward(*given, out, lse)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        *given, out, lse = ctx.saved_tensors
        query, key, value = _for_kernel(*given)
        plan, scale = ctx.plan, ctx.scale
        grads = [torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)]
        for node in plan.long:
            pieces = flash_backward(*_span(node, grad, query, key, value, out, lse), 0.0, True, scale=scale)
            for whole, piece in zip(grads, pieces, strict=True):
                whole[:, :, node] = piece
        for padded in plan.short:
            masked = padded.gather(grad)[0] * padded.real[:, None, :, None]
            pieces = flash_backward(masked, *padded.gather(query, key, value, out, lse), 0.0, True, scale=scale)
            for whole, piece in zip(grads, pieces, strict=True):
                padded.scatter(whole, piece)
        for queries, keys in plan.sights:
            pieces = flash_backward(
                grad[:, :, queries], query[:, :, queries], key[:, :, keys], value[:, :, keys],
                out[:, :, queries], lse[:, :, queries], 0.0, False, scale=scale,
            )  # fmt: skip
            for whole, piece, places in zip(grads, pieces, (queries, keys, keys), strict=True):
                whole[:, :, places] += piece
        of_query, of_key, of_value = (_fold(whole, like) for whole, like in zip(grads, given, strict=True))
        return of_query, of_key, of_value, None, None


def _for_kernel(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """As the kernel takes them: a key head for each query head."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return widened(query, key, value)


def _span(node: slice, *tensors: Tensor) -> list[Tensor]:
    return [tensor[:, :, node] for tensor in tensors]


def _fold(grad: Tensor, like: Tensor) -> Tensor:
    """The gradient of what the kernel was given, as one of `like`: query heads that share a key head are summed."""
    heads = like.shape[1]
    if grad.shape[1] != heads:
        grad = grad.reshape(grad.shape[0], heads, -1, *grad.shape[2:]).sum(dim=2)
    return grad.to(like.dtype)


def over(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Inference: queries that see all keys → attention and its log-sum-exp (batch, heads, tokens). Keys may have fewer heads.

    `mask`, (batch, 1, 1 or tokens, keys), is added to the scores: minus infinity hides a key.
    """
    if query.device.type != "cpu":
        return _over_reference(query, key, value, scale, mask)
    # The query heads that share a key head lie side by side as if they were tokens: each key is read once.
    batch, heads, tokens, dim = query.shape
    folded = query.reshape(batch, key.shape[1], -1, dim)
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, heads // key.shape[1], 1)
    out, lse = flash(folded, key, value, 0.0, False, attn_mask=mask, scale=scale)
    return out.reshape(batch, heads, tokens, dim), lse.reshape(batch, heads, tokens)


def within(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """As `over`, each query seeing the keys up to its own."""
    groups = query.shape[1] // key.shape[1]
    if query.device.type == "cpu":
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        out, lse = flash(query, key, value, 0.0, True, scale=scale)
        return out, lse
    tokens = query.shape[2]
    later = query.new_full((tokens, tokens), float("-inf"), dtype=torch.float32).triu(1)
    return _over_reference(query, key, value, scale, later)


def _over_reference(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ value.float()).to(query.dtype), scores.logsumexp(-1)
