"""What every algorithm promises."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.scoring import score
from swe_srl.training.data import Cursor
from swe_srl.training.objective import Group, Loss
from swe_srl.training.team import ALONE, Team


class Batch(NamedTuple):
    """What one update is made from."""

    groups: list[Group]
    weights: list[Tensor]
    """For each group, the weights of its answer tokens."""
    metrics: dict[str, float | int | dict[str, int]]
    """How it was come by."""
    num_sampled_tokens: int = 0
    """Tokens of the tree of all that was sampled for it, thrown away or not."""


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


def compared(
    groups: list[Group], reference: LocalPolicy | None, *, temperature: float, max_tokens: int, team: Team = ALONE
) -> list[Group]:
    """The groups with the reference's log-probabilities, where there is a reference; `max_tokens` in one pass."""
    if reference is None:
        return groups
    model = reference.model
    scores = team.spread(
        [group.prompt_ids for group in groups],
        lambda own: score(model, [groups[i] for i in own], temperature=temperature, max_tokens=max_tokens),
    )
    return [group._replace(reference_log_probs=rows) for group, rows in zip(groups, scores, strict=True)]
