"""Several trainings in one config → their runs, one after the other, in one run directory and from one budget of tokens.

A file with `stages` is a chain: each stage is a training of its own, over the settings that stand beside `stages`, and
begins with what the one before it ended with. `RUN/1-sft`, `RUN/2-srl` are training runs like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from swe_srl.errors import ConfigError
from swe_srl.settings import Config, apply_overrides, build, merge, read_toml
from swe_srl.training.config import TrainConfig
from swe_srl.training.metrics import spent

MAX_STAGES = 9
"""One digit counts them, so that folders stand in their order."""


class Stage(Config):
    """One training of a chain."""

    name: str = Field(pattern="[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    share: float | None = Field(None, gt=0, le=1)
    """Of the chain's budget that this stage may spend; what is left of it where null."""
    settings: TrainConfig
    """Its `model` is the run of the stage before, its own `budget_tokens` one more limit."""


class ChainConfig(Config):
    """Trainings one after the other."""

    stages: tuple[Stage, ...] = Field(min_length=1, max_length=MAX_STAGES)
    budget_tokens: int | None = Field(None, ge=1)
    """Tokens that may go through the model in all stages together, trained and sampled."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        shares = [stage.share for stage in self.stages if stage.share is not None]
        if shares and self.budget_tokens is None:
            raise ValueError("a stage has a share, but there is no budget_tokens to share")
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"the stages' shares add up to {sum(shares):g}, more than the whole budget")
        return self


def chain_config(
    table: Mapping[str, Any], overrides: Sequence[str], given: Mapping[str, Any], out: Path, origin: str
) -> ChainConfig:
    """The chain in `table`. A stage's settings are those of its `preset`, then those beside `stages`, then its own.

    Args:
        table: as read from a file with `stages`.
        overrides: `--set`: `stages.NAME.a.b=c` for one stage, `budget_tokens=n` for the chain, anything else for every stage.
        given: what other options say; the `model` is that of the first stage.
        out: the run directory, in which the later stages find their models.
        origin: the file, for messages.

    Raises:
        ConfigError: it is not a chain, or an override names a stage that it does not have.
    """
    stages = table["stages"]
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise ConfigError(f"{origin}: stages: give each stage a table of its own, as [stages.sft]")
    common = {key: value for key, value in table.items() if key not in ("stages", "budget_tokens")} | dict(given)
    split = _split(overrides, stages, origin)
    plan: list[dict[str, Any]] = []
    for index, (name, said) in enumerate(stages.items()):
        own = apply_overrides(said, split.of_stage[name])
        base = read_toml(own["preset"]) if "preset" in own else {}
        settings = apply_overrides(apply_overrides(merge(merge(base, common), own), split.common), split.of_stage[name])
        settings.pop("preset", None)
        share = settings.pop("share", None)
        if index:
            settings["model"] = str(stage_directory(out, index - 1, plan[-1]["name"]))
        made = build(TrainConfig, settings, origin=f"{origin}: stages.{name}")
        plan.append({"name": name, "share": share, "settings": made})
    whole = apply_overrides({key: table[key] for key in ("budget_tokens",) if key in table}, split.chain)
    return build(ChainConfig, {"stages": tuple(plan), **whole}, origin=origin)


class _Overrides(NamedTuple):
    chain: list[str]
    common: list[str]
    of_stage: dict[str, list[str]]
    """Without their `stages.NAME.`"""


def _split(overrides: Sequence[str], stages: Mapping[str, Any], origin: str) -> _Overrides:
    """Whom each override is for."""
    found = _Overrides([], [], {name: [] for name in stages})
    for override in overrides:
        match = re.match(r"stages\.([^.=]+)\.(.+)", override, re.DOTALL)
        if match is None:
            (found.chain if override.partition("=")[0].strip() == "budget_tokens" else found.common).append(override)
        elif match[1] in stages:
            found.of_stage[match[1]].append(match[2])
        else:
            raise ConfigError(f"--set {override!r}: {origin} has no stage {match[1]!r}, only {', '.join(stages)}")
    return found


def stage_directory(run: Path, index: int, name: str) -> Path:
    """Where the stage with this index (from 0) runs."""
    return run / f"{index + 1}-{name}"


def limit(budget: int | None, share: float | None, own: int | None, already: int) -> int | None:
    """Tokens that a stage may still spend, of a budget of which its predecessors spent `already`; None without a limit, 0 where nothing is left."""
    limits = [own] if own is not None else []
    if budget is not None:
        limits.append(max(0, budget - already))
        if share is not None:
            limits.append(round(share * budget))
    return min(limits) if limits else None


TrainStage = Callable[[Stage, str, TrainConfig, Path], Path]
"""(stage, what to call it, settings with what is left of the budget, run directory) → its last checkpoint."""


def run_chain(config: ChainConfig, run: Path, train_stage: TrainStage, say: Callable[[str], None]) -> Path:
    """Run every stage that is not finished; the last stage's checkpoint.

    A stage that was stopped goes on where it was; `train_stage` leaves one that is finished as it is. A stage for which
    nothing of the budget is left is not begun, and neither are those after it.
    """
    already = 0
    path = run
    for index, stage in enumerate(config.stages):
        label = f"stage {index + 1} of {len(config.stages)}: {stage.name}"
        tokens = limit(config.budget_tokens, stage.share, stage.settings.budget_tokens, already)
        if tokens == 0:
            say(f"{label}: not begun, for the budget of {config.budget_tokens} tokens is spent")
            break
        folder = stage_directory(run, index, stage.name)
        path = train_stage(stage, label, stage.settings.model_copy(update={"budget_tokens": tokens}), folder)
        used = spent(folder)
        already += used.total
        say(f"{label}: done, {used.trained} tokens trained and {used.sampled} sampled")
    return path
