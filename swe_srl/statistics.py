"""Counts and values → intervals and tests. Pure functions; the same numbers and seed give the same result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swe_srl.schema import Mean, Proportion

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""

NUM_RESAMPLES = 10_000


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
    if n == 0:
        return Proportion(k=0, n=0, low=0.0, high=1.0)
    z2 = Z_95 * Z_95
    share = k / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # at the ends the interval touches 0 and 1; in floating point it misses them by a rounding error
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Proportion(k=k, n=n, low=low, high=high)


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
