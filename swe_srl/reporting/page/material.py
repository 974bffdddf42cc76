"""Everything that runs wrote of a task → Material: found again by the task's id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from swe_srl.replay.replay import Replayed
from swe_srl.reporting.collect import Collected
from swe_srl.reporting.teachers import ReplayRun, TeachRun
from swe_srl.reporting.training import TrainingRun
from swe_srl.schema import Prediction, StepAgreement, Task, Trajectory, Verdict
from swe_srl.store import read_records

Item = TypeVar("Item", Prediction, Verdict, StepAgreement, Trajectory)

EPISODES = "episodes.jsonl"

_INSTANCE = re.compile(r"(?P<owner>.+?)__(?P<name>.+?)(?:\.[0-9a-f]{7,40}\..+|-\d+)")
"""`django__django-11099`, `funcy__funcy.26b9cc1f.index__5bba31ae`."""


class Acts(NamedTuple):
    """What one model did on all tasks, by task; of each as many as it made attempts."""

    label: str
    folders: tuple[Path, ...]
    predictions: dict[str, list[Prediction]]
    verdicts: dict[str, list[Verdict]]
    agreement: dict[str, list[StepAgreement]]
    episodes: dict[str, list[Trajectory]]

    def attempts(self, task_id: str) -> list[tuple[Prediction | None, Verdict | None]]:
        """Each prediction with the verdict on its patch; verdicts on patches that are not known go by their order."""
        verdicts = list(self.verdicts.get(task_id, ()))
        found: list[tuple[Prediction, Verdict | None]] = []
        for prediction in self.predictions.get(task_id, ()):
            own = next((item for item in verdicts if item.patch_digest == prediction.patch_digest), None)
            if own:
                verdicts.remove(own)
            found.append((prediction, own))
        pairs = [(prediction, own or (verdicts.pop(0) if verdicts else None)) for prediction, own in found]
        return [*pairs, *((None, verdict) for verdict in verdicts)]


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
    # an episode that the apparatus broke was made again: the last of an id is in force
    episodes = {
        item.trajectory_id: item
        for folder in entry.folders
        if (folder / EPISODES).is_file()
        for item in read_records(folder / EPISODES, Trajectory)
        if item.model == entry.model
    }
    return Acts(
        entry.label,
        entry.folders,
        _by_task(entry.predictions),
        _by_task(entry.verdicts),
        _by_task(entry.agreement),
        _by_task(episodes.values()),
    )


def _by_task(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.task_id, []).append(item)
    return found
