"""What each model did → Report: every denominator, 95 % intervals, and paired differences between neighbours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from swe_srl.reporting.collect import Collected
from swe_srl.schema import Cells, Prediction, Report, RunSummary, StepAgreement, Verdict, VerdictStatus
from swe_srl.statistics import bootstrap_mean, mcnemar_exact, paired_difference, wilson

STATUSES: tuple[str, ...] = get_args(VerdictStatus)

Pair = dict[str, float | str]


def summarise(
    entries: Sequence[Collected],
    *,
    title: str = "swe-srl report",
    training: Sequence[Cells] = (),
    replays: Sequence[Cells] = (),
    teaching: Sequence[Cells] = (),
) -> Report:
    """The numbers of each entry, and the differences between each entry and the one before it; beside them what other runs came to."""
    paired = [row for first, second in pairwise(entries) for row in _differences(first, second)]
    return Report(
        title=title,
        runs=tuple(_summary(entry) for entry in entries),
        paired=tuple(paired),
        training=tuple(training),
        replays=tuple(replays),
        teaching=tuple(teaching),
    )


def _summary(entry: Collected) -> RunSummary:
    counts = _counts(entry)
    acted = [item for item in entry.predictions if not item.infra_failure]
    num_turns = sum(item.num_turns for item in acted)
    rows = entry.agreement
    return RunSummary(
        model=entry.label,
        resolved=wilson(counts["resolved"], counts["graded"]),
        counts=counts,
        well_formed_turns=wilson(num_turns - sum(item.num_malformed for item in acted), num_turns)
        if num_turns
        else None,
        # steps of one task resemble one another: whole tasks are resampled
        step_similarity=bootstrap_mean([row.similarity for row in rows], groups=[row.task_id for row in rows])
        if rows
        else None,
        step_well_formed=wilson(sum(row.num_well_formed for row in rows), sum(row.num_samples for row in rows))
        if rows
        else None,
        mean_turns=_mean([item.num_turns for item in acted]),
        mean_completion_tokens=_mean([item.usage.completion_tokens for item in acted]),
    )


def _counts(entry: Collected) -> dict[str, int]:
    """Every denominator. `graded` leaves out failures of the apparatus, which are nobody's failure, and are shown."""
    by_status: Counter[str] = Counter(verdict.status for verdict in entry.verdicts)
    predicted = {item.task_id for item in entry.predictions}
    judged = {item.task_id for item in entry.verdicts}
    # a prediction that the apparatus prevented, and that no verdict mentions, is still counted
    lost = sum(1 for item in entry.predictions if item.infra_failure and item.task_id not in judged)
    submitted = len(predicted | judged)
    return {
        "tasks": max(entry.num_tasks or 0, submitted),
        "submitted": submitted,
        "graded": len(entry.verdicts) - by_status["infra_failure"],
        "not_graded": submitted - len(entry.verdicts) - lost,
        **{status: by_status[status] for status in STATUSES if status != "infra_failure"},
        "infra_failure": by_status["infra_failure"] + lost,
        "turns": sum(item.num_turns for item in entry.predictions),
        "steps": len(entry.agreement),
    }


def _differences(first: Collected, second: Collected) -> list[Pair]:
    """Second minus first, over the items that both were measured on."""
    pairs: list[Pair] = []
    names: Pair = {"first": first.label, "second": second.label}
    before, after = _resolved_by_task(first.verdicts), _resolved_by_task(second.verdicts)
    common = before.keys() & after.keys()
    if common:
        only_first = sum(before[task] > after[task] for task in common)
        only_second = sum(before[task] < after[task] for task in common)
        pairs.append(
            {
                **names,
                "measure": "resolved",
                **paired_difference(before, after)._asdict(),
                "only_first": only_first,
                "only_second": only_second,
                "p_mcnemar": mcnemar_exact(only_first, only_second),
            }
        )
    for measure in ("step_similarity", "step_well_formed"):
        earlier, later = _by_step(first.agreement, measure), _by_step(second.agreement, measure)
        if earlier.keys() & later.keys():
            groups = {row.step_id: row.task_id for row in first.agreement}
            pairs.append({**names, "measure": measure, **paired_difference(earlier, later, groups=groups)._asdict()})
    turns = [_turns_by_task(entry.predictions) for entry in (first, second)]
    if turns[0].keys() & turns[1].keys():
        pairs.append({**names, "measure": "turns", **paired_difference(*turns)._asdict()})
    return pairs


def _resolved_by_task(verdicts: Sequence[Verdict]) -> dict[str, float]:
    return {item.task_id: float(item.resolved) for item in verdicts if item.status != "infra_failure"}


def _turns_by_task(predictions: Sequence[Prediction]) -> dict[str, float]:
    return {item.task_id: float(item.num_turns) for item in predictions if not item.infra_failure and item.num_turns}


def _by_step(rows: Sequence[StepAgreement], measure: str) -> dict[str, float]:
    if measure == "step_similarity":
        return {row.step_id: row.similarity for row in rows}
    return {row.step_id: row.num_well_formed / row.num_samples for row in rows}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
