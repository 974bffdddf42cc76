"""What every algorithm promises."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from swe_srl.training.data import Cursor
from swe_srl.training.objective import Group, Loss


class Batch(NamedTuple):
    """What one update is made from."""

    groups: list[Group]
    weights: list[Tensor]
    """For each group, the weights of its answer tokens."""
    metrics: dict[str, float | int | dict[str, int]]
    """How it was come by."""


class Algorithm(Protocol):
    """One way to learn from expert steps."""

    temperature: float
    """At which log-probabilities are taken."""

    def collect(self, cursor: Cursor, update: int) -> Batch:
        """The next batch; moves `cursor`. Depends on seed, weights, cursor, update and `state` alone."""

    def loss(self, log_probs: Tensor, groups: list[Group], weights: Tensor) -> Loss:
        """Loss of some of the batch's groups from the (N,) log-probabilities of their answer tokens."""

    def state(self) -> list[Group]:
        """Groups kept for the next update."""

    def restore(self, state: list[Group]) -> None:
        """Take up the groups of an earlier run."""
