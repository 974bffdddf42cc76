"""Replay and teaching runs → trajectories with what became of each, and their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from swe_srl.errors import FormatError
from swe_srl.replay.replay import Replayed
from swe_srl.reporting.sources import REPLAYED, labels_of
from swe_srl.schema import Step, Trajectory, Usage
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
    accepted: tuple[Trajectory, ...]
    rejected: tuple[tuple[str, Trajectory], ...]
    """(reason, trajectory)."""
    num_wanted: int
    num_calls: int
    usage: Usage
    """Nothing, and no calls, while the run goes on."""


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
    """One entry for each directory."""
    runs = []
    for path, label in zip(paths, labels_of(paths), strict=True):
        accepted = tuple(_trajectories(path))
        rejected = tuple(_rejected(path / REJECTED)) if (path / REJECTED).is_file() else ()
        summary = _object(path / SUMMARY)
        try:
            wanted = int(summary.get("num_wanted", len(accepted) + len(rejected)))
            calls = sum(int(number) for number in summary.get("calls", {}).values())
            usage = Usage.model_validate(summary.get("usage", {}))
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(
                f"{path / SUMMARY}: not the summary that `swe-srl teach` writes: run it again with the same --out"
            ) from error
        model = str(_object(path / "teach.json").get("model", ""))
        runs.append(TeachRun(label, model, accepted, rejected, wanted, calls, usage))
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
    return [
        {
            "run": run.label,
            "model": run.model,
            "wanted": run.num_wanted,
            "accepted": len(run.accepted),
            "rejected": len(run.rejected),
            "calls": run.num_calls,
            "prompt_tokens": run.usage.prompt_tokens,
            "cached_tokens": run.usage.cached_tokens,
            "completion_tokens": run.usage.completion_tokens,
            "cost_usd": run.usage.cost_usd,
        }
        for run in runs
    ]


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
