"""`swe-srl demo`: the whole pipeline on real projects, each stage by its own verb, so that every line can be run by hand.

The verbs run one after the other in this process: what they import, torch above all, takes longer than some of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from pydantic import Field

from swe_srl.cli import main
from swe_srl.cli.console import say
from swe_srl.settings import Config, load
from swe_srl.training.config import TrainConfig


class DemoConfig(Config):
    """What the demo makes, trains and measures."""

    train_recipes: tuple[str, ...]
    """Projects whose tasks are trained on."""
    train_tasks: int
    """Tasks per training project."""
    test_recipes: tuple[str, ...]
    """Projects never trained on."""
    test_tasks: int
    """Tasks of each; agreement with the teacher is measured on steps of all of them."""
    solve_tasks: int
    """How many of those the models are let loose on in boxes, which takes the most time of each."""
    samples: int = 1
    """Trajectories per training task."""
    teaching: dict[str, bool | int | float]
    """Settings of `swe-srl teach`, as it takes them with --set."""
    heldout_steps: int
    """Steps of the test projects on which agreement with the teacher is measured."""
    agreement: dict[str, int | float]
    """Settings of `swe-srl agree`, as it takes them with --set."""
    base_steps: int = 4
    """Of those, how many the model before training is measured on: it writes to its limit of tokens each time."""
    student: str = "smollm2-135m"
    sft: str
    """Preset of the warm start."""
    srl: str
    """Preset of SRL on top of it."""
    longer: float = Field(1.0, gt=0)
    """Both trainings take this many times the updates of their presets."""
    mode: str
    """Preset of the agent mode in which all three models are measured."""
    workers: int = 2


class Stage(NamedTuple):
    """One verb of the pipeline."""

    title: str
    arguments: tuple[str, ...]


def stages(config: DemoConfig, out: Path) -> Iterator[Stage]:
    """The demo as a list of command lines, in order."""
    train, test, workers = str(out / "tasks-train"), str(out / "tasks-test"), ("--workers", str(config.workers))
    for title, recipes, number, tasks in (
        ("Plant bugs in the projects to train on", config.train_recipes, config.train_tasks, train),
        ("Plant bugs in a project never trained on", config.test_recipes, config.test_tasks, test),
    ):
        yield Stage(title, ("tasks", "make", *recipes, "--num", str(number), "--out", tasks, *workers))
    yield Stage(
        "Check the tasks that will be solved: the gold patch resolves, the empty one does not",
        ("tasks", "check", test, "--max-tasks", str(config.solve_tasks), "--repeats", "1", *workers),
    )
    given = (*workers, *_set(config.teaching))
    for name, tasks, samples in (("train", train, config.samples), ("test", test, 1)):
        teach, replay = out / f"teach-{name}", out / f"replay-{name}"
        yield Stage(
            f"A teacher over HTTP solves the {name} tasks",
            ("teach", "--tasks", tasks, "--model", "oracle", "--samples", str(samples), "--out", str(teach), *given),
        )
        yield Stage(
            "Replay every command",
            (
                "replay",
                str(teach / "trajectories.jsonl"),
                "--tasks",
                tasks,
                "--out",
                str(replay),
                "--no-grade",
                *workers,
            ),
        )
    steps, models = out / "replay-train" / "steps.jsonl", {"base": config.student}
    for title, name, preset, start in (
        ("SFT warm start", "sft", config.sft, config.student),
        ("SRL on top of it", "sft+srl", config.srl, str(out / "sft")),
    ):
        inputs = ("--model", start, "--steps", str(steps), "--tasks", train, "--out", str(out / name))
        yield Stage(title, ("train", preset, *_longer(preset, config.longer), *inputs))
        models[name] = str(out / name)
    yield from _measure(config, out, test, models)


def _set(settings: Mapping[str, bool | int | float]) -> tuple[str, ...]:
    """Settings as options of a verb."""
    return tuple(f"--set={key}={str(value).lower()}" for key, value in settings.items())


def _longer(preset: str, factor: float) -> tuple[str, ...]:
    """The option that makes a training preset's run so many times as long."""
    if factor == 1.0:
        return ()
    config = load(TrainConfig, preset)
    if config.updates is None:
        return ("--set", f"epochs={factor * config.epochs:g}")
    return ("--set", f"updates={max(1, round(factor * config.updates))}")


def _measure(config: DemoConfig, out: Path, tasks: str, models: dict[str, str]) -> Iterator[Stage]:
    runs = []
    solved = ("--max-tasks", str(config.solve_tasks))
    for name, model in models.items():
        steps = config.base_steps if name == "base" else config.heldout_steps
        agreement = ("--limit", str(steps), *_set(config.agreement))
        run = str(out / "eval" / name)
        runs.append(run)
        heldout = str(out / "replay-test" / "steps.jsonl")
        common = ("--tasks", tasks, "--policy", model, "--name", name, "--out", run)
        yield Stage(f"{name}: agreement with the teacher on held-out steps", ("agree", heldout, *common, *agreement))
        yield Stage(f"{name}: solve the held-out tasks in boxes", ("predict", config.mode, *solved, *common))
        yield Stage(
            f"{name}: grade each patch in a fresh box",
            ("grade", f"{run}/predictions.jsonl", "--tasks", tasks, "--out", run, "--workers", str(config.workers)),
        )
    shown = [str(out / name) for name in ("sft", "sft+srl", "replay-train", "replay-test", "teach-train", "teach-test")]
    issues = ("--tasks", str(out / "tasks-train"), "--tasks", tasks)
    yield Stage("Report", ("report", *runs, *shown, *issues, "--title", "swe-srl demo", "--out", str(out / "report")))


def _run(arguments: Sequence[str]) -> int:
    """One verb; its exit code."""
    try:
        main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes; call again with the same place to go on.")] = Path(
        "demo"
    ),
    preset: Annotated[str, typer.Option(help="A preset or TOML file of sizes.")] = "demo",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a setting: a=b.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the commands and run none.")] = False,
) -> None:
    """The whole pipeline, small and real: tasks, teacher, replay, SFT, SRL, evaluation, report."""
    plan = list(stages(load(DemoConfig, preset, set_ or ()), out))
    begun = time.monotonic()
    for number, stage in enumerate(plan, start=1):
        say(f"\n[{number}/{len(plan)}, {(time.monotonic() - begun) / 60:.1f} min] {stage.title}")
        say(f"$ swe-srl {' '.join(stage.arguments)}")
        if dry_run:
            continue
        if code := _run(stage.arguments):
            say(f"\nThe demo stopped at stage {number}; mend that and call it again: finished stages are not repeated.")
            raise typer.Exit(code)
    say(f"\nDone in {(time.monotonic() - begun) / 60:.1f} minutes. Everything is under {out}/:")
    for path, what in (
        ("report/index.html", "the numbers, plots, and every step beside the students' answers; open it in a browser"),
        ("report/report.md", "the numbers, with every denominator"),
        ("eval/*/episodes.jsonl", "what each model did, turn by turn"),
        ("replay-train/steps.jsonl", "the teacher's steps"),
        ("sft+srl/metrics.jsonl", "reward, kept groups and lengths per update"),
        ("sft+srl/checkpoints", "the student, as Hugging Face directories"),
    ):
        say(f"  {out}/{path}: {what}")
    say(
        f"Next: swe-srl train srl-cpu --model {out}/sft+srl --steps {out}/replay-train/steps.jsonl --tasks {out}/tasks-train --out runs/longer"
    )
