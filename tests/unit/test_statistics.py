"""Intervals and tests, against published values and plain properties."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.statistics import (
    Z_95,
    bootstrap_mean,
    mcnemar_exact,
    paired_difference,
    pass_at,
    pass_at_k,
    quantiles,
    sign_flip_test,
    wilson,
    wilson_of_groups,
)


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81 of 263
    share = wilson(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)


def test_wilson_touches_the_ends_and_no_more() -> None:
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0.0, 0.1611)  # same table: 0 of 20
    assert (wilson(5, 5).high, wilson(0, 0).low, wilson(0, 0).high) == (1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="k = 3"):
        wilson(3, 2)


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share(pair: tuple[int, int]) -> None:
    share = wilson(*pair)
    assert 0 <= share.low <= share.value + 1e-12
    assert share.value <= share.high <= 1


def test_a_bootstrap_is_the_same_twice_and_near_the_normal_interval() -> None:
    values = [(number * 7919 % 1000) / 1000 for number in range(400)]
    mean = bootstrap_mean(values)
    assert mean == bootstrap_mean(values)
    deviation = (sum((value - mean.value) ** 2 for value in values) / 400) ** 0.5
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * deviation / 20, rel=0.05)


def test_equal_values_within_a_group_do_not_make_the_interval_narrower() -> None:
    groups = [str(number) for number in range(10) for _ in range(20)]
    values = [float(int(group) % 2) for group in groups]
    alone, grouped = bootstrap_mean(values), bootstrap_mean(values, groups=groups)
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)


def test_nothing_has_a_mean_of_zero_over_zero_values() -> None:
    assert bootstrap_mean([]).n == 0
    assert paired_difference({"a": 1.0}, {"b": 1.0}).n == 0


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    first = {str(number): number / 50 for number in range(50)}
    second = {key: value + 0.02 for key, value in first.items()} | {"only in the second": 9.0}
    difference = paired_difference(first, second)
    assert difference.n == 50
    assert difference.value == pytest.approx(0.02)
    assert difference.low > 0
    assert bootstrap_mean(list(first.values())).high > bootstrap_mean(list(second.values())).low


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (2, 8, 0.109375), (0, 2000, 0.0)]
)
def test_mcnemar_is_the_binomial_tail(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar_exact(only_first, only_second) == pytest.approx(p, abs=1e-12)
    assert mcnemar_exact(only_second, only_first) == mcnemar_exact(only_first, only_second)


@pytest.mark.parametrize(
    ("n", "c", "k", "chance"),
    [
        (10, 3, 1, 0.3),
        (5, 2, 2, 0.7),
        (4, 1, 4, 1.0),
        (4, 0, 2, 0.0),
        (200, 1, 100, 0.5),
        (10, 3, 8, 1.0),
        (2000, 1000, 1000, 1.0),
    ],
)
def test_pass_at_k_is_one_minus_the_chance_of_only_failures(n: int, c: int, k: int, chance: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(chance, abs=1e-12)


def test_pass_at_k_is_the_product_that_its_authors_publish() -> None:
    # Chen et al. 2021, arXiv 2107.03374, figure 3: 1 - prod(1 - k / arange(n - c + 1, n + 1))
    for n, c, k in [(20, 7, 5), (100, 13, 10), (7, 3, 3)]:
        product = math.prod(1 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 0.0
        assert pass_at_k(n, c, k) == pytest.approx(1 - product, abs=1e-12)


@given(
    st.integers(1, 7).flatmap(lambda n: st.tuples(st.lists(st.booleans(), min_size=n, max_size=n), st.integers(1, n)))
)
def test_pass_at_k_is_the_mean_over_all_choices_of_k_attempts(case: tuple[list[bool], int]) -> None:
    outcomes, k = case
    choices = [any(chosen) for chosen in itertools.combinations(outcomes, k)]
    assert pass_at_k(len(outcomes), sum(outcomes), k) == pytest.approx(sum(choices) / len(choices), abs=1e-12)


def test_pass_at_k_refuses_what_cannot_be() -> None:
    for n, c, k in [(3, 4, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)]:
        with pytest.raises(ValueError, match=f"pass@{k}"):
            pass_at_k(n, c, k)


def test_pass_at_is_over_the_tasks_that_were_tried_often_enough() -> None:
    outcomes = {"a": (2, 4), "b": (0, 4), "c": (1, 1)}
    assert (pass_at(outcomes, 1).n, pass_at(outcomes, 1).value) == (3, pytest.approx(0.5))
    assert (pass_at(outcomes, 2).n, pass_at(outcomes, 2).value) == (2, pytest.approx((5 / 6) / 2))
    assert pass_at(outcomes, 2).low <= pass_at(outcomes, 2).value <= pass_at(outcomes, 2).high


def test_one_outcome_a_group_is_wilsons_interval() -> None:
    assert wilson_of_groups({str(number): (int(number < 81), 1) for number in range(263)}) == wilson(81, 263)
    assert wilson_of_groups({}) == wilson(0, 0)


def test_groups_that_are_alike_count_once_each() -> None:
    four = wilson_of_groups({str(number): (4 * int(number < 30), 4) for number in range(100)})
    one = wilson(30, 100)
    assert (four.k, four.n) == (120, 400)
    assert (four.low, four.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_groups_that_are_not_alike_narrow_the_interval_as_independent_outcomes_do() -> None:
    even = wilson_of_groups({str(number): (2, 4) for number in range(100)})
    assert (even.low, even.high) == (wilson(200, 400).low, wilson(200, 400).high)


def test_where_nothing_succeeds_the_groups_are_counted_and_not_their_attempts() -> None:
    none = wilson_of_groups({str(number): (0, 8) for number in range(20)})
    assert (none.k, none.n, none.low, none.high) == (0, 160, 0.0, pytest.approx(wilson(0, 20).high))
    with pytest.raises(ValueError, match="more successes"):
        wilson_of_groups({"a": (2, 1)})


def test_quantiles_of_a_known_case() -> None:
    # type 7 of Hyndman and Fan 1996, as numpy and R have it by default
    found = quantiles([float(number) for number in range(1, 11)])
    assert found is not None
    assert (found.n, found.min, found.p25, found.p50, found.p75, found.max) == (10, 1.0, 3.25, 5.5, 7.75, 10.0)
    assert (found.p5, found.p95) == (pytest.approx(1.45), pytest.approx(9.55))
    assert quantiles([]) is None


def test_wilson_is_statsmodels() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    for k, n in [(0, 7), (1, 9), (74, 500), (29, 500), (500, 500), (3, 11)]:
        low, high = proportion.proportion_confint(k, n, method="wilson")
        share = wilson(k, n)
        assert (share.low, share.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_mcnemar_is_statsmodels_and_scipys_binomial_test() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for only_first, only_second in [(0, 6), (2, 8), (30, 12), (5, 5), (1, 0), (121, 59)]:
        theirs = tables.mcnemar([[10, only_first], [only_second, 20]], exact=True).pvalue
        binomial = stats.binomtest(min(only_first, only_second), only_first + only_second).pvalue
        assert mcnemar_exact(only_first, only_second) == pytest.approx(theirs, abs=1e-12)
        assert mcnemar_exact(only_first, only_second) == pytest.approx(binomial, abs=1e-12)


def test_flipped_signs_are_mcnemar_where_each_task_is_one_pair() -> None:
    for only_first, only_second in [(0, 6), (2, 8), (5, 5), (1, 0), (9, 7), (0, 0)]:
        differences = [-1.0] * only_first + [1.0] * only_second + [0.0] * 20
        assert sign_flip_test(differences) == pytest.approx(mcnemar_exact(only_first, only_second), abs=1e-12)
    many = sign_flip_test([-1.0] * 30 + [1.0] * 12)
    assert many == pytest.approx(mcnemar_exact(30, 12), abs=0.003)
    assert sign_flip_test([1.0] * 500) == pytest.approx(1 / 10_001)


def test_flipped_signs_are_scipys_permutation_test() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for differences in [(0.5, 0.25), (0.3, -0.1, 0.2, 0.7, 0.05, -0.4), (0.1, 0.2, 0.3, -0.3, -0.2, 0.4, 0.9, 1.1)]:
        theirs = stats.permutation_test((list(differences),), sum, permutation_type="samples", n_resamples=2**9).pvalue
        assert sign_flip_test(differences) == pytest.approx(theirs, abs=1e-12)


def test_mcnemar_on_a_published_table() -> None:
    # Agresti, Categorical Data Analysis (2nd ed. 2002), table 10.1: of 1,600 asked twice 150 turned away and 86 turned to;
    # z = -4.17 there, which is p = 3.0e-5 by the normal approximation
    assert mcnemar_exact(150, 86) == pytest.approx(3.7e-5, rel=0.05)


def test_the_bootstrap_is_scipys_up_to_chance() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    values = [(number * 7919 % 1000) / 1000 for number in range(60)]
    second = [(value + (number % 7) / 10) % 1.3 for number, value in enumerate(values)]
    theirs = stats.bootstrap(
        (values,), lambda x, axis: x.mean(axis=axis), method="percentile", n_resamples=20_000, rng=1
    )
    ours = bootstrap_mean(values)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02 * width)
    paired = stats.bootstrap(
        (values, second),
        lambda x, y, axis: (y - x).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=1,
    )
    difference = paired_difference(dict(enumerate_names(values)), dict(enumerate_names(second)))
    width = difference.high - difference.low
    assert difference.low == pytest.approx(paired.confidence_interval.low, abs=0.02 * width)
    assert difference.high == pytest.approx(paired.confidence_interval.high, abs=0.02 * width)


def enumerate_names(values: list[float]) -> list[tuple[str, float]]:
    return [(str(number), value) for number, value in enumerate(values)]


def test_a_design_effect_is_that_of_statsmodels_cluster_robust_variance() -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    groups = {"a": (3, 4), "b": (0, 4), "c": (4, 4), "d": (1, 2), "e": (0, 3), "f": (2, 4)}
    outcomes = [(name, float(number < k)) for name, (k, n) in groups.items() for number in range(n)]
    names = {name: number for number, name in enumerate(groups)}
    fitted = api.OLS([value for _, value in outcomes], [1.0] * len(outcomes)).fit(
        cov_type="cluster", cov_kwds={"groups": [names[name] for name, _ in outcomes], "use_correction": False}
    )
    k, n = sum(pair[0] for pair in groups.values()), len(outcomes)
    variance, share = float(fitted.cov_params()[0][0]), k / n
    effective = share * (1 - share) / variance
    z2 = Z_95**2
    half = Z_95 * math.sqrt(share * (1 - share) / effective + z2 / (4 * effective**2)) / (1 + z2 / effective)
    found = wilson_of_groups(groups)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-9)
