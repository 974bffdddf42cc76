"""Token sequences → one tree, in which each shared beginning stands once.

The steps of a trajectory share its history, the answers to a step share its prompt: written as plain sequences the same
tokens go through the model again and again, in a tree once.

    system+issue ── action ── observation ── action ── …     a context: nodes that prompts run along
          └ answers      └ answers      └ answers            the leaves: one node for each answer

`Forest` holds the contexts and grows with each prompt; the sampler keeps one, with keys and values. `TokenTree` adds the
leaves and is what training pushes through the model. `TokenTree.unfold` gives the plain sequences back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from swe_srl.policy.attention import Sight, TreePlan

MIN_SHARED = 32
"""A sequence branches off where it stops being like another; fewer shared tokens than this are written again, since
each branching is one more piece of attention."""


class Answers(Protocol):
    """One prompt and what was answered to it."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Ids of the prompt."""

    @property
    def completions(self) -> tuple[tuple[int, ...], ...]:
        """Ids of each answer; an empty one adds nothing."""


class End(NamedTuple):
    """Where a prompt ends: in `node`, when `depth` tokens have been read from the root."""

    node: int
    depth: int


class Growth(NamedTuple):
    """Tokens that a prompt added: those of `node` from `start` to `stop`, counted from the root."""

    node: int
    start: int
    stop: int


@dataclass
class Node:
    """A run of tokens behind `depth` tokens of its parent's path; parent -1 is none."""

    parent: int
    depth: int
    ids: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Tokens from the root to its last."""
        return self.depth + len(self.ids)


class Forest:
    """Contexts that share their beginnings. A prompt that goes on where a node ends makes it longer; else it branches off."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._children: dict[int, list[int]] = {-1: []}

    def add(self, ids: Sequence[int]) -> tuple[End, Growth | None]:
        """Where the prompt `ids` ends now, and what had to be added for it; None when all of it was there."""
        node, depth = self._find(ids)
        if depth == len(ids):
            return End(node, depth), None
        if node < 0 or depth < self.nodes[node].end:
            node = self._branch(node, depth)
        self.nodes[node].ids.extend(ids[depth:])
        return End(node, len(ids)), Growth(node, depth, len(ids))

    def segments(self, node: int, depth: int) -> list[tuple[int, int]]:
        """(node, tokens of it) that stand on the path to `depth` in `node`, the nearest first."""
        found = []
        while node >= 0:
            here = self.nodes[node]
            if depth > here.depth:
                found.append((node, depth - here.depth))
            node, depth = here.parent, here.depth
        return found

    def path(self, end: End) -> list[int]:
        """Ids from the root to `end`."""
        ids: list[int] = []
        for node, count in reversed(self.segments(*end)):
            ids += self.nodes[node].ids[:count]
        return ids

    def _find(self, ids: Sequence[int]) -> tuple[int, int]:
        """The longest known beginning of `ids`: a node and a depth in it."""
        node, depth = -1, 0
        while True:
            reach, nearest = max(
                (
                    (self._reach(child, ids), -child)
                    for child in self._children[node]
                    if self.nodes[child].depth <= depth
                ),
                default=(0, 0),
            )
            if reach < min(depth + MIN_SHARED, len(ids)) or reach <= depth:
                return node, depth
            node, depth = -nearest, reach

    def _reach(self, child: int, ids: Sequence[int]) -> int:
        """How far `ids`, known to be like the path before `child`, is like the path through it."""
        node = self.nodes[child]
        return node.depth + num_common(node.ids, ids[node.depth :])

    def _branch(self, parent: int, depth: int) -> int:
        self.nodes.append(Node(parent, depth))
        child = len(self.nodes) - 1
        self._children[parent].append(child)
        self._children[child] = []
        return child


