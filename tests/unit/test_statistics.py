"""Intervals and tests, against published values and plain properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.statistics import bootstrap_mean, mcnemar_exact, paired_difference, wilson


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
