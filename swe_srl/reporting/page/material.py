"""Everything that runs wrote of a task → Material: found again by the task's id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from swe_srl.replay.replay import Replayed
from swe_srl.reporting.collect import Collected
from swe_srl.reporting.teachers import ReplayRun, TeachRun
from swe_srl.reporting.training import TrainingRun
from swe_srl.schema import Prediction, StepAgreement, Task, Trajectory, Verdict
from swe_srl.store import read_records

EPISODES = "episodes.jsonl"

_INSTANCE = re.compile(r"(?P<owner>.+?)__(?P<name>.+?)(?:\.[0-9a-f]{7,40}\..+|-\d+)")
"""`django__django-11099`, `funcy__funcy.26b9cc1f.index__5bba31ae`."""


class Acts(NamedTuple):
    """What one model did on all tasks, by task."""

    label: str
    folders: tuple[Path, ...]
    predictions: dict[str, Prediction]
    verdicts: dict[str, Verdict]
    agreement: dict[str, list[StepAgreement]]
    episodes: dict[str, Trajectory]


class Taught(NamedTuple):
    """A trajectory as a teacher left it."""

    label: str
    """Of the run."""
    trajectory: Trajectory
    objection: str
    """Why it was rejected; empty where it was not."""


class Material(NamedTuple):
    """What the page shows."""

    acts: tuple[Acts, ...]
    """In the order of the report's runs."""
    training: tuple[TrainingRun, ...]
    replays: tuple[ReplayRun, ...]
    teaching: tuple[TeachRun, ...]
    tasks: dict[str, Task]
    replayed: dict[str, list[tuple[ReplayRun, Replayed]]]
    """By task."""
    taught: dict[str, list[Taught]]
    """By task."""

    @property
    def task_ids(self) -> list[str]:
        """Every task that a run says something of: those that a model was measured on first, each part by name."""
        measured: set[str] = set()
        for act in self.acts:
            measured.update(act.predictions, act.verdicts, act.agreement, act.episodes)
        return [*sorted(measured), *sorted({*self.replayed, *self.taught} - measured)]

    def project(self, task_id: str) -> str:
        """As the task says, else as its id does; empty where neither does."""
        if task_id in self.tasks:
            return self.tasks[task_id].repo
        match = _INSTANCE.fullmatch(task_id)
        if not match:
            return ""
        owner, name = match["owner"], match["name"]
        return name if owner == name else f"{owner}/{name}"


def gather(
    entries: Sequence[Collected],
    training: Iterable[TrainingRun] = (),
    replays: Iterable[ReplayRun] = (),
    teaching: Iterable[TeachRun] = (),
    tasks: Iterable[Task] = (),
) -> Material:
    """Put what the entries of a report did beside what is known of their teacher."""
    material = Material(
        acts=tuple(_acts(entry) for entry in entries),
        training=tuple(training),
        replays=tuple(replays),
        teaching=tuple(teaching),
        tasks={task.task_id: task for task in tasks},
        replayed={},
        taught={},
    )
    for replay in material.replays:
        for record in replay.records:
            material.replayed.setdefault(record.task_id, []).append((replay, record))
    for run in material.teaching:
        taught = [Taught(run.label, item, "") for item in run.accepted]
        for item in (*taught, *(Taught(run.label, item, reason) for reason, item in run.rejected)):
            material.taught.setdefault(item.trajectory.task_id, []).append(item)
    return material


def _acts(entry: Collected) -> Acts:
    agreement: dict[str, list[StepAgreement]] = {}
    for row in entry.agreement:
        agreement.setdefault(row.task_id, []).append(row)
    episodes = {
        item.task_id: item
        for folder in entry.folders
        if (folder / EPISODES).is_file()
        for item in read_records(folder / EPISODES, Trajectory)
        if item.model == entry.model
    }
    return Acts(
        entry.label,
        entry.folders,
        {item.task_id: item for item in entry.predictions},
        {item.task_id: item for item in entry.verdicts},
        agreement,
        episodes,
    )
