"""Report + Material → the tables and plots of the page, ready to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from swe_srl.reporting.page.material import Material
from swe_srl.reporting.page.plots import Scale, charts, scale_of, symmetric
from swe_srl.reporting.summarise import STATUSES
from swe_srl.reporting.teachers import STATUSES as FIDELITY
from swe_srl.reporting.teachers import replay_rows
from swe_srl.reporting.training import training_rows
from swe_srl.schema import Mean, Proportion
from swe_srl.statistics import wilson
from swe_srl.summaries import Report, RunSummary

NOTHING = "–"

TITLES = {
    "resolved": "Resolved tasks",
    "step_similarity": "Agreement with the teacher's steps",
    "step_well_formed": "Well-formed samples at the teacher's steps",
    "well_formed_turns": "Well-formed turns in episodes",
    "turns": "Turns per task",
}
MAX_REASONS = 15


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
        interval, note = f"[{value.low:.3f}, {value.high:.3f}]", f"n = {value.n}"
        return Row(run.model, run.model, f"{value.value:.3f}", interval, note, value.value, value.low, value.high)
    return _share(run.model, run.model, value)


def _share(label: str, colour: str, share: Proportion) -> Row:
    interval = f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"
    return Row(
        label, colour, f"{100 * share.value:.1f} %", interval, f"{share.k} of {share.n}", share.value, share.low, share.high
    )  # fmt: skip


def differences(report: Report) -> list[Forest]:
    """The paired differences, measure by measure, around zero."""
    found = []
    for measure in dict.fromkeys(str(row["measure"]) for row in report.paired):
        rows = []
        for pair in report.paired:
            if pair["measure"] == measure:
                value, low, high = (float(pair[name]) for name in ("value", "low", "high"))
                note = f"n = {float(pair['n']):.0f}"
                if "p_mcnemar" in pair:
                    note += f", p = {float(pair['p_mcnemar']):.3f}"
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


def counted(report: Report) -> dict[str, Any] | None:
    """What became of every task, as numbers that open the list and as a bar; None where nothing was predicted."""
    names = [*STATUSES, "not_graded"]
    runs = [(number, run) for number, run in enumerate(report.runs) if run.counts.get("submitted")]
    if not runs:
        return None
    shown = [name for name in names if any(run.counts.get(name) for _, run in runs)]
    return {
        "title": "What was counted",
        "names": [{"css": f"st-{name}", "words": name.replace("_", " ")} for name in shown],
        "columns": ["tasks", "submitted", "graded", *(name.replace("_", " ") for name in names)],
        "rows": [
            {
                "label": run.model,
                "cells": [
                    *(_cell(run.counts.get(name, 0)) for name in ("tasks", "submitted", "graded")),
                    *(_cell(run.counts.get(name, 0), name, f"#run={number}&status={name}") for name in names),
                ],
                "parts": _parts([(name, run.counts.get(name, 0)) for name in names]),
            }
            for number, run in runs
        ],
    }


def fidelity(material: Material) -> dict[str, Any] | None:
    """How the replayed steps compare with what the teachers saw; None where nothing was replayed."""
    rows = replay_rows(material.replays)
    if not rows:
        return None
    columns = ("trajectories", "trusted", "repaired", "steps", *FIDELITY)
    return {
        "title": "Fidelity of replayed steps",
        "names": [{"css": f"st-{name}", "words": f"{name} steps"} for name in FIDELITY],
        "columns": columns,
        "rows": [
            {
                "label": row["run"],
                "cells": [_cell(int(row[name])) for name in columns],
                "parts": _parts([(name, int(row[name])) for name in FIDELITY]),
            }
            for row in rows
        ],
    }


def _cell(number: int, name: str = "", href: str = "") -> dict[str, str]:
    return {"text": f"{number:,}", "words": name.replace("_", " "), "href": href if number else ""}


def _parts(counts: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    total, start, parts = sum(number for _, number in counts), 0.0, []
    for name, number in counts:
        if number:
            width = 100 * number / total
            words = f"{name.replace('_', ' ')}: {number} of {total}"
            parts.append({"css": f"st-{name}", "start": round(start, 3), "width": round(width, 3), "words": words})
            start += width
    return parts


def reasons(material: Material) -> dict[str, Any] | None:
    """Why steps are not faithful, and why trajectories give none; the most frequent first."""
    found: dict[tuple[str, str, str], int] = {}
    for replay in material.replays:
        for record in replay.records:
            for why, number in record.reasons.items():
                found[why, "step", replay.label] = found.get((why, "step", replay.label), 0) + number
            if record.objection:
                key = (record.objection, "trajectory", replay.label)
                found[key] = found.get(key, 0) + 1
    for run in material.teaching:
        for why, _ in run.rejected:
            found[why, "trajectory", run.label] = found.get((why, "trajectory", run.label), 0) + 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:MAX_REASONS]
    rows = [[why, kind, label, f"{number:,}"] for (why, kind, label), number in ordered]
    head = ["why", "of a", "run", "number"]
    return table("Why not", head, rows, words=("of a", "run")) if rows else None


def training(material: Material) -> list[dict[str, Any]]:
    """Charts and a table for each algorithm."""
    groups = []
    for algorithm in dict.fromkeys(run.algorithm for run in material.training):
        runs = [run for run in material.training if run.algorithm == algorithm]
        rows = []
        for row in training_rows(runs):
            cells = [str(row["run"]), f"{row['updates']}"]
            for name in ("reward_mean", "loss", "entropy"):
                known = f"{name}_first" in row
                cells.append(
                    f"{float(row[f'{name}_first']):.3g} → {float(row[f'{name}_last']):.3g}" if known else NOTHING
                )
            rows.append([*cells, f"{row['answer_tokens']:,.0f}", f"{float(row['seconds']) / 60:.1f}"])
        head = ["run", "updates", "reward", "loss", "entropy", "answer tokens", "minutes"]
        groups.append(
            {
                "algorithm": algorithm,
                "labels": [run.label for run in runs],
                "charts": charts(runs),
                "table": table("First → last update", head, rows),
            }
        )
    return groups


def other_numbers(report: Report) -> dict[str, Any] | None:
    """What has no interval."""
    rows = [
        [run.model, f"{run.mean_turns:.1f}", f"{run.mean_completion_tokens:,.0f}"]
        for run in report.runs
        if run.mean_turns
    ]
    head = ["run", "turns per task", "tokens written per task"]
    return table("Lengths", head, rows) if rows else None


def table(title: str, head: list[str], rows: Iterable[list[str]], words: tuple[str, ...] = ()) -> dict[str, Any]:
    """A plain table; `words` are the columns that are not numbers."""
    return {"title": title, "head": head, "rows": list(rows), "words": words}
