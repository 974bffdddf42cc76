"""Report + Material → values with their intervals, each group on one scale, ready to be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from swe_srl.reporting.page.material import Material
from swe_srl.reporting.page.plots import Scale, scale_of, symmetric
from swe_srl.schema import Mean, Proportion
from swe_srl.statistics import wilson
from swe_srl.summaries import Report, RunSummary

TITLES = {
    "resolved": "Resolved tasks",
    "step_similarity": "Agreement with the teacher's steps",
    "step_constant": "The same agreement of one action at every step",
    "step_exact": "The teacher's very action",
    "step_well_formed": "Well-formed samples at the teacher's steps",
    "well_formed_turns": "Well-formed turns in episodes",
    "turns": "Turns per task",
    "applied": "Patches that applied",
    "empty": "Empty patches",
    "tampered": "Patches that tampered",
    "infra": "Failures of the apparatus",
}


class Row(NamedTuple):
    """A value with its interval."""

    label: str
    colour: str
    """The run whose colour it has; empty for none."""
    text: str
    interval: str
    note: str
    value: float
    low: float
    high: float


class Forest(NamedTuple):
    """Values with their intervals on one scale."""

    title: str
    head: str
    measure: str
    scale: Scale
    tick: Callable[[float], str]
    rows: tuple[Row, ...]


def percent(value: float) -> str:
    """A share as per cent, without a needless decimal."""
    return f"{100 * value:.4g} %"


def short(value: float) -> str:
    """A number as a reader wants it on an axis."""
    if value != 0 and abs(value) < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def signed(value: float) -> str:
    """A difference on an axis."""
    return f"{value:+.3g}" if value else "0"


def outcomes(report: Report) -> list[Forest]:
    """Every share and mean that the report gives an interval, measure by measure."""
    found = []
    for name in RunSummary.model_fields:
        rows = [_row(run, getattr(run, name)) for run in report.runs if _is_known(run, name)]
        if not rows:
            continue
        is_share = all(row.text.endswith("%") for row in rows)
        scale = scale_of([0.0, *(row.high for row in rows), *(row.low for row in rows)], with_zero=True)
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        found.append(
            Forest(title, "run", "share" if is_share else "mean", scale, percent if is_share else short, tuple(rows))
        )
    return found


def _is_known(run: RunSummary, name: str) -> bool:
    value = getattr(run, name)
    return isinstance(value, Mean) or (isinstance(value, Proportion) and value.n > 0)


def _row(run: RunSummary, value: Mean | Proportion) -> Row:
    if isinstance(value, Mean):
        return _mean(run.model, run.model, value)
    return _share(run.model, run.model, value)


def _mean(label: str, colour: str, mean: Mean) -> Row:
    interval = f"[{mean.low:.3f}, {mean.high:.3f}]"
    return Row(label, colour, f"{mean.value:.3f}", interval, f"n = {mean.n}", mean.value, mean.low, mean.high)


def _share(label: str, colour: str, share: Proportion) -> Row:
    interval = f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"
    return Row(
        label, colour, f"{100 * share.value:.1f} %", interval, f"{share.k} of {share.n}", share.value, share.low, share.high
    )  # fmt: skip


def attempts(report: Report) -> list[Forest]:
    """pass@k for k = 1, 2, 4 … and the largest, and best of n; nothing where each task was tried once."""
    found: dict[str, list[Row]] = {}
    for run in report.runs:
        for k, mean in run.pass_at.items():
            if k.bit_count() == 1 or k == max(run.pass_at):
                found.setdefault(f"pass@{k}", []).append(_mean(run.model, run.model, mean))
        for name, share in run.best_of.items():
            title = f"Best of {run.counts.get('attempts', 0)} by {name}"
            found.setdefault(title, []).append(_share(run.model, run.model, share))
    scale = scale_of([0.0, *(row.high for rows in found.values() for row in rows)], with_zero=True)
    return [Forest(title, "run", "resolved", scale, percent, tuple(rows)) for title, rows in found.items()]


def tools(report: Report) -> list[Forest]:
    """Agreement with the teacher on the steps of each of its tools; nothing where it used one."""
    found: dict[str, list[Row]] = {}
    for run in report.runs:
        for tool in run.tools:
            found.setdefault(tool.tool, []).append(_mean(run.model, run.model, tool.similarity))
    scale = scale_of(
        [0.0, *(bound for rows in found.values() for row in rows for bound in (row.low, row.high))], with_zero=True
    )
    return [
        Forest(tool, "run", "similarity", scale, short, tuple(rows)) for tool, rows in found.items() if len(found) > 1
    ]


def differences(report: Report) -> list[Forest]:
    """The paired differences, measure by measure, around zero."""
    found = []
    for measure in dict.fromkeys(str(row["measure"]) for row in report.paired):
        rows = []
        for pair in report.paired:
            if pair["measure"] == measure:
                value, low, high = (float(pair[name]) for name in ("value", "low", "high"))
                note = f"n = {float(pair['n']):.0f}"
                note += "".join(
                    f", p = {float(pair[name]):.3f}" for name in ("p_mcnemar", "p_sign_flip") if name in pair
                )
                label = f"{pair['first']} → {pair['second']}"
                rows.append(Row(label, "", f"{value:+.3f}", f"[{low:+.3f}, {high:+.3f}]", note, value, low, high))
        scale = symmetric([bound for row in rows for bound in (row.low, row.high)])
        title = TITLES.get(measure, measure.replace("_", " ").capitalize())
        found.append(Forest(title, "first → second", "difference", scale, signed, tuple(rows)))
    return found


def projects(material: Material) -> list[Forest]:
    """The resolve rate within each project, where there are several."""
    counts: dict[str, dict[str, list[bool]]] = {}
    for act in material.acts:
        for task_id, verdicts in act.verdicts.items():
            graded = [verdict.resolved for verdict in verdicts if verdict.status != "infra_failure"]
            if graded:
                by_run = counts.setdefault(material.project(task_id) or "other", {})
                by_run.setdefault(act.label, []).extend(graded)
    if len(counts) < 2:
        return []
    found = {
        project: [_share(label, label, wilson(sum(resolved), len(resolved))) for label, resolved in by_run.items()]
        for project, by_run in sorted(counts.items())
    }
    scale = scale_of([0.0, *(row.high for rows in found.values() for row in rows)], with_zero=True)
    return [Forest(project, "run", "resolved", scale, percent, tuple(rows)) for project, rows in found.items()]
