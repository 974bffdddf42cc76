"""Replay and teaching runs → trajectories with what became of each, and their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from swe_srl.errors import FormatError
from swe_srl.replay.replay import Replayed
from swe_srl.reporting.sources import REPLAYED, labels_of
from swe_srl.schema import Step, Trajectory
from swe_srl.store import read_json, read_jsonl, read_records
from swe_srl.summaries import Cells

STEPS = "steps.jsonl"
TRAJECTORIES = "trajectories.jsonl"
REJECTED = "rejected.jsonl"
SUMMARY = "summary.json"
STATUSES = ("faithful", "drifted", "lost")


class ReplayRun(NamedTuple):
    """One directory of `swe-srl replay`."""

    label: str
    records: tuple[Replayed, ...]
    steps: dict[str, list[Step]]
    """By trajectory, in order."""
    recorded: dict[str, Trajectory]
    """As they were before the replay."""


class TeachRun(NamedTuple):
    """One directory of `swe-srl teach`."""

    label: str
    model: str
    summary: dict[str, Any]
    accepted: tuple[Trajectory, ...]
    rejected: tuple[tuple[str, Trajectory], ...]
    """(reason, trajectory)."""


def read_replays(paths: Sequence[Path]) -> list[ReplayRun]:
    """One entry for each directory."""
    runs = []
    for path, label in zip(paths, labels_of(paths), strict=True):
        steps: dict[str, list[Step]] = {}
        for step in read_records(path / STEPS, Step) if (path / STEPS).is_file() else ():
            steps.setdefault(step.trajectory_id, []).append(step)
        records = {item.trajectory_id: item for item in read_records(path / REPLAYED, Replayed)}
        recorded = {item.trajectory_id: item for item in _trajectories(path)}
        ordered = {name: sorted(found, key=lambda step: step.index) for name, found in steps.items()}
        runs.append(ReplayRun(label, tuple(records.values()), ordered, recorded))
    return runs


def read_teaching(paths: Sequence[Path]) -> list[TeachRun]:
    """One entry for each directory; the summary is empty while the run goes on."""
    runs = []
    for path, label in zip(paths, labels_of(paths), strict=True):
        settings = _object(path / "teach.json")
        rejected = tuple(_rejected(path / REJECTED)) if (path / REJECTED).is_file() else ()
        summary = _object(path / SUMMARY)
        runs.append(TeachRun(label, str(settings.get("model", "")), summary, tuple(_trajectories(path)), rejected))
    return runs


def replay_rows(runs: Sequence[ReplayRun]) -> list[Cells]:
    """What each replay came to."""
    return [
        {
            "run": run.label,
            "trajectories": len(run.records),
            "trusted": sum(not item.objection for item in run.records),
            "repaired": sum(bool(item.repairs) for item in run.records),
            "steps": sum(item.num_replayed for item in run.records),
            **{name: sum(item.statuses.get(name, 0) for item in run.records) for name in STATUSES},
        }
        for run in runs
    ]


def teaching_rows(runs: Sequence[TeachRun]) -> list[Cells]:
    """What each run of teaching came to, and what it cost."""
    rows: list[Cells] = []
    for run in runs:
        usage, calls = run.summary.get("usage") or {}, run.summary.get("calls") or {}
        rows.append(
            {
                "run": run.label,
                "model": run.model,
                "wanted": run.summary.get("num_wanted", len(run.accepted) + len(run.rejected)),
                "accepted": len(run.accepted),
                "rejected": len(run.rejected),
                "calls": sum(calls.values()),
                "prompt_tokens": usage.get("prompt_tokens", 0),
                "cached_tokens": usage.get("cached_tokens", 0),
                "completion_tokens": usage.get("completion_tokens", 0),
                "cost_usd": usage.get("cost_usd", 0.0),
            }
        )
    return rows


def _trajectories(path: Path) -> Iterator[Trajectory]:
    if (path / TRAJECTORIES).is_file():
        yield from read_records(path / TRAJECTORIES, Trajectory)


def _rejected(path: Path) -> Iterator[tuple[str, Trajectory]]:
    for number, row in read_jsonl(path):
        try:
            yield str(row["reason"]), Trajectory.model_validate(row["trajectory"])
        except (KeyError, ValidationError) as error:
            raise FormatError(
                f"{path}, line {number}: not a rejected trajectory, as `swe-srl teach` writes it: mend or remove that line"
            ) from error


def _object(path: Path) -> dict[str, Any]:
    value: Any = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected an object, found {type(value).__name__}")
    return value
