"""`swe-srl train`: steps → checkpoint, by SFT or SRL; tasks → checkpoint, by RLVR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swe_srl.schema import Task
    from swe_srl.training.algorithms.rlvr import Arena
    from swe_srl.training.config import RlvrConfig, TrainConfig
    from swe_srl.training.data import Example


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE", help="A preset (sft, srl, rlvr, sft-cpu, srl-cpu, rlvr-cpu) or a TOML file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory; called again with the same one, the run goes on.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting over the preset, e.g. optimizer.lr=1e-5.")
    ] = None,
    model: Annotated[str, typer.Option(help="The student: hub id, directory, training run, or smollm2-135m.")] = "",
    steps: Annotated[
        list[Path] | None, typer.Option(help="steps.jsonl of `swe-srl replay`; may be given more than once.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="The tasks that the steps belong to; for RLVR those to work on.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings and what would be trained on.")
    ] = False,
) -> None:
    """Steps → checkpoint by SFT or SRL; tasks → checkpoint by RLVR.

    Writes checkpoints/ (Hugging Face directories) and metrics.jsonl. SFT and SRL need no container engine.
    """
    import json
    import sys

    from swe_srl.cli.console import say
    from swe_srl.settings import apply_overrides, build, read_toml
    from swe_srl.training.config import RlvrConfig, TrainConfig

    table = apply_overrides(read_toml(config), set_ or [])
    given = {"model": model, "steps": [str(path) for path in steps or []], "tasks": tasks}
    settings = build(TrainConfig, table | {key: value for key, value in given.items() if value}, origin=config)
    data, plan = _tasks(settings) if isinstance(settings.algorithm, RlvrConfig) else _steps(settings)
    total = settings.num_updates(len(data))
    say(f"{settings.algorithm.type}: {plan}, {total} updates")
    if dry_run:
        sys.stdout.write(json.dumps(settings.model_dump(mode="json"), indent=2) + "\n")
        return

    _run(settings, data, out, total)


def _run(settings: TrainConfig, data: Sequence[Example] | Sequence[Task], out: Path, total: int) -> None:
    """Train, with the processes that torchrun started beside this one, if any."""
    from contextlib import nullcontext

    from swe_srl.cli.console import progress, say
    from swe_srl.policy.load import last_checkpoint, require_torch
    from swe_srl.store import Run
    from swe_srl.training.config import RlvrConfig
    from swe_srl.training.metrics import read_metrics
    from swe_srl.training.trackers import require

    require_torch()
    require(settings.trackers)
    from swe_srl.training.loop import train as run_training
    from swe_srl.training.team import assembled

    run = Run(out)
    with assembled(settings.device) as team, run.exclusive() if team.is_lead else nullcontext():
        if team.is_lead:
            run.remember("train.json", settings.model_dump(mode="json"))
        before = last_checkpoint(out)
        arena = _arena(settings, settings.algorithm) if isinstance(settings.algorithm, RlvrConfig) else None
        with progress(f"training ({settings.algorithm.type})", total) as advance:
            path = run_training(settings, data, run, arena=arena, progress=advance, team=team)
    if not team.is_lead:
        return
    if path == before:
        say(f"already finished: {path} (remove {out} or choose another --out to train again)")
        return
    last = read_metrics(out)[-1]
    say(f"done: {path}, loss {last.loss:.4f} at update {last.update}; next: swe-srl predict --policy {out} …")


def _steps(settings: TrainConfig) -> tuple[tuple[Example, ...], str]:
    """The expert steps to train on, and what is to be said of them. Raises ConfigError where none are given."""
    from swe_srl.benchmarks.load import excluded, load_tasks
    from swe_srl.errors import ConfigError
    from swe_srl.training.data import load_examples
    from swe_srl.training.difficulty import choose

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
    return data.examples, f"{len(data.examples)} of {data.num_steps} steps ({words})"


def _tasks(settings: TrainConfig) -> tuple[tuple[Task, ...], str]:
    """The tasks to work on, and what is to be said of them. Raises ConfigError where none are given."""
    from swe_srl.benchmarks.load import excluded, load_tasks
    from swe_srl.errors import ConfigError

    if not settings.tasks:
        raise ConfigError("no tasks to work on: give --tasks")
    found, left_out = load_tasks(settings.tasks), excluded(settings.tasks)
    kept = tuple(task for task in found if task.task_id not in left_out)
    return kept, f"{len(kept)} of {len(found)} tasks"


def _arena(settings: TrainConfig, algorithm: RlvrConfig) -> Arena:
    """Boxes and a grader for RLVR's episodes."""
    from swe_srl.agent import open_task_box
    from swe_srl.grading.grader import Grader
    from swe_srl.training.algorithms.rlvr import Arena

    grader = Grader(settings.tasks, algorithm.sandbox, algorithm.test_timeout_s, stop_early=True)
    return Arena(
        open_box=lambda task: open_task_box(task, algorithm.sandbox, "rlvr"),
        grade=lambda prediction: grader.grade(prediction).verdict,
    )
