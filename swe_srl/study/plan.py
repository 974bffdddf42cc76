"""StudyConfig → the cells, and the models that they share."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from swe_srl.errors import ConfigError
from swe_srl.evaluation.modes import mode_config
from swe_srl.evaluation.predict import check_attempts
from swe_srl.rewards import reward_config
from swe_srl.settings import apply_overrides, build, merge, read_toml
from swe_srl.study.config import StudyConfig
from swe_srl.training.config import TrainConfig


class PlannedStage(NamedTuple):
    """One training, as `swe-srl train` is told it."""

    name: str
    preset: str
    overrides: tuple[str, ...]
    """Its --set."""
    share: float | None
    settings: TrainConfig
    """What preset and overrides come to; the model and its budget are known when it begins."""


class Model(NamedTuple):
    """A student under one seed, after some stages."""

    name: str
    """`base`, `sft`, `sft+srl` …"""
    seed: int
    folder: str
    """Where it is trained and measured, under the study's directory."""
    stage: PlannedStage | None = None
    """The last one; None before training."""
    start: Model | None = None
    """Whom that stage began with."""

    def lineage(self) -> list[Model]:
        """Itself and all that it came from, the untrained student first."""
        return [*(self.start.lineage() if self.start else []), self]


class Cell(NamedTuple):
    """One arm under one seed."""

    arm: str
    seed: int
    model: Model

    @property
    def folder(self) -> str:
        """Where its result stands, under the study's directory."""
        return f"cells/{folder_name(self.arm)}/seed-{self.seed}"


class Plan(NamedTuple):
    """All cells, seed by seed, so that a study that is stopped early has whole rows of arms."""

    config: StudyConfig
    cells: tuple[Cell, ...]

    def models(self) -> list[Model]:
        """Each model once, in the order in which they come to be."""
        return list({model.folder: model for cell in self.cells for model in cell.model.lineage()}.values())

    def measured(self) -> list[Model]:
        """The models that are measured, each once."""
        return list({cell.model.folder: cell.model for cell in self.cells}.values())


def make_plan(config: StudyConfig) -> Plan:
    """The cells of a study. Raises ConfigError when a stage is no training, a measurement cannot be made, or two arms have the same folder."""
    reward_config(config.reward)
    if config.solve:
        table = read_toml(config.solve.preset) if config.solve.preset else {}
        mode = mode_config("agent", apply_overrides(table, list(flat(config.solve.settings))), origin="solve")
        check_attempts(mode, config.solve.attempts)
    folders: dict[str, str] = {}
    for arm in config.arms:
        other = folders.setdefault(folder_name(arm), arm)
        if other != arm:
            raise ConfigError(
                f"arms {other!r} and {arm!r} would share the folder {folder_name(arm)}: rename one of them"
            )
    return Plan(config, tuple(_cells(config)))


def folder_name(arm: str) -> str:
    """The arm's name in letters that any file system takes."""
    return re.sub(r"[^A-Za-z0-9+.]+", "-", arm).strip("-.") or "arm"


def _cells(config: StudyConfig) -> Iterator[Cell]:
    for seed in config.seeds:
        base = Model("base", seed, f"models/seed-{seed}/base")
        for arm, stages in config.arms.items():
            model = base
            for stage in stages:
                model = _after(model, planned_stage(config, arm, stage, seed), config.budget_tokens)
            yield Cell(arm, seed, model)


def _after(start: Model, stage: PlannedStage, budget: int | None) -> Model:
    """The model that `stage` makes of `start`. Equal settings on an equal start are the same model."""
    name = stage.name if start.stage is None else f"{start.name}+{stage.name}"
    settings = stage.settings.model_dump(mode="json", exclude={"model", "steps", "tasks"})
    told = json.dumps([start.folder, settings, stage.share, budget], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    return Model(name, start.seed, f"models/seed-{start.seed}/{name}-{digest}", stage, start)


def planned_stage(config: StudyConfig, arm: str, said: str | Mapping[str, Any], seed: int) -> PlannedStage:
    """A stage of an arm: the study's stage of that name, and what the arm says over it."""
    name, own = (
        (said, {}) if isinstance(said, str) else (said["stage"], {k: v for k, v in said.items() if k != "stage"})
    )
    table = merge(config.stages[name], own)
    preset, share = table.pop("preset", None), table.pop("share", None)
    if not isinstance(preset, str):
        raise ConfigError(f"stages.{name}: say with `preset` which preset or TOML file it begins from")
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1 and config.budget_tokens):
        raise ConfigError(
            f"arm {arm!r}, stage {name!r}: `share` is a part of budget_tokens, above 0 and at most 1, not {share!r}"
        )
    overrides = (*flat(table), f"seed={seed}")
    given = {"steps": list(config.steps), "tasks": config.tasks, "model": config.student}
    settings = build(TrainConfig, apply_overrides(read_toml(preset), overrides) | given, f"arm {arm!r}, stage {name!r}")
    return PlannedStage(name, preset, overrides, share, settings)


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A nested table as `a.b=value`, each value as TOML has it; a `type` comes before what belongs to it."""
    for key, value in sorted(table.items(), key=lambda item: item[0] != "type"):
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}={_toml(value)}"


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
