"""Counts and values → intervals and tests. Pure functions; the same numbers and seed give the same result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swe_srl.schema import Mean, Proportion, StepAgreement
from swe_srl.summaries import Quantiles, ToolAgreement

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""

NUM_RESAMPLES = 10_000

MAX_FLIPPED = 16
"""Differences up to which all assignments of signs are looked at."""


class Difference(NamedTuple):
    """A mean paired difference, second minus first, with its 95 % bootstrap interval."""

    value: float
    n: int
    low: float
    high: float


def wilson(k: int, n: int) -> Proportion:
    """The share k of n with its 95 % Wilson score interval (Wilson 1927), which stays in [0, 1] and is not empty at 0 or n.

    Of nothing, n = 0, nothing is known: the interval is [0, 1].
    """
    if not 0 <= k <= n:
        raise ValueError(f"k = {k} is not between 0 and n = {n}")
    low, high = _score_interval(k, n, n)
    return Proportion(k=k, n=n, low=low, high=high)


def wilson_of_groups(outcomes: Mapping[str, tuple[int, int]]) -> Proportion:
    """The share of all successes, group → (k, n), with a Wilson interval that allows for groups whose outcomes are alike.

    The attempts at one task, of several seeds too, are no independent draws. n is divided by the design effect (Rao and
    Scott 1992): the variance of the share over groups by that of as many independent outcomes. It is 1 where each group has
    one outcome, and c where groups of c are alike throughout; below 1 it counts as 1. Where nothing or everything
    succeeded, no variance is seen, and the groups are what is counted.
    """
    k, n = sum(pair[0] for pair in outcomes.values()), sum(pair[1] for pair in outcomes.values())
    if any(not 0 <= one <= of for one, of in outcomes.values()):
        raise ValueError(f"more successes than outcomes in a group: {dict(outcomes)}")
    if n == 0:
        return wilson(0, 0)
    share = k / n
    if k in (0, n):
        effective = float(sum(of > 0 for _, of in outcomes.values()))
    else:
        variance = math.fsum((one - of * share) ** 2 for one, of in outcomes.values()) / n**2
        effective = n / max(1.0, variance / (share * (1 - share) / n))
    low, high = _score_interval(k, n, effective)
    return Proportion(k=k, n=n, low=low, high=high)


def _score_interval(k: int, n: int, effective: float) -> tuple[float, float]:
    """Wilson's interval around k / n, as if it came of `effective` independent draws."""
    if n == 0:
        return 0.0, 1.0
    z2 = Z_95 * Z_95
    share = k / n
    centre = (share + z2 / (2 * effective)) / (1 + z2 / effective)
    half = Z_95 * math.sqrt(share * (1 - share) / effective + z2 / (4 * effective**2)) / (1 + z2 / effective)
    # at the ends the interval touches 0 and 1; in floating point it misses them by a rounding error
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n attempts, drawn without putting back, hold at least one of the c that succeeded.

    1 - C(n - c, k) / C(n, k): the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374, equation 1).
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} successes among n = {n} attempts: k is between 1 and n, c between 0 and n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_at(outcomes: Mapping[str, tuple[int, int]], k: int, *, seed: int = 0) -> Mean:
    """The mean of pass@k over tasks, task → (successes, attempts), with its 95 % bootstrap interval over tasks.

    Tasks with fewer than k attempts say nothing of it and are left out: `n` counts the others.
    """
    return bootstrap_mean([pass_at_k(n, c, k) for c, n in outcomes.values() if n >= k], seed=seed)


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """How values are spread, interpolated between neighbours; None where there are none."""
    import numpy as np

    if not values:
        return None
    found = np.quantile(np.array(values, dtype=np.float64), (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)).tolist()
    names = ("min", "p5", "p25", "p50", "p75", "p95", "max")
    return Quantiles(n=len(values), **dict(zip(names, found, strict=True)))


