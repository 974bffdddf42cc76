"""A training's settings → what it is trained on, and where RLVR's episodes take place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swe_srl.benchmarks.load import excluded, load_tasks
from swe_srl.errors import ConfigError
from swe_srl.schema import Task
from swe_srl.training.config import RlvrConfig, TrainConfig
from swe_srl.training.data import Example, load_examples
from swe_srl.training.difficulty import choose

if TYPE_CHECKING:
    from swe_srl.training.algorithms.rlvr import Arena


class Inputs(NamedTuple):
    """What a training goes through."""

    items: tuple[Example, ...] | tuple[Task, ...]
    words: str
    """How many there are, and what was left out."""


def training_inputs(settings: TrainConfig) -> Inputs:
    """Expert steps; for RLVR tasks. Raises ConfigError where none are given."""
    return _tasks(settings) if isinstance(settings.algorithm, RlvrConfig) else _steps(settings)


def _steps(settings: TrainConfig) -> Inputs:
    if not settings.steps:
        raise ConfigError("no steps to train on: give --steps FILE (what `swe-srl replay` wrote)")
    if not settings.tasks:
        raise ConfigError("no tasks: give --tasks with the task repository that the steps were made on")
    known, left_out = load_tasks(settings.tasks), excluded(settings.tasks)
    data = choose(
        load_examples(settings.steps, known, settings.fidelity, left_out, settings.exclude), settings.difficulty
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(data.left_out.items()))
    words = f"left out: {reasons}" if reasons else "none left out"
    return Inputs(data.examples, f"{len(data.examples)} of {data.num_steps} steps ({words})")


def _tasks(settings: TrainConfig) -> Inputs:
    if not settings.tasks:
        raise ConfigError("no tasks to work on: give --tasks")
    found, left_out = load_tasks(settings.tasks), excluded(settings.tasks)
    kept = tuple(task for task in found if task.task_id not in left_out)
    return Inputs(kept, f"{len(kept)} of {len(found)} tasks")


def make_arena(settings: TrainConfig) -> Arena | None:
    """Boxes and a grader for RLVR's episodes; None for what needs none."""
    algorithm = settings.algorithm
    if not isinstance(algorithm, RlvrConfig):
        return None
    from swe_srl.agent import open_task_box
    from swe_srl.grading.grader import Grader
    from swe_srl.training.algorithms.rlvr import Arena

    grader = Grader(settings.tasks, algorithm.sandbox, algorithm.test_timeout_s, stop_early=True)
    return Arena(
        open_box=lambda task: open_task_box(task, algorithm.sandbox, "rlvr"),
        grade=lambda prediction: grader.grade(prediction).verdict,
    )
