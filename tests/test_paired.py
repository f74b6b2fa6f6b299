"""Intervals cover what they say, and sentences say what the intervals allow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from collapse_lab.paired import Interval, differences, interval, sentence

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(VALUES)
def test_the_interval_is_that_of_the_one_sample_t_test(values):
    found = interval(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-6:
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-7, abs=1e-9)


@given(VALUES, st.floats(-10, 10), st.floats(0.1, 10))
def test_it_moves_and_stretches_with_the_values(values, shift, factor):
    before, after = interval(values), interval([factor * value + shift for value in values])
    for name in ("mean", "low", "high"):
        assert getattr(after, name) == pytest.approx(factor * getattr(before, name) + shift, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_it_covers_the_mean_of_normal_values_as_often_as_it_says(n):
    draws = np.random.default_rng(0).normal(1.0, 2.0, size=(4000, n))
    found = [interval(list(row)) for row in draws]
    covered = np.mean([each.low <= 1.0 <= each.high for each in found])
    # Four standard errors of a share of 0.95 among 4,000.
    assert covered == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


def test_one_value_has_no_interval_and_none_is_refused():
    assert interval([2.5]) == Interval(2.5, None, None, 1)
    with pytest.raises(ValueError, match="at least one, all finite"):
        interval([])
    with pytest.raises(ValueError, match="nan"):
        interval([1.0, float("nan")])


def test_differences_are_of_the_seeds_that_both_have():
    assert differences({3: 1.0, 0: 5.0}, {0: 1.0, 7: 2.0, 3: 4.0}) == {0: 4.0, 3: -3.0}
    assert differences({0: 1.0}, {1: 1.0}) == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "No seed gave linear_gain of both 'a' and 'b': nothing can be said."),
        ([0.02], "One pair of seeds, +2 points: no interval, nothing can be said of another seed."),
        ([0.02, 0.02], "All 2 differences are +2 points: without spread there is no interval."),
        (
            [0.01, 0.02, 0.03],
            "With n = 3 the data allow a mean difference between -0.484 and +4.48 points; they do not decide its sign.",
        ),
        (
            [0.04, 0.05, 0.06],
            "With n = 3 the data allow a mean difference between +2.52 and +7.48 points: "
            "'a' is above on average, in these settings.",
        ),
        (
            [-0.04, -0.05, -0.06],
            "With n = 3 the data allow a mean difference between -7.48 and -2.52 points: "
            "'a' is below on average, in these settings.",
        ),
    ],
)
def test_the_sentence_says_what_the_interval_allows(values, expected):
    found = interval(values) if values else None
    assert sentence("linear_gain", "a", "b", found, 100.0, " points") == expected


@given(VALUES)
def test_a_sentence_names_a_side_only_where_the_interval_excludes_zero(values):
    found = interval(values)
    text = sentence("rankme", "a", "b", found)
    decided = found.low > 0 or found.high < 0
    assert ("on average" in text) == (decided and found.low != found.high)
