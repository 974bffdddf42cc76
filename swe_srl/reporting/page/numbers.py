"""Report + Material → the tables of the page, ready to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from swe_srl.reporting.page.material import Material
from swe_srl.reporting.page.plots import charts
from swe_srl.reporting.render import SPREAD, spread_rows
from swe_srl.reporting.summarise import STATUSES
from swe_srl.reporting.teachers import STATUSES as FIDELITY
from swe_srl.reporting.teachers import replay_rows
from swe_srl.reporting.training import training_rows
from swe_srl.summaries import Report

NOTHING = "–"

MAX_REASONS = 15


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


def spreads(report: Report) -> dict[str, Any] | None:
    """How turns, tokens and seconds are spread; None where nobody was let loose."""
    rows = spread_rows(report)
    return table("Lengths", ["run", "of what", "n", *SPREAD], rows, words=("of what",)) if rows else None


def table(title: str, head: list[str], rows: Iterable[list[str]], words: tuple[str, ...] = ()) -> dict[str, Any]:
    """A plain table; `words` are the columns that are not numbers."""
    return {"title": title, "head": head, "rows": list(rows), "words": words}
