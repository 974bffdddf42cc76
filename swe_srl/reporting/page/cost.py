"""Material → tokens and money: a table, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from swe_srl.reporting.page.forests import Forest, Row, short
from swe_srl.reporting.page.material import Acts, Material
from swe_srl.reporting.page.numbers import NOTHING, table
from swe_srl.reporting.page.plots import scale_of
from swe_srl.reporting.teachers import TeachRun
from swe_srl.schema import Usage


class Spent(NamedTuple):
    """What one run has used."""

    label: str
    colour: str
    """Of the model that was measured; empty for a teacher."""
    what: str
    calls: int
    usage: Usage
    each: str
    """What one good result of it cost."""


def spent(material: Material) -> list[Spent]:
    """Every run that asked a model for whole episodes, teachers first."""
    return [*map(_of_teaching, material.teaching), *(_of_acts(act) for act in material.acts if act.predictions)]


def _of_teaching(run: TeachRun) -> Spent:
    accepted = len(run.accepted)
    what = f"teaching by {run.model}: {accepted} of {run.num_wanted} accepted"
    each = _each(run.usage, accepted, "an accepted trajectory")
    return Spent(run.label, "", what, run.num_calls, run.usage, each)


def _of_acts(act: Acts) -> Spent:
    usage, calls = Usage(), 0
    for items in act.predictions.values():
        for item in items:
            usage, calls = usage + item.usage, calls + item.num_turns
    resolved = sum(verdict.resolved for verdicts in act.verdicts.values() for verdict in verdicts)
    what = f"episodes on {len(act.predictions)} tasks"
    return Spent(act.label, act.label, what, calls, usage, _each(usage, resolved, "a resolved task"))


def _each(usage: Usage, number: int, words: str) -> str:
    return f"{usage.cost_usd / number:,.4f} {words}" if usage.cost_usd and number else NOTHING


def cost(rows: Sequence[Spent]) -> dict[str, Any] | None:
    """The table; None where no run asked a model for anything."""
    cells = []
    for row in rows:
        used = row.usage
        counts = (row.calls, used.prompt_tokens, used.cached_tokens, used.completion_tokens)
        cells.append([row.label, row.what, *(f"{number:,}" for number in counts), f"{used.cost_usd:,.4f}", row.each])
    head = ["run", "what", "calls", "tokens read", "of them cached", "tokens written", "US$", "US$ for each"]
    return table("Tokens and money", head, cells, words=("what",)) if rows else None


def cost_bars(rows: Sequence[Spent]) -> list[Forest]:
    """Money, where any was spent, and tokens."""
    measures = (
        ("US$", [row.usage.cost_usd for row in rows], "{:,.4f}"),
        ("Tokens read and written", [row.usage.prompt_tokens + row.usage.completion_tokens for row in rows], "{:,.0f}"),
    )
    found = []
    for title, values, form in measures:
        if any(values):
            scale = scale_of([0.0, *values])._replace(high=max(values))
            bars = [
                Row(row.label, row.colour, form.format(value), "", "", value, 0.0, value)
                for row, value in zip(rows, values, strict=True)
            ]
            found.append(Forest(title, "run", "", scale, short, tuple(bars)))
    return found
