"""Training runs → one series of numbers for each measure, over updates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swe_srl.errors import FormatError
from swe_srl.reporting.sources import METRICS, labels_of
from swe_srl.store import read_json, read_jsonl
from swe_srl.summaries import Cells

ROUNDING = 1e-6
"""Below it a loss is zero: of fresh samples, whose advantages add up to nothing, rounding is all that is left."""


class TrainingRun(NamedTuple):
    """The updates of one run."""

    label: str
    algorithm: str
    """`sft`, `srl`, `rlvr`; empty where the directory does not say."""
    updates: tuple[dict[str, float], ...]
    """Every number of every update, by name; each has `update`."""

    def series(self, name: str) -> list[tuple[float, float]]:
        """(update, value) where the value is known."""
        return [(row["update"], row[name]) for row in self.updates if name in row]


def read_training(paths: Sequence[Path]) -> list[TrainingRun]:
    """One entry for each directory. Raises FormatError for a line that is no update."""
    return [
        TrainingRun(label, _algorithm(path), tuple(_updates(path / METRICS)))
        for path, label in zip(paths, labels_of(paths), strict=True)
    ]


def training_rows(runs: Sequence[TrainingRun]) -> list[Cells]:
    """What each run came to: its first and its last update."""
    rows: list[Cells] = []
    for run in runs:
        row: Cells = {"run": run.label, "algorithm": run.algorithm, "updates": len(run.updates)}
        for name in ("reward_mean", "loss", "entropy"):
            series = run.series(name)
            if series:
                row |= {f"{name}_first": series[0][1], f"{name}_last": series[-1][1]}
        row["answer_tokens"] = sum(value for _, value in run.series("num_answer_tokens"))
        row["seconds"] = sum(value for _, value in run.series("seconds"))
        rows.append(row)
    return rows


def _updates(path: Path) -> list[dict[str, float]]:
    """By update: where a resumed run wrote one again, the last is in force."""
    found: dict[float, dict[str, float]] = {}
    for number, row in read_jsonl(path):
        if not _is_number(row.get("update")):
            raise FormatError(f"{path}, line {number}: not an update of a training run: it has no number 'update'")
        collected = row.get("collected")
        flat = {**row, **(collected if isinstance(collected, dict) else {})}
        thrown = flat.get("groups_thrown")
        if isinstance(thrown, dict):
            flat["groups_thrown"] = sum(value for value in thrown.values() if _is_number(value))
        if _is_number(flat.get("collect_s")) and _is_number(flat.get("train_s")):
            flat["seconds"] = flat["collect_s"] + flat["train_s"]
        if _is_number(flat.get("loss")) and abs(flat["loss"]) < ROUNDING:
            flat["loss"] = 0.0
        found[row["update"]] = {name: float(value) for name, value in flat.items() if _is_number(value)}
    return [found[update] for update in sorted(found)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _algorithm(path: Path) -> str:
    """As the settings of the run say."""
    if not (path / "train.json").is_file():
        return ""
    settings: Any = read_json(path / "train.json")
    algorithm = settings.get("algorithm") if isinstance(settings, dict) else None
    return str(algorithm.get("type", "")) if isinstance(algorithm, dict) else ""
