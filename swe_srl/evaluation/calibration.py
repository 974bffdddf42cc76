"""Rewards of the rollouts of many steps → how often each reward orders two rollouts of a step as a measure does: their effect, or the tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from swe_srl.schema import Mean, Record
from swe_srl.statistics import bootstrap_mean

EFFECT = "effect"
"""A measure: what an action did (replay/effect.py)."""
TESTS = "tests"
"""A measure: what the tests say after it and the rest of the expert's (replay/consequence.py)."""

_EQUAL = 1e-9
"""Rewards no further apart are tied."""


class StepRewards(Record):
    """Every reward of every well-formed rollout at one step."""

    step_id: str
    task_id: str
    tool: str
    """The expert's."""
    verb: str = ""
    """The program that its shell command, or the command that its editor's call, begins with."""
    values: dict[str, tuple[float, ...]]
    """Name of a reward or a measure → its values, in the order of the rollouts; at least one measure is among them."""
    num_malformed: int = 0
    """Rollouts without an action. All rewards say the same of them, so they are in no pair."""


class Pairs(NamedTuple):
    """How one reward orders pairs of rollouts of one step that a measure tells apart."""

    reward: str
    num_steps: int
    """Steps with at least one such pair."""
    num_same: int
    """Pairs that it orders as the measure does."""
    num_tied: int
    """Pairs to which it gives the same value."""
    num_reversed: int
    num_without_order: int
    """Pairs left out, since the measure does not tell them apart."""
    tau: Mean
    """(same - reversed) / (same + tied + reversed), as Kendall's, with its 95 % bootstrap interval over tasks: 1 is the measure's order, 0 no order at all."""


def agreement(rows: Sequence[StepRewards], reward: str, measure: str = EFFECT) -> Pairs:
    """How `reward` orders the pairs of `rows`, beside `measure`."""
    signs: list[int] = []
    tasks: list[str] = []
    steps: set[str] = set()
    without = 0
    for row in rows:
        for ours, theirs in itertools.combinations(zip(row.values[measure], row.values[reward], strict=True), 2):
            order = _sign(ours[0] - theirs[0])
            if order == 0:
                without += 1
                continue
            signs.append(order * _sign(ours[1] - theirs[1]))
            tasks.append(row.task_id)
            steps.add(row.step_id)
    tau = bootstrap_mean([float(sign) for sign in signs], groups=tasks)
    return Pairs(reward, len(steps), signs.count(1), signs.count(0), signs.count(-1), without, tau)


def agreements(rows: Sequence[StepRewards], measure: str = EFFECT) -> Iterator[tuple[str, Pairs]]:
    """(which steps, how a reward orders them): all steps with that measure, then each tool of the expert's, then each of its verbs."""
    rows = [row for row in rows if measure in row.values]
    for words, chosen in _slices(rows):
        for reward in _names(chosen, measure):
            yield words, agreement(chosen, reward, measure)


def _slices(rows: Sequence[StepRewards]) -> Iterator[tuple[str, list[StepRewards]]]:
    if rows:
        yield "all", list(rows)
    for tool in sorted({row.tool for row in rows}):
        of_tool = [row for row in rows if row.tool == tool]
        yield tool, of_tool
        for verb in sorted({row.verb for row in of_tool} - {""}):
            yield f"{tool}: {verb}", [row for row in of_tool if row.verb == verb]


def _names(rows: Iterable[StepRewards], measure: str) -> list[str]:
    """What every row has beside the measure: all rewards, and beside the tests the effect."""
    common = set.intersection(*(set(row.values) for row in rows))
    return sorted(common - {measure, TESTS})


def _sign(difference: float) -> int:
    return 0 if abs(difference) <= _EQUAL else (1 if difference > 0 else -1)
