"""Attention over a token tree by FlexAttention, for CUDA: a tree's plan → a block mask.

The block mask is made from the plan's nodes and sights, so nothing grows with the square of the row's length but a table
of blocks (one entry for 128 x 128 scores) and one of nodes. In torch 2.13 the kernel has no backward on CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

if TYPE_CHECKING:
    from swe_srl.policy.attention import TreePlan

BLOCK = 128
"""Queries and keys of one block: the kernel's own size."""


def flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """As `attention.dense`, with the mask that `block_mask` made."""
    return cast("Tensor", _compiled()(query, key, value, block_mask=mask, scale=scale, enable_gqa=True))


@cache
def _compiled() -> Callable[..., object]:
    return torch.compile(flex_attention, dynamic=True)


def block_mask(plan: TreePlan, device: torch.device) -> BlockMask:
    """Which blocks of scores a tree needs, and which of them wholly."""
    length = plan.nodes[-1].stop
    touched, whole = blocks(plan)
    partial_count, partial = _ordered(touched & ~whole, device)
    whole_count, whole_order = _ordered(whole, device)
    return BlockMask.from_kv_blocks(
        partial_count, partial, whole_count, whole_order,
        BLOCK_SIZE=BLOCK, mask_mod=visible(plan, device), seq_lengths=(length, length),
    )  # fmt: skip


def visible(plan: TreePlan, device: torch.device) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule of the tree for one score: batch, head, query, key → whether the query sees the key."""
    nodes = [node for node in plan.nodes if node.stop > node.start]
    lengths = torch.tensor([node.stop - node.start for node in nodes])
    of_token = torch.arange(len(nodes)).repeat_interleave(lengths)
    starts = torch.tensor([node.start for node in nodes])
    # Sights are of whole nodes, and of beginnings of nodes: how far each node sees into each other one.
    reach = torch.zeros(len(nodes), len(nodes), dtype=torch.int32)
    for queries, keys in plan.sights:
        first, last = of_token[queries.start], of_token[queries.stop - 1]
        reach[first : last + 1, of_token[keys.start]] = keys.stop - keys.start
    node, start, depth = (table.to(device) for table in (of_token, starts[of_token], reach))

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (node[query] == node[key]) & (key <= query)
        return own | (key - start[key] < depth[node[query], node[key]])

    return sees


class Rectangle(NamedTuple):
    """Scores of consecutive queries and keys; of a causal one, those on and below the diagonal."""

    queries: slice
    keys: slice
    causal: bool


def blocks(plan: TreePlan) -> tuple[Tensor, Tensor]:
    """(blocks, blocks) whether any score of a block is needed, and whether one node or sight needs all of it."""
    num_blocks = -(-plan.nodes[-1].stop // BLOCK)
    touched = torch.zeros(num_blocks, num_blocks, dtype=torch.bool)
    whole = torch.zeros_like(touched)
    for queries, keys, causal in _rectangles(plan):
        outer = tuple(slice(part.start // BLOCK, -(-part.stop // BLOCK)) for part in (queries, keys))
        inner = tuple(slice(-(-part.start // BLOCK), part.stop // BLOCK) for part in (queries, keys))
        if causal:
            touched[outer] |= torch.ones_like(touched[outer]).tril()
            whole[inner] |= torch.ones_like(whole[inner]).tril(-1)
        else:
            touched[outer] = True
            whole[inner] = True
    return touched, whole


def _rectangles(plan: TreePlan) -> Iterator[Rectangle]:
    for node in plan.nodes:
        if node.stop > node.start:
            yield Rectangle(node, node, causal=True)
    for queries, keys in plan.sights:
        yield Rectangle(queries, keys, causal=False)


def _ordered(table: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each row, (1, 1, rows) how many blocks are marked, and (1, 1, rows, blocks) their numbers, marked ones first."""
    counts = table.sum(-1).to(torch.int32)
    order = (~table).to(torch.int8).argsort(dim=-1, stable=True).to(torch.int32)
    return counts[None, None].to(device), order[None, None].to(device)
