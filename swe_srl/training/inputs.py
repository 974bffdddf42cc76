"""A training's settings → what it is trained on, and where RLVR's episodes take place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from swe_srl.agent import EpisodeResult, open_task_box
from swe_srl.benchmarks.load import excluded, load_tasks
from swe_srl.dialogue import format_action
from swe_srl.errors import ConfigError
from swe_srl.rewards import similarity
from swe_srl.rewards.base import RewardFn
from swe_srl.rewards.constant import best_constant, in_a_line
from swe_srl.schema import Command, Task
from swe_srl.training.config import EffectRewardConfig, RlvrConfig, SrlConfig, TrainConfig
from swe_srl.training.data import Dataset, Example, load_examples
from swe_srl.training.difficulty import choose

if TYPE_CHECKING:
    from swe_srl.training.attempts import Arena


class Inputs(NamedTuple):
    """What a training goes through."""

    items: tuple[Example, ...] | tuple[Task, ...]
    words: str
    """How many there are, and what was left out."""


def training_inputs(settings: TrainConfig) -> Inputs:
    """Expert steps; for RLVR tasks. Raises ConfigError where none are given."""
    algorithm = settings.algorithm
    if isinstance(algorithm, RlvrConfig):
        return _tasks(settings)
    data = _steps(settings)
    words = _words(data)
    if isinstance(algorithm, SrlConfig) and not isinstance(algorithm.reward, EffectRewardConfig):
        words += f", {_laziest([example.step.command for example in data.examples], algorithm.reward.build())}"
    return Inputs(data.examples, words)


def _laziest(teacher: Sequence[Command], reward: RewardFn) -> str:
    """What a student would earn that looks at nothing."""
    action, earned = best_constant(teacher, reward)
    return f"one action at every step would earn {earned:.3f} (`{in_a_line(action)}`)"


def _steps(settings: TrainConfig) -> Dataset:
    if not settings.steps:
        raise ConfigError("no steps to train on: give --steps FILE (what `swe-srl replay` wrote)")
    if not settings.tasks:
        raise ConfigError("no tasks: give --tasks with the task repository that the steps were made on")
    known, left_out = load_tasks(settings.tasks), excluded(settings.tasks)
    return choose(
        load_examples(settings.steps, known, settings.fidelity, left_out, settings.exclude), settings.difficulty
    )


def _words(data: Dataset) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(data.left_out.items()))
    return f"{len(data.examples)} of {data.num_steps} steps ({f'left out: {reasons}' if reasons else 'none left out'})"


def _tasks(settings: TrainConfig) -> Inputs:
    if not settings.tasks:
        raise ConfigError("no tasks to work on: give --tasks")
    found, left_out = load_tasks(settings.tasks), excluded(settings.tasks)
    kept = tuple(task for task in found if task.task_id not in left_out)
    if isinstance(settings.algorithm, RlvrConfig) and settings.algorithm.reward == "similarity":
        known = expert_solutions(settings)
        kept = tuple(task for task in kept if task.task_id in known)
    return Inputs(kept, f"{len(kept)} of {len(found)} tasks")


def expert_solutions(settings: TrainConfig) -> dict[str, list[str]]:
    """Task → the actions of each of the experts' trajectories on it, as one text. Raises ConfigError where no steps are given."""
    trajectories = {example.step.trajectory_id: example for example in _steps(settings).examples}
    found: dict[str, list[str]] = defaultdict(list)
    for example in trajectories.values():
        found[example.step.task_id].append(as_one_text([step.command for step in example.trajectory]))
    return dict(found)


def as_one_text(commands: Sequence[Command]) -> str:
    """Actions one after the other: what a whole-solution reward compares."""
    return "\n".join(map(format_action, commands))


class WholeSolution:
    """An episode → the likeness of all its actions to the nearest of the experts' on that task; -1 where it has none."""

    def __init__(self, solutions: Mapping[str, Sequence[str]]) -> None:
        self._solutions = solutions

    def __call__(self, result: EpisodeResult) -> float:
        """In [0, 1], as for a single action, or -1."""
        commands = [turn.command for turn in result.turns if turn.command is not None]
        if not commands:
            return -1.0
        own = as_one_text(commands)
        return max(similarity(own, solution) for solution in self._solutions[result.task.task_id])


def make_arena(settings: TrainConfig) -> Arena | None:
    """Boxes and a grader for RLVR's episodes; None for what needs none."""
    algorithm = settings.algorithm
    if not isinstance(algorithm, RlvrConfig):
        return None
    from swe_srl.grading.grader import Grader
    from swe_srl.training.attempts import Arena

    grader = Grader(settings.tasks, algorithm.sandbox, algorithm.test_timeout_s, stop_early=True)
    return Arena(
        open_box=lambda task: open_task_box(task, algorithm.sandbox, "rlvr"),
        grade=lambda prediction: grader.grade(prediction).verdict,
        worth=WholeSolution(expert_solutions(settings)) if algorithm.reward == "similarity" else None,
    )
