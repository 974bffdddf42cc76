"""Plan → what each cell will take, before anything is run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from swe_srl.dialogue import format_completion
from swe_srl.schema import Task
from swe_srl.study.plan import Cell, Plan, PlannedStage
from swe_srl.training.chain import limit
from swe_srl.training.config import RlvrConfig, SrlConfig, TrainConfig
from swe_srl.training.data import Example
from swe_srl.training.inputs import training_inputs

CHARS_PER_TOKEN = 3.0
"""Of shell commands, code and test output, in the tokenizers of small models."""

MAX_RENDERED = 50
"""Examples from which the length of all is told."""


class StageCost(NamedTuple):
    """What one stage takes."""

    name: str
    num_updates: int
    tokens: int
    """About, as plain sequences and without what dynamic sampling throws away; at most what the budget leaves."""
    is_shared: bool
    """An earlier cell pays for it."""


class Costs(NamedTuple):
    """What a study takes."""

    of_cell: list[tuple[Cell, list[StageCost]]]
    num_trainings: int
    num_measurements: int


def costs(plan: Plan) -> Costs:
    """Updates and tokens of every cell. Reads the training data; raises UserError where there is none."""
    known: dict[str, tuple[int, int]] = {}
    seen: set[str] = set()
    found = []
    for cell in plan.cells:
        stages: list[StageCost] = []
        for model in cell.model.lineage()[1:]:
            assert model.stage is not None
            told = model.stage.settings.model_dump_json(exclude={"seed"})
            if told not in known:
                known[told] = _of_stage(model.stage)
            num_updates, tokens = known[told]
            already = sum(stage.tokens for stage in stages)
            most = limit(plan.config.budget_tokens, model.stage.share, model.stage.settings.budget_tokens, already)
            tokens = tokens if most is None else min(tokens, most)
            stages.append(StageCost(model.stage.name, num_updates, tokens, model.folder in seen))
            seen.add(model.folder)
        found.append((cell, stages))
    return Costs(found, len(seen), len(plan.measured()))


def _of_stage(stage: PlannedStage) -> tuple[int, int]:
    """(updates, tokens)"""
    items = training_inputs(stage.settings).items
    num_updates = stage.settings.num_updates(len(items))
    return num_updates, num_updates * _tokens_of_update(stage.settings, items)


def _tokens_of_update(settings: TrainConfig, items: Sequence[Example] | Sequence[Task]) -> int:
    """About how many tokens go through the model for one update, trained and sampled."""
    algorithm = settings.algorithm
    if isinstance(algorithm, RlvrConfig):
        turns = algorithm.limits.max_turns * (
            settings.max_new_tokens + settings.context.max_observation_chars / CHARS_PER_TOKEN
        )
        return round(2 * algorithm.batch_size * algorithm.group_size * turns)
    examples = [item for item in items if isinstance(item, Example)][:: max(1, len(items) // MAX_RENDERED)]
    prompt = statistics.fmean(
        min(settings.max_prompt_tokens, sum(len(m["content"]) for m in e.messages(settings.context)) / CHARS_PER_TOKEN)
        for e in examples
    )
    answer = statistics.fmean(
        min(settings.max_new_tokens, len(format_completion(e.step.thought, e.step.command)) / CHARS_PER_TOKEN)
        for e in examples
    )
    if isinstance(algorithm, SrlConfig):
        return round(2 * algorithm.batch_size * (prompt + algorithm.group_size * answer))
    return round(algorithm.batch_size * (prompt + answer))
