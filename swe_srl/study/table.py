"""What cells measured → one table: arms with seeds pooled, and paired differences between them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from swe_srl.reporting.collect import collect
from swe_srl.schema import Mean, Proportion, Record, StepAgreement, Verdict
from swe_srl.statistics import bootstrap_mean, paired_difference, sign_flip_test, wilson_of_groups
from swe_srl.study.config import StudyConfig
from swe_srl.study.measures import SIMILARITY, Measures
from swe_srl.study.run import CellResult, Missing


class ArmSummary(Record):
    """One arm, its seeds pooled."""

    arm: str
    seeds: tuple[int, ...]
    similarity: Mean
    """To the teacher, over the steps of all seeds; the interval resamples whole tasks, with all their steps and seeds."""
    of_seeds: tuple[float, ...]
    """The mean of each seed, in order."""
    others: dict[str, Mean] = Field(default_factory=dict)
    """Measure → its mean over the same steps, for those that all of the arm's cells tell."""
    well_formed: Proportion
    """Of the answers at those steps."""
    resolved: Proportion | None
    """Of the attempts at tasks that were graded, over all seeds; None where none was to be solved."""
    resolved_of_seeds: tuple[float, ...]
    """The share of each seed that was graded, in order."""
    trained_tokens: float
    """Of a cell, by the mean over seeds; what it shares with other arms included."""
    sampled_tokens: float
    answer_tokens: float
    """Tokens of an answer at a held-out step."""
    longer: float | None
    """By what share its answers are longer than the untrained student's; None where that one is no arm."""
    notes: tuple[str, ...] = ()


class Comparison(Record):
    """Second minus first, paired by step or task within each seed."""

    first: str
    second: str
    measure: str
    value: float
    low: float
    high: float
    n: int
    """Pairs."""
    p: float
    """Of the exact test that flips the signs of tasks; McNemar's, where each task is one pair of outcomes."""


class StudyTable(Record):
    """A study in numbers."""

    title: str
    num_seeds: int
    budget_tokens: int | None
    solved: str = ""
    """Which tasks were to be solved; empty where none was."""
    constant: dict[str, float] = Field(default_factory=dict)
    """Measure → what one action at every step earns, the best of the teacher's: what a model gets that looks at nothing."""
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    missing: tuple[Missing, ...] = ()


class Measured(NamedTuple):
    """A cell's result, with what was measured of its model."""

    result: CellResult
    steps: Mapping[str, StepAgreement]
    """By `<seed>/<step id>`: what is paired between arms."""
    others: Mapping[str, Mapping[str, float]]
    """Of the same: measure → value."""
    verdicts: Mapping[str, Verdict]
    """By `<seed>/<attempt>/<task id>`, without failures of the apparatus."""


def read_measured(results: Sequence[CellResult], out: Path, measures: Measures) -> list[Measured]:
    """The cells with their measurements."""
    found = []
    for result in results:
        (entry,) = collect([out / result.measured])
        steps = {f"{result.seed}/{row.step_id}": row for row in entry.agreement}
        graded = [item for item in entry.verdicts if item.status != "infra_failure"]
        others = {key: measures.of(row) for key, row in steps.items()}
        verdicts = {f"{result.seed}/{item.attempt}/{item.task_id}": item for item in graded}
        found.append(Measured(result, steps, others, verdicts))
    return found


def tabulate(
    config: StudyConfig,
    cells: Sequence[Measured],
    missing: Sequence[Missing] = (),
    *,
    constant: Mapping[str, float] | None = None,
    title: str = "swe-srl study",
) -> StudyTable:
    """All numbers of a study. Arms without a finished cell are left out of it. `constant`: see StudyTable."""
    of_arm = {arm: [cell for cell in cells if cell.result.arm == arm] for arm in config.arms}
    of_arm = {arm: found for arm, found in of_arm.items() if found}
    untrained = next((arm for arm, stages in config.arms.items() if not stages and arm in of_arm), None)
    base = _answer_tokens(of_arm[untrained]) if untrained else None
    said = [(first, second) for second, first in config.controls.items()]
    pairs = [
        (config.control, arm) for arm in config.arms if arm != config.control and (arm, config.control) not in said
    ]
    pairs += [pair for pair in said if pair not in pairs]
    return StudyTable(
        title=title,
        num_seeds=len(config.seeds),
        budget_tokens=config.budget_tokens,
        solved=_solved(config),
        constant=dict(constant or {}),
        arms=tuple(_summary(arm, found, base) for arm, found in of_arm.items()),
        comparisons=tuple(
            comparison
            for first, second in pairs
            if first in of_arm and second in of_arm
            for comparison in compare(first, of_arm[first], second, of_arm[second])
        ),
        missing=tuple(missing),
    )


def _solved(config: StudyConfig) -> str:
    """What `resolved` counts."""
    if config.solve is None:
        return ""
    often = "once" if config.solve.attempts == 1 else f"{config.solve.attempts} times"
    return f"up to {config.solve.tasks} {config.solve.of} tasks, each {often} with each seed"


