"""`swe-srl agree`: held-out steps + a model → how nearly it does what the teacher did next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swe_srl.cli.options import EndpointModel, ModelName, Out, Policy, Settings, Tasks


def agree(
    steps: Annotated[
        Path, typer.Argument(help="Steps: the steps.jsonl that `swe-srl replay` wrote.", show_default=False)
    ],
    tasks: Tasks,
    policy: Policy,
    out: Out,
    model: EndpointModel = "",
    name: ModelName = "",
    reward: Annotated[str, typer.Option(help="What similarity is.")] = "similarity",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Measure only so many steps, spread evenly over all.", show_default=False),
    ] = None,
    set_: Settings = None,
) -> None:
    """Draw answers at each held-out step and compare them with the teacher's action; needs no docker."""
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import progress, say, table
    from swe_srl.evaluation.steps import TOOL_HEAD, AgreementConfig, summary_lines, tool_lines
    from swe_srl.evaluation.steps import agree as agree_all
    from swe_srl.policy.load import load_policy
    from swe_srl.rewards.load import reward_config
    from swe_srl.schema import Step
    from swe_srl.settings import apply_overrides, build
    from swe_srl.store import Run, read_records

    table_of_settings = {"max_steps": limit} if limit else {}
    config = build(AgreementConfig, apply_overrides(table_of_settings, set_ or []), origin="--set")
    measure = reward_config(reward).build()
    held_out = list(read_records(steps, Step))
    ids = sorted({step.task_id for step in held_out})
    known = {task.task_id: task for task in load_tasks(tasks, ids)}
    run = Run(out)
    acting = load_policy(policy, model=model)
    try:
        with progress("steps", len(held_out)) as advance:
            rows = agree_all(held_out, known, acting, measure, run, config, model=name, progress=advance)
    finally:
        acting.close()
    table(f"agreement with the teacher on {len(rows)} steps", ["measure", "value [95 %]"], summary_lines(rows))
    table("by the teacher's tool", TOOL_HEAD, tool_lines(rows))
    say(f"rows are in {out}/step_agreement.jsonl; next: swe-srl report {out} --out {out}/report")
