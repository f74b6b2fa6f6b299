"""Schedules against the sets they are defined by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_lab.monitors.schedules import any_of, by_epoch, every, log_spaced


@given(st.integers(1, 120))
def test_log_spaced_steps_are_the_rounded_powers(per_decade):
    expected = {round(10 ** (i / per_decade)) for i in range(4 * per_decade + 1)}
    assert {step for step in range(1, 10_001) if log_spaced(per_decade)(step)} == expected


@given(st.integers(1, 50), st.integers(0, 60))
def test_first_then_every(n, first):
    expected = set(range(1, first + 1)) | set(range(n, 201, n))
    assert {step for step in range(1, 201) if every(n, first=first)(step)} == expected


@given(st.integers(1, 30), st.integers(1, 5))
def test_by_epoch_reads_the_last_step_of_each_nth_epoch(steps, n):
    ends = {step for step in range(1, 301) if by_epoch(steps, n)(step)}
    assert ends == {steps * epoch for epoch in range(n, 301, n) if steps * epoch <= 300}


def test_schedules_join():
    joined = any_of(every(4), by_epoch(6))
    assert [step for step in range(1, 13) if joined(step)] == [4, 6, 8, 12]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: every(0), "every: found 0, expected at least 1"),
        (lambda: every(5, first=-1), "first: found -1"),
        (lambda: log_spaced(0), "per_decade: found 0"),
        (lambda: by_epoch(0), "steps_per_epoch: found 0"),
        (lambda: by_epoch(3, 0), "n: found 0"),
    ],
)
def test_what_never_comes_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