def _summary(arm: str, cells: Sequence[Measured], base_tokens: float | None) -> ArmSummary:
    rows = [row for cell in cells for row in cell.steps.values()]
    verdicts = [verdict for cell in cells for verdict in cell.verdicts.values()]
    tokens = _answer_tokens(cells)
    stages = [cell.result.stages for cell in cells]
    return ArmSummary(
        arm=arm,
        seeds=tuple(cell.result.seed for cell in cells),
        similarity=bootstrap_mean([row.similarity for row in rows], groups=[row.task_id for row in rows]),
        others=_others(cells),
        of_seeds=tuple(statistics.fmean(row.similarity for row in cell.steps.values()) for cell in cells),
        well_formed=wilson_of_groups(_counts((row.task_id, row.num_well_formed, row.num_samples) for row in rows)),
        resolved=wilson_of_groups(_counts((item.task_id, item.resolved, 1) for item in verdicts)) if verdicts else None,
        resolved_of_seeds=tuple(
            statistics.fmean(item.resolved for item in cell.verdicts.values()) for cell in cells if cell.verdicts
        ),
        trained_tokens=statistics.fmean(sum(stage.trained_tokens for stage in of_cell) for of_cell in stages),
        sampled_tokens=statistics.fmean(sum(stage.sampled_tokens for stage in of_cell) for of_cell in stages),
        answer_tokens=tokens,
        longer=tokens / base_tokens - 1 if base_tokens else None,
        notes=tuple(_notes(cells)),
    )


def _others(cells: Sequence[Measured]) -> dict[str, Mean]:
    """Measures that every row has; an interval over some of the steps would be of other steps than the similarity's."""
    rows = [(row.task_id, cell.others[key]) for cell in cells for key, row in cell.steps.items()]
    names = [name for name in rows[0][1] if all(name in values for _, values in rows)] if rows else []
    tasks = [task for task, _ in rows]
    return {name: bootstrap_mean([values[name] for _, values in rows], groups=tasks) for name in names}


def _counts(outcomes: Iterable[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Task → (successes, outcomes), of (task, successes, outcomes) in any order."""
    found: dict[str, tuple[int, int]] = {}
    for task, k, n in outcomes:
        before = found.get(task, (0, 0))
        found[task] = (before[0] + k, before[1] + n)
    return found


def _answer_tokens(cells: Sequence[Measured]) -> float:
    rows = [row for cell in cells for row in cell.steps.values()]
    return math.fsum(row.mean_tokens * row.num_samples for row in rows) / sum(row.num_samples for row in rows)


def _notes(cells: Sequence[Measured]) -> list[str]:
    """Stages that did not come to their end, seeds of which the same is to be said together."""
    seeds: dict[str, list[int]] = {}
    for cell in cells:
        for stage in cell.result.stages:
            if stage.outcome != "trained":
                said = f"{stage.name}, {stage.outcome} after {stage.num_updates} updates"
                seeds.setdefault(f"{said} ({stage.note})" if stage.note else said, []).append(cell.result.seed)
    return [f"seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}: {said}" for said, of in seeds.items()]


def compare(first: str, before: Sequence[Measured], second: str, after: Sequence[Measured]) -> list[Comparison]:
    """Second minus first over the seeds, steps and tasks that both were measured on."""
    old, new = _values(before), _values(after)
    return [
        _comparison(first, second, measure, old[measure], new[measure])
        for measure in old
        if old[measure].keys() & new[measure].keys()
    ]


def _values(cells: Sequence[Measured]) -> dict[str, dict[str, tuple[str, float]]]:
    """Measure → key of what is paired → (its task, its value)."""
    steps = {key: row for cell in cells for key, row in cell.steps.items()}
    verdicts = {key: item for cell in cells for key, item in cell.verdicts.items()}
    others = {key: values for cell in cells for key, values in cell.others.items()}
    names = dict.fromkeys(name for values in others.values() for name in values)
    return {
        SIMILARITY: {key: (row.task_id, row.similarity) for key, row in steps.items()},
        **{
            name: {key: (row.task_id, others[key][name]) for key, row in steps.items() if name in others[key]}
            for name in names
        },
        "well-formed answers": {
            key: (row.task_id, row.num_well_formed / row.num_samples) for key, row in steps.items()
        },
        "resolved attempts": {key: (item.task_id, float(item.resolved)) for key, item in verdicts.items()},
    }


def _comparison(
    first: str, second: str, measure: str, old: Mapping[str, tuple[str, float]], new: Mapping[str, tuple[str, float]]
) -> Comparison:
    """One line of the differences. Tasks are what is drawn and what is flipped, with all their steps, attempts and seeds."""
    tasks = {key: task for key, (task, _) in old.items()}
    earlier, later = ({key: value for key, (_, value) in rows.items()} for rows in (old, new))
    of_task: dict[str, float] = {}
    for key in sorted(earlier.keys() & later.keys()):
        of_task[tasks[key]] = of_task.get(tasks[key], 0.0) + later[key] - earlier[key]
    p = sign_flip_test(list(of_task.values()))
    difference = paired_difference(earlier, later, groups=tasks)
    return Comparison(first=first, second=second, measure=measure, p=p, **difference._asdict())
