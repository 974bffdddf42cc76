"""What each model did → Report: every denominator, 95 % intervals, and paired differences between neighbours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import get_args

from swe_srl.reporting.collect import Collected
from swe_srl.rewards.choose import chooser
from swe_srl.schema import Mean, Prediction, Proportion, StepAgreement, Verdict, VerdictStatus
from swe_srl.statistics import (
    agreement_by_tool,
    bootstrap_mean,
    constant_mean,
    exact_rate,
    mcnemar_exact,
    paired_difference,
    pass_at,
    quantiles,
    sign_flip_test,
    wilson,
    wilson_of_groups,
)
from swe_srl.summaries import Cells, Quantiles, Report, RunSummary

STATUSES: tuple[str, ...] = get_args(VerdictStatus)

Pair = dict[str, float | str]


def summarise(
    entries: Sequence[Collected],
    *,
    title: str = "swe-srl report",
    best_of: Sequence[str] = (),
    training: Sequence[Cells] = (),
    replays: Sequence[Cells] = (),
    teaching: Sequence[Cells] = (),
) -> Report:
    """The numbers of each entry, and the differences between each entry and the one before it; beside them what other runs came to.

    `best_of` names ways to choose one of several attempts at a task, see rewards/choose.py. Raises ConfigError for one
    that does not exist.
    """
    paired = [row for first, second in pairwise(entries) for row in _differences(first, second)]
    return Report(
        title=title,
        runs=tuple(_summary(entry, best_of) for entry in entries),
        paired=tuple(paired),
        training=tuple(training),
        replays=tuple(replays),
        teaching=tuple(teaching),
    )


def _summary(entry: Collected, best_of: Sequence[str]) -> RunSummary:
    counts = _counts(entry)
    graded, outcomes = counts["graded"], _outcomes(entry.verdicts)
    not_empty = graded - counts["empty_patch"]
    acted = [item for item in entry.predictions if not item.infra_failure]
    num_turns = sum(item.num_turns for item in acted)
    rows = entry.agreement
    return RunSummary(
        model=entry.label,
        resolved=wilson_of_groups(outcomes),
        counts=counts,
        pass_at=_pass_at(outcomes),
        best_of={name: _best_of(entry, name) for name in best_of} if graded else {},
        applied=_share(not_empty - counts["patch_failed"], not_empty),
        empty=_share(counts["empty_patch"], graded),
        tampered=_share(counts["tampered"], graded),
        infra=_share(counts["infra_failure"], counts["submitted"]),
        edits_applied=_share(sum(item.num_edits_applied for item in acted), sum(item.num_edits for item in acted)),
        exit_statuses=dict(sorted(Counter(item.exit_status for item in acted if item.exit_status).items())),
        well_formed_turns=_share(num_turns - sum(item.num_malformed for item in acted), num_turns),
        # steps of one task resemble one another: whole tasks are resampled
        step_similarity=bootstrap_mean([row.similarity for row in rows], groups=[row.task_id for row in rows])
        if rows
        else None,
        step_constant=constant_mean(rows),
        step_exact=exact_rate(rows),
        step_well_formed=_share(sum(row.num_well_formed for row in rows), sum(row.num_samples for row in rows)),
        tools=agreement_by_tool(rows),
        mean_turns=_mean([item.num_turns for item in acted]),
        mean_completion_tokens=_mean([item.usage.completion_tokens for item in acted]),
        turns=_spread([item.num_turns for item in acted if item.num_turns]),
        tokens=_spread([item.usage.completion_tokens for item in acted if item.num_turns]),
        seconds=_spread([item.duration_s for item in acted if item.num_turns]),
        answer_tokens=_spread([length for item in acted for length in item.answer_tokens]),
        step_tokens=_spread([length for row in rows for length in row.answer_tokens]),
    )


def _share(k: int, n: int) -> Proportion | None:
    return wilson(k, n) if n else None


def _spread(values: Sequence[float]) -> Quantiles | None:
    return quantiles([float(value) for value in values])


def _outcomes(verdicts: Sequence[Verdict]) -> dict[str, tuple[int, int]]:
    """Task → (resolved, graded) attempts; failures of the apparatus are no attempts."""
    by_task: dict[str, list[bool]] = {}
    for item in verdicts:
        if item.status != "infra_failure":
            by_task.setdefault(item.task_id, []).append(item.resolved)
    return {task_id: (sum(resolved), len(resolved)) for task_id, resolved in by_task.items()}


def _pass_at(outcomes: Mapping[str, tuple[int, int]]) -> dict[int, Mean]:
    """Pass@k for each k that every graded task has attempts for."""
    most = min((attempts for _, attempts in outcomes.values()), default=0)
    return {k: pass_at(outcomes, k) for k in range(1, most + 1)} if most > 1 else {}


def _best_of(entry: Collected, name: str) -> Proportion:
    """Tasks that are resolved by the attempt which is chosen by the patches alone, of the tasks with a graded attempt."""
    choose = chooser(name)
    verdicts = {(item.task_id, item.attempt): item for item in entry.verdicts if item.status != "infra_failure"}
    of_task: dict[str, list[Prediction]] = {}
    for item in sorted(entry.predictions, key=lambda item: item.attempt):
        if (item.task_id, item.attempt) in verdicts:
            of_task.setdefault(item.task_id, []).append(item)
    chosen = [items[choose([item.patch for item in items])] for items in of_task.values()]
    return wilson(sum(verdicts[item.task_id, item.attempt].resolved for item in chosen), len(chosen))


def _counts(entry: Collected) -> dict[str, int]:
    """Every denominator. `graded` leaves out failures of the apparatus, which are nobody's failure, and are shown."""
    by_status: Counter[str] = Counter(verdict.status for verdict in entry.verdicts)
    predicted = {(item.task_id, item.attempt) for item in entry.predictions}
    judged = {(item.task_id, item.attempt) for item in entry.verdicts}
    # a prediction that the apparatus prevented, and that no verdict mentions, is still counted
    lost = sum(1 for item in entry.predictions if item.infra_failure and (item.task_id, item.attempt) not in judged)
    submitted = len(predicted | judged)
    tried = Counter(task_id for task_id, _ in predicted | judged)
    return {
        "tasks": max(entry.num_tasks or 0, len(tried)),
        "attempts": max(tried.values(), default=0),
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
        row: Pair = {**names, "measure": "resolved", **paired_difference(before, after)._asdict()}
        row |= {"only_first": only_first, "only_second": only_second}
        if first.num_attempts == second.num_attempts == 1:
            row["p_mcnemar"] = mcnemar_exact(only_first, only_second)
        else:
            # McNemar's test is of one yes or no a task
            row["p_sign_flip"] = sign_flip_test([after[task] - before[task] for task in sorted(common)])
        pairs.append(row)
    for measure in ("step_similarity", "step_exact", "step_well_formed"):
        earlier, later = _by_step(first.agreement, measure), _by_step(second.agreement, measure)
        if earlier.keys() & later.keys():
            groups = {row.step_id: row.task_id for row in first.agreement}
            pairs.append({**names, "measure": measure, **paired_difference(earlier, later, groups=groups)._asdict()})
    turns = [_turns_by_task(entry.predictions) for entry in (first, second)]
    if turns[0].keys() & turns[1].keys():
        pairs.append({**names, "measure": "turns", **paired_difference(*turns)._asdict()})
    return pairs


def _resolved_by_task(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Task → the share of its attempts that resolve it."""
    return {task_id: resolved / graded for task_id, (resolved, graded) in _outcomes(verdicts).items()}


def _turns_by_task(predictions: Sequence[Prediction]) -> dict[str, float]:
    return _means(
        (item.task_id, float(item.num_turns)) for item in predictions if not item.infra_failure and item.num_turns
    )


def _by_step(rows: Sequence[StepAgreement], measure: str) -> dict[str, float]:
    if measure == "step_similarity":
        return _means((row.step_id, row.similarity) for row in rows)
    if measure == "step_exact":
        return _means((row.step_id, row.num_exact / row.num_samples) for row in rows if row.num_exact is not None)
    return _means((row.step_id, row.num_well_formed / row.num_samples) for row in rows)


def _means(items: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Name → the mean of its values: one for each attempt, or for each seed."""
    values: dict[str, list[float]] = {}
    for name, value in items:
        values.setdefault(name, []).append(value)
    return {name: _mean(found) for name, found in values.items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