def num_common(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens at the beginning in which both are alike."""
    limit, count, stride = min(len(left), len(right)), 0, 64
    while count < limit and list(left[count : count + stride]) == list(right[count : count + stride]):
        count += stride
    count = min(count, limit)
    while count < limit and left[count] == right[count]:
        count += 1
    return count


class TokenTree:
    """Groups of answers on a forest of contexts, laid into one row: the contexts' nodes, then each group's answers."""

    def __init__(self, groups: Sequence[Answers]) -> None:
        self._forest = Forest()
        self._ends = [self._forest.add(group.prompt_ids)[0] for group in groups]
        self._completions = [group.completions for group in groups]
        self._starts: list[int] = []
        start = 0
        for node in self._forest.nodes:
            self._starts.append(start)
            start += len(node.ids)
        self._num_context_tokens = start

    @property
    def num_tokens(self) -> int:
        """Tokens of the row."""
        return self._num_context_tokens + sum(len(ids) for group in self._completions for ids in group)

    def row(self, device: torch.device | str = "cpu") -> TreeRow:
        """What the model gets, and where its answers' tokens are predicted."""
        ids: list[int] = []
        positions: list[int] = []
        for node in self._forest.nodes:
            ids += node.ids
            positions += range(node.depth, node.end)
        spans = [
            slice(start, start + len(node.ids)) for start, node in zip(self._starts, self._forest.nodes, strict=True)
        ]
        sights = [
            sight
            for span, node in zip(spans, self._forest.nodes, strict=True)
            for sight in self._sights(span, node.parent, node.depth)
        ]
        sources: list[int] = []
        targets: list[int] = []
        for end, completions in zip(self._ends, self._completions, strict=True):
            first = len(ids)
            for completion in filter(None, completions):
                start = len(ids)
                sources += [self._starts[end.node] + end.depth - self._forest.nodes[end.node].depth - 1]
                sources += range(start, start + len(completion) - 1)
                targets += completion
                ids += completion
                positions += range(end.depth, end.depth + len(completion))
                spans.append(slice(start, len(ids)))
            if len(ids) > first:
                sights += self._sights(slice(first, len(ids)), end.node, end.depth)

        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return TreeRow(
            tensor(ids)[None], tensor(positions)[None], TreePlan(spans, sights), tensor(sources), tensor(targets)
        )

    def unfold(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The plain sequences: (prompt, answer) for each answer, in order of group and answer."""
        return [
            (tuple(self._forest.path(end)), completion)
            for end, completions in zip(self._ends, self._completions, strict=True)
            for completion in completions
        ]

    def _sights(self, queries: slice, node: int, depth: int) -> Iterator[Sight]:
        for seen, count in self._forest.segments(node, depth):
            yield Sight(queries, slice(self._starts[seen], self._starts[seen] + count))


class TreeRow(NamedTuple):
    """A tree as one call of the model takes it."""

    input_ids: Tensor
    """(1, T) ids."""
    position_ids: Tensor
    """(1, T) tokens between each token and its root."""
    plan: TreePlan
    sources: Tensor
    """(N,) the place in the row whose hidden state predicts each answer token, in order of group, answer, token."""
    targets: Tensor
    """(N,) ids of the answer tokens."""


def num_plain_tokens(groups: Sequence[Answers]) -> int:
    """Tokens that `groups` take as plain sequences: each prompt once for each of its answers."""
    return sum(len(group.prompt_ids) + len(ids) for group in groups for ids in group.completions)


def micro_batches(groups: Sequence[Answers], max_tokens: int) -> Iterator[list[int]]:
    """Indices of `groups` in runs whose trees have at most `max_tokens` tokens; a group that is longer goes alone.

    Prompts that share beginnings stand side by side, longer runs of them split where the budget ends.
    """
    batch: list[int] = []
    forest, size = Forest(), 0
    for index in sorted(range(len(groups)), key=lambda i: groups[i].prompt_ids):
        group = groups[index]
        answers = sum(len(ids) for ids in group.completions)
        growth = forest.add(group.prompt_ids)[1]
        size += answers + (growth.stop - growth.start if growth else 0)
        if batch and size > max_tokens:
            yield batch
            batch, forest = [], Forest()
            forest.add(group.prompt_ids)
            size = answers + len(group.prompt_ids)
        batch.append(index)
    if batch:
        yield batch
