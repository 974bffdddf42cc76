"""`swe-srl replay`: trajectories → steps, every command run again and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swe_srl.cli.options import Boxes, Out, Tasks


def replay(
    trajectories: Annotated[
        list[Path],
        typer.Argument(help="trajectories.jsonl, files of another tool, or folders of them.", show_default=False),
    ],
    *,
    tasks: Tasks,
    out: Out,
    workers: Annotated[int, typer.Option(min=1, help="Boxes at the same time.")] = 2,
    all_: Annotated[bool, typer.Option("--all", help="Also replay what is not recorded as resolved.")] = False,
    keep_lost: Annotated[bool, typer.Option(help="Keep the steps before a lost state.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one command may take.")] = 60.0,
    box: Boxes = None,
) -> None:
    """Run every command again in the task's box; keep what happened, with its fidelity, in steps.jsonl."""
    from swe_srl.agent import open_task_box
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import progress, say, table
    from swe_srl.errors import ApparatusError, UserError
    from swe_srl.replay.formats.read import read_trajectories
    from swe_srl.replay.replay import ReplayConfig, replay_all
    from swe_srl.runtime.base import SandboxConfig
    from swe_srl.schema import Trajectory
    from swe_srl.settings import apply_overrides, build
    from swe_srl.store import Run

    items = list(read_trajectories(trajectories))
    found = [item for item in items if isinstance(item, Trajectory)]
    for item in items:
        if not isinstance(item, Trajectory):
            say(f"left out {item.path}{f', line {item.line}' if item.line else ''}: {item.reason}")
    if not found:
        raise UserError(f"no trajectory in {', '.join(map(str, trajectories))}: was another file meant?")
    config = ReplayConfig(only_resolved=not all_, keep_lost=keep_lost, command_timeout_s=timeout, workers=workers)
    boxes = build(SandboxConfig, apply_overrides({}, box or []), "--box")
    known = {task.task_id: task for task in load_tasks(tasks, sorted({item.task_id for item in found}))}
    with progress("replaying", len(found)) as advance:
        summary = replay_all(
            found,
            known,
            Run(out),
            config,
            open_box=lambda task, item: open_task_box(
                task, boxes.model_copy(update={"session": item.session}), "replay"
            ),
            progress=advance,
        )
    counts = summary.model_dump(exclude={"statuses", "infra_failure"}) | summary.statuses
    table(
        "replay",
        ["", "number"],
        [[name.removeprefix("num_").replace("_", " "), str(count)] for name, count in counts.items()],
    )
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
