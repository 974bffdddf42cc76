"""`swe-srl predict`: a model acts in boxes → predictions."""

from __future__ import annotations

from typing import Annotated

import typer

from swe_srl.cli.options import EndpointModel, Ids, MaxTasks, ModelName, Out, Policy, Settings, Tasks


def predict(
    preset: Annotated[
        str | None,
        typer.Argument(
            help="Settings of the mode: a TOML file or a preset's name; the defaults without.", show_default=False
        ),
    ] = None,
    *,
    tasks: Tasks,
    policy: Policy,
    out: Out,
    mode: Annotated[str, typer.Option(help="How the model is evaluated; only `agent` exists so far.")] = "agent",
    model: EndpointModel = "",
    name: ModelName = "",
    ids: Ids = None,
    max_tasks: MaxTasks = None,
    set_: Settings = None,
) -> None:
    """Let a model act on every task until it submits; write predictions in SWE-bench's format and in ours."""
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import progress, say
    from swe_srl.errors import ApparatusError
    from swe_srl.evaluation.modes import mode_config
    from swe_srl.evaluation.predict import predict as predict_all
    from swe_srl.policy.load import load_policy
    from swe_srl.settings import apply_overrides, read_toml
    from swe_srl.store import Run

    config = mode_config(
        mode, apply_overrides(read_toml(preset) if preset else {}, set_ or []), origin=preset or "--set"
    )
    chosen = load_tasks(tasks, ids or [])[:max_tasks]
    run = Run(out)
    acting = load_policy(policy, model=model)
    try:
        with progress("predicting (turns)") as advance:
            found = predict_all(chosen, acting, config, run, model=name, progress=advance)
    finally:
        acting.close()
    failures = [item for item in found if item.infra_failure]
    if failures:
        raise ApparatusError(
            f"{len(failures)} of {len(found)} tasks could not be tried, the first ({failures[0].task_id}) because: "
            f"{failures[0].infra_failure}: the other predictions are in {out}; call the same command again for the rest"
        )
    with_patch = sum(bool(item.patch.strip()) for item in found)
    say(
        f"{len(found)} predictions, {with_patch} with a patch, are in {out}; next: swe-srl grade {out} --tasks {tasks} --out {out}"
    )
