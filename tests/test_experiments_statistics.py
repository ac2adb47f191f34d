"""Intervals against SciPy's own closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fe.experiments.statistics import mean_interval, paired_difference, proportion_interval
from scipy import stats

VALUES = [21.3, 19.8, 24.1, 20.0, 22.7, 18.9, 23.3]


def test_a_mean_has_students_interval() -> None:
    found = mean_interval(VALUES)
    expected = stats.t.interval(0.95, len(VALUES) - 1, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert found.mean == pytest.approx(np.mean(VALUES))
    assert (found.count, found.missing) == (7, 0)
    assert found.half == pytest.approx((expected[1] - expected[0]) / 2)


@pytest.mark.parametrize(("successes", "trials"), [(0, 24), (24, 24), (17, 24), (1, 3), (1, 1)])
def test_a_proportion_has_wilsons_interval(successes: int, trials: int) -> None:
    found = proportion_interval([1.0] * successes + [0.0] * (trials - successes))
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.mean == pytest.approx(successes / trials)


def test_a_share_of_a_few_has_an_interval_that_is_wider_than_students() -> None:
    shares = [0.8, 1.0, 0.6, 1.0, 0.8, 0.8, 1.0, 0.4]
    wilson, student = proportion_interval(shares), mean_interval(shares)
    assert wilson.mean == student.mean
    assert wilson.half > student.half


def test_nan_is_left_out_and_counted() -> None:
    for interval in (mean_interval, proportion_interval):
        found = interval([1.0, math.nan, 0.0, 1.0, math.nan])
        assert (found.count, found.missing) == (3, 2)
        assert found == replace(interval([1.0, 0.0, 1.0]), missing=2)


def test_too_few_values_have_no_interval() -> None:
    assert math.isnan(mean_interval([]).mean)
    assert math.isnan(proportion_interval([math.nan]).mean)
    one = mean_interval([2.0])
    assert (one.mean, one.count) == (2.0, 1)
    assert math.isnan(one.low)
    assert not one.excludes_zero


def test_paired_differences_are_those_of_a_paired_test() -> None:
    a = {f"case {i}": value for i, value in enumerate(VALUES)}
    b = {case: value + 0.5 + 0.1 * i for i, (case, value) in enumerate(a.items())}
    found = paired_difference(b, a)
    expected = stats.ttest_rel(list(b.values()), list(a.values())).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.excludes_zero
    assert not mean_interval([value - 21 for value in VALUES]).excludes_zero


def test_only_cases_that_both_have_are_paired() -> None:
    found = paired_difference({"a": 2.0, "b": 5.0, "c": math.nan}, {"b": 3.0, "a": 1.0, "c": 1.0, "d": 9.0})
    assert found.mean == pytest.approx(1.5)
    assert (found.count, found.missing) == (2, 1)
