"""`swe-srl predict`: a model tries tasks in one of the modes → predictions."""

from __future__ import annotations

from typing import Annotated

import typer

from swe_srl.cli.options import (
    EndpointModel,
    Ids,
    MaxTasks,
    ModelName,
    Out,
    Policy,
    PriceIn,
    PriceOut,
    Prices,
    Settings,
    Tasks,
)  # fmt: skip


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
    mode: Annotated[
        str,
        typer.Option(
            help="agent: turn by turn in a box; oracle: the gold patch's files are given, one edit; agentless: locate files, mend, choose."
        ),
    ] = "agent",
    attempts: Annotated[
        int, typer.Option(min=1, help="Tries of each task, each with other seeds; needs a temperature.")
    ] = 1,
    choose: Annotated[
        str,
        typer.Option(
            help="Which attempt goes to preds.json: first, votes, or a reward by which it is most like the others."
        ),
    ] = "first",
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    prices: Prices = None,
    model: EndpointModel = "",
    name: ModelName = "",
    ids: Ids = None,
    max_tasks: MaxTasks = None,
    set_: Settings = None,
) -> None:
    """Let a model try every task; write predictions in SWE-bench's format and in ours.

    `--set limits.max_turns=50`, `limits.max_seconds`, `limits.max_completion_tokens` and `limits.max_usd` end an attempt;
    `--set sampling.temperature=0.8` samples where the default is greedy.
    """
    from swe_srl.benchmarks.gold_files import gold_files
    from swe_srl.benchmarks.load import load_tasks
    from swe_srl.cli.console import progress, say
    from swe_srl.cli.prices import check_caps, price_to_count
    from swe_srl.errors import ApparatusError
    from swe_srl.evaluation.modes import mode_config
    from swe_srl.evaluation.predict import check_attempts
    from swe_srl.evaluation.predict import predict as predict_all
    from swe_srl.policy.load import load_policy
    from swe_srl.settings import apply_overrides, read_toml
    from swe_srl.store import Run

    config = mode_config(
        mode, apply_overrides(read_toml(preset) if preset else {}, set_ or []), origin=preset or "--set"
    )
    check_attempts(config, attempts, choose)
    price = price_to_count(model or policy, prices, price_in, price_out)
    limits = getattr(config, "limits", None)
    check_caps({"limits.max_usd": limits and limits.max_usd}, price, model or policy)
    chosen = load_tasks(tasks, ids or [])[:max_tasks]
    given = gold_files(tasks, [task.task_id for task in chosen]) if config.build().needs_gold_files else {}
    run = Run(out)
    acting = load_policy(policy, model=model, price=price)
    try:
        with progress("predicting (rounds)") as advance:
            found = predict_all(
                chosen,
                acting,
                config,
                run,
                model=name,
                attempts=attempts,
                choose=choose,
                gold_files=given,
                progress=advance,
            )
    finally:
        acting.close()
    failures = [item for item in found if item.infra_failure]
    if failures:
        raise ApparatusError(
            f"{len(failures)} of {len(found)} attempts could not be made, the first ({failures[0].task_id}) because: "
            f"{failures[0].infra_failure}: the other predictions are in {out}; call the same command again for the rest"
        )
    with_patch = sum(bool(item.patch.strip()) for item in found)
    say(
        f"{len(found)} predictions, {with_patch} with a patch, are in {out}; next: swe-srl grade {out} --tasks {tasks} --out {out}"
    )