def bootstrap_mean(values: Sequence[float], *, groups: Sequence[str] = (), seed: int = 0) -> Mean:
    """The mean of `values` with its 95 % percentile bootstrap interval (Efron 1979), 10,000 resamples.

    Where `groups` names the group of each value, whole groups are resampled: values of one group (steps of one
    trajectory) are not independent, and an interval that ignores it is too narrow. `n` counts the values.
    """
    if not values:
        return Mean(value=0.0, n=0, low=0.0, high=0.0)
    low, high = _interval(values, groups, seed)
    return Mean(value=math.fsum(values) / len(values), n=len(values), low=low, high=high)


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], *, groups: Mapping[str, str] | None = None, seed: int = 0
) -> Difference:
    """Mean of second minus first over the items that both have, with its 95 % bootstrap interval over items (or groups)."""
    common = sorted(first.keys() & second.keys())
    differences = [second[item] - first[item] for item in common]
    if not differences:
        return Difference(0.0, 0, 0.0, 0.0)
    low, high = _interval(differences, [groups[item] for item in common] if groups else (), seed)
    return Difference(math.fsum(differences) / len(differences), len(differences), low, high)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test (1947): can two models that resolve different tasks be equally good?

    `only_first` counts the items that only the first one got right, `only_second` those that only the second did.
    """
    n = only_first + only_second
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    # integers until the last division: 0.5 ** n is 0.0 from n = 1075 on
    return min(1.0, float(2 * tail / 2**n))


def sign_flip_test(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p of the paired permutation test (Fisher 1935): could each difference as well have been its opposite?

    The share of all assignments of signs whose sum is at least as far from zero as the one seen; beyond 2 ** 16 of them, of
    10,000 drawn ones, the seen one counted in. One difference for each task, as its attempts and seeds are no independent
    pairs; of differences that are all 1, 0 or -1 it is McNemar's exact test.
    """
    import numpy as np

    values = np.array([value for value in differences if value != 0])
    if len(values) <= MAX_FLIPPED:
        flips = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1) * 2 - 1
        counted = 0
    else:
        flips = np.random.default_rng(seed).choice((-1, 1), size=(NUM_RESAMPLES, len(values)))
        counted = 1
    seen = abs(values.sum())
    # sums of the same numbers in another order differ by rounding
    as_far = int((abs(flips @ values) >= seen - 1e-9 * abs(values).sum()).sum())
    return (as_far + counted) / (len(flips) + counted)


def exact_rate(rows: Sequence[StepAgreement]) -> Mean | None:
    """The mean share of a step's samples that are the teacher's action, its interval over tasks; None where rows do not tell."""
    told = [row for row in rows if row.num_exact is not None]
    shares = [(row.num_exact or 0) / row.num_samples for row in told]
    return bootstrap_mean(shares, groups=[row.task_id for row in told]) if told else None


def constant_mean(rows: Sequence[StepAgreement]) -> Mean | None:
    """What one action at every step earns, its interval over tasks; None where rows do not tell."""
    told = [(row.task_id, row.constant) for row in rows if row.constant is not None]
    return bootstrap_mean([value for _, value in told], groups=[task for task, _ in told]) if told else None


def agreement_by_tool(rows: Sequence[StepAgreement]) -> tuple[ToolAgreement, ...]:
    """Agreement on the steps of each tool of the teacher's."""
    found = []
    for tool in sorted({row.tool for row in rows}):
        chosen = [row for row in rows if row.tool == tool]
        num_samples = sum(row.num_samples for row in chosen)
        found.append(
            ToolAgreement(
                tool=tool,
                num_steps=len(chosen),
                similarity=bootstrap_mean([row.similarity for row in chosen], groups=[row.task_id for row in chosen]),
                exact=exact_rate(chosen),
                well_formed=wilson(sum(row.num_well_formed for row in chosen), num_samples),
                same_tool=wilson(sum(row.num_same_tool for row in chosen), num_samples),
            )
        )
    return tuple(found)


def _interval(values: Sequence[float], groups: Sequence[str], seed: int) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of the resampled mean."""
    import numpy as np

    names = list(groups) if groups else [str(index) for index in range(len(values))]
    totals: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        totals.setdefault(name, []).append(value)
    sums = np.array([math.fsum(group) for group in totals.values()])
    sizes = np.array([len(group) for group in totals.values()], dtype=np.float64)
    random = np.random.default_rng(seed)
    means = np.empty(NUM_RESAMPLES)
    # in blocks: 10,000 resamples of 134,000 steps at once would take 10 GB
    block = max(1, 2_000_000 // len(sums))
    for start in range(0, NUM_RESAMPLES, block):
        end = min(start + block, NUM_RESAMPLES)
        drawn = random.integers(0, len(sums), size=(end - start, len(sums)))
        means[start:end] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
