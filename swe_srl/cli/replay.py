"""`swe-srl replay`: trajectories → steps, every command run again and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swe_srl.cli.options import Address, Boxes, ExecutorName, Out, Tasks, executor_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swe_srl.replay.summary import ReplaySummary
    from swe_srl.schema import Trajectory


def replay(
    trajectories: Annotated[
        list[Path],
        typer.Argument(help="trajectories.jsonl, files of another tool, or folders of them.", show_default=False),
    ],
    *,
    tasks: Tasks,
    out: Out,
    workers: Annotated[int, typer.Option(min=1, help="Boxes at the same time, on each machine.")] = 2,
    all_: Annotated[bool, typer.Option("--all", help="Also replay what is not recorded as resolved.")] = False,
    keep_lost: Annotated[bool, typer.Option(help="Keep the steps before a lost state.")] = False,
    grade: Annotated[bool, typer.Option(help="Grade the final diff, and compare with what is claimed.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one command may take.")] = 60.0,
    box: Boxes = None,
    executor: ExecutorName = "threads",
    address: Address = "",
) -> None:
    """Run every command again in the task's box; keep what happened, with its fidelity, in steps.jsonl."""
    from swe_srl.agent import open_task_box
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import progress
    from swe_srl.grading.grader import Grader
    from swe_srl.replay.replay import ReplayConfig
    from swe_srl.replay.run import replay_all
    from swe_srl.runtime.base import SandboxConfig
    from swe_srl.settings import apply_overrides, build
    from swe_srl.store import Run

    place = executor_of(executor, address)
    config = ReplayConfig(only_resolved=not all_, keep_lost=keep_lost, command_timeout_s=timeout, workers=workers)
    boxes = build(SandboxConfig, apply_overrides({}, box or []), "--box")
    known = {task.task_id: task for task in load_tasks(tasks)}
    grader = Grader(tasks, boxes) if grade else None
    with progress("replaying") as advance:
        summary = replay_all(
            _read(trajectories),
            known,
            Run(out),
            config,
            open_box=lambda task, item: open_task_box(
                task, boxes.model_copy(update={"session": item.session}), "replay"
            ),
            grade=(lambda prediction: grader.grade(prediction).verdict) if grader else None,
            executor=place,
            progress=advance,
        )
    _tell(summary, out, tasks)


def _read(paths: list[Path]) -> Iterator[Trajectory]:
    from swe_srl.cli.console import say
    from swe_srl.errors import UserError
    from swe_srl.replay.formats.base import BadRecord
    from swe_srl.replay.formats.read import read_trajectories

    is_empty = True
    for item in read_trajectories(paths):
        if isinstance(item, BadRecord):
            say(f"left out {item.path}{f', line {item.line}' if item.line else ''}: {item.reason}")
        else:
            is_empty = False
            yield item
    if is_empty:
        raise UserError(f"no trajectory in {', '.join(map(str, paths))}: was another file meant?")


def _tell(summary: ReplaySummary, out: Path, tasks: Path) -> None:
    from swe_srl.cli.console import say, table
    from swe_srl.errors import ApparatusError

    tables = ("statuses", "reasons", "objections", "flags")
    counts = summary.model_dump(exclude={*tables, "infra_failure"})
    table("replay", ["", "number"], [[name.removeprefix("num_").replace("_", " "), str(n)] for name, n in counts.items()])  # fmt: skip
    for name, title in zip(tables, ("steps", "why steps are not faithful", "why trajectories give no steps", "what filters found in steps"), strict=True):  # fmt: skip
        if found := getattr(summary, name):
            table(title, ["", "number"], [[key, str(number)] for key, number in found.items()])
    if summary.num_infra_failures:
        raise ApparatusError(
            f"{summary.num_infra_failures} trajectories could not be replayed, the first because: {summary.infra_failure}: "
            f"the others are in {out}; call the same command again for the rest"
        )
    if not summary.num_replayed:
        say("nothing was replayed, for no trajectory is recorded as resolved: --all takes them all")
    say(
        f"{summary.num_steps} steps are in {out}/steps.jsonl; next: swe-srl train sft --steps {out}/steps.jsonl --tasks {tasks} --out RUN"
    )
