"""`swe-srl train`: steps → checkpoint, by SFT or SRL; tasks → checkpoint, by RLVR; or several of these in a chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from swe_srl.training.chain import ChainConfig, Stage
    from swe_srl.training.config import TrainConfig
    from swe_srl.training.inputs import Inputs


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE",
            help="A preset (sft, srl, rlvr, srl-rlvr, one of these with -cpu, or srl-7b-lora, srl-7b-full, srl-7b-8gpu and these of sft) or a TOML file.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory; called again with the same one, the run goes on.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting over the preset, e.g. optimizer.lr=1e-5; of one stage of a chain: stages.NAME.optimizer.lr=1e-5.",
        ),
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
    """Steps → checkpoint by SFT or SRL; tasks → checkpoint by RLVR; a file with `stages` → one after the other.

    Writes checkpoints/ (Hugging Face directories) and metrics.jsonl; a chain writes them in a folder for each stage. SFT
    and SRL need no container engine.
    """
    from swe_srl.settings import apply_overrides, build, read_toml
    from swe_srl.training.config import TrainConfig

    table = read_toml(config)
    given = {
        key: value
        for key, value in (("model", model), ("steps", [str(path) for path in steps or []]), ("tasks", tasks))
        if value
    }
    if "stages" in table:
        from swe_srl.training.chain import chain_config

        _chain(chain_config(table, set_ or [], given, out, config), out, dry_run=dry_run)
    else:
        settings = build(TrainConfig, apply_overrides(table, set_ or []) | given, origin=config)
        _single(settings, out, dry_run=dry_run)


def _single(settings: TrainConfig, out: Path, *, dry_run: bool) -> None:
    from swe_srl.cli.console import say
    from swe_srl.policy.load import last_checkpoint
    from swe_srl.training.metrics import learned, read_metrics

    _refuse(out, "chain.json", "a chain of trainings")
    kind = settings.algorithm.type
    data = _announce(kind, settings)
    if dry_run:
        _print(settings.model_dump(mode="json"))
        return
    before = last_checkpoint(out)
    path = _train(kind, settings, data, out)
    if path is None:
        return
    if path == before:
        say(f"already finished: {path} (remove {out} or choose another --out to train again)")
        return
    say(f"done: {path}, {learned(read_metrics(out))}; next: swe-srl predict --policy {out} …")


def _chain(config: ChainConfig, out: Path, *, dry_run: bool) -> None:
    import os

    from swe_srl.cli.console import say
    from swe_srl.errors import ConfigError
    from swe_srl.store import Run
    from swe_srl.training.chain import run_chain

    _refuse(out, "train.json", "a single training")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a chain runs in one process: start its stages one after the other, each by torchrun, or leave torchrun out"
        )
    inputs = {stage.name: _announce(stage.name, stage.settings) for stage in config.stages}
    if config.budget_tokens is not None:
        say(f"{config.budget_tokens} tokens for all stages together, trained and sampled")
    if dry_run:
        _print(config.model_dump(mode="json"))
        return
    run = Run(out)
    with run.exclusive():
        run.remember("chain.json", config.model_dump(mode="json"))

        def run_stage(stage: Stage, label: str, settings: TrainConfig, folder: Path) -> Path:
            path = _train(label, settings, inputs[stage.name], folder)
            assert path is not None, "one process speaks for itself"
            return path

        path = run_chain(config, out, run_stage, say)
    say(f"done: {path}; next: swe-srl predict --policy {out} …")


def _refuse(out: Path, name: str, what: str) -> None:
    """Raises UserError where `out` is already another kind of run."""
    from swe_srl.errors import UserError

    if (out / name).is_file():
        raise UserError(f"{out} holds {what}: choose another --out")


def _announce(name: str, settings: TrainConfig) -> Inputs:
    """What a training goes through, and a line about it."""
    from swe_srl.cli.console import say
    from swe_srl.training.inputs import training_inputs

    data = training_inputs(settings)
    limit = "" if settings.budget_tokens is None else f", at most {settings.budget_tokens} tokens"
    say(f"{name}: {data.words}, {settings.num_updates(len(data.items))} updates{limit}")
    return data


def _print(table: dict[str, Any]) -> None:
    import json
    import sys

    sys.stdout.write(json.dumps(table, indent=2) + "\n")


def _train(label: str, settings: TrainConfig, data: Inputs, out: Path) -> Path | None:
    """One training in its run directory, with the processes that torchrun started beside this one, if any.

    Its last checkpoint; None in a process that is not the one to speak for all of them.
    """
    from contextlib import nullcontext

    from swe_srl.cli.console import progress
    from swe_srl.policy.load import require_torch
    from swe_srl.store import Run
    from swe_srl.training.trackers import require

    require_torch()
    require(settings.trackers)
    from swe_srl.training.inputs import make_arena
    from swe_srl.training.loop import train as run_training
    from swe_srl.training.team import assembled

    run = Run(out)
    with assembled(settings.device) as team, run.exclusive() if team.is_lead else nullcontext():
        if team.is_lead:
            run.remember("train.json", settings.model_dump(mode="json"))
        arena = make_arena(settings)
        with progress(f"training ({label})", settings.num_updates(len(data.items))) as advance:
            path = run_training(settings, data.items, run, arena=arena, progress=advance, team=team)
    return path if team.is_lead else None
