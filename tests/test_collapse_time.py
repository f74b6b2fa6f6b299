"""The step of a collapse is found, odd readings are not taken for one, and the slope over momenta is the law's."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import config as configuration
from collapse_lab import data
from collapse_lab.collapse_time import collapse_step, collapse_time, fall_step, momentum_slope
from collapse_lab.config import build
from collapse_lab.errors import InputError
from collapse_lab.methods import method
from collapse_lab.presets import DATA
from collapse_lab.runs import Run
from collapse_lab.toy.memory import memory_rate, slow_rate
from collapse_lab.trainer import train

properties = settings(max_examples=25, deadline=None, derandomize=True)


def curve(*values: float) -> pd.Series:
    return pd.Series(values, index=range(5, 5 * len(values) + 5, 5), dtype=float)


@properties
@given(before=st.integers(3, 20), after=st.integers(3, 20), scale=st.floats(1e-6, 1e6), odd=st.integers(0, 2))
def test_a_fall_is_found_at_its_step_whatever_the_scale_and_one_odd_reading(before, after, scale, odd):
    values = np.r_[np.ones(before), np.full(after, 0.4)]
    assert fall_step(curve(*values * scale)) == 5 * (before + 1)
    values[odd] = 30
    assert fall_step(curve(*values * scale)) == 5 * (before + 1)


def test_what_comes_back_or_has_too_few_readings_or_is_no_number_is_no_fall():
    assert fall_step(curve(1, 1, 1, 0.1, 0.1, 1, 1)) is None
    assert fall_step(curve(1, 1, 1, 1, 0.1, 0.1)) is None
    assert fall_step(curve(1, 1, 1, np.nan, np.nan, np.nan, np.nan)) is None
    assert fall_step(curve(1, 1, 1, 0.51, 0.51, 0.51)) is None
    assert fall_step(curve(0.1, 0.1)) is None
    assert fall_step(curve(0, 0, 0, 0, 0, 0)) is None


def test_the_first_of_two_falls_counts_and_readings_of_the_warm_up_do_not():
    twice = curve(1, 1, 1, 0.1, 0.1, 0.1, 1, 1, 0.1, 0.1, 0.1)
    assert fall_step(twice) == 20
    rising = curve(0.1, 0.1, 0.1, 1, 1, 1, 0.4, 0.4, 0.4)
    assert fall_step(rising) is None
    assert fall_step(rising, after=15) == 35


def test_runs_with_and_without_stop_gradient_differ_and_the_warm_up_is_read_from_the_configuration(tmp_path):
    found = {}
    for name in ("simsiam", "no-stop-gradient"):
        config = build(
            name,
            DATA["digits"],
            method(name).overrides,
            {"train.epochs": 8, "monitor.evaluate_every": 8, "monitor.probe": False},
        )
        images = data.load(config.data)
        with Run(tmp_path / name, config) as run:
            train(config, run, images, lambda progress: None)
        found[name] = collapse_time(tmp_path / name)
    assert found["simsiam"] is None
    assert 11 <= found["no-stop-gradient"] <= 44
    assert collapse_step(tmp_path / "simsiam", images) == {}
    assert collapse_step(tmp_path / "no-stop-gradient", images) == {"collapse_step": found["no-stop-gradient"]}
    # With the whole fall in the warm-up, what follows it starts from the bottom.
    warm = build("no-stop-gradient", configuration.flat(config), {"train.warmup_epochs": 6})
    (tmp_path / "no-stop-gradient" / "config.json").write_text(configuration.to_json(warm))
    assert collapse_time(tmp_path / "no-stop-gradient") is None


def test_a_directory_without_a_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="metrics.csv"):
        collapse_time(tmp_path)


# The slope over momenta.

MOMENTA = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99]


@properties
@given(power=st.floats(-2, 3), factor=st.floats(0.01, 1000))
def test_a_power_law_has_its_power_as_slope(power, factor):
    found = momentum_slope(MOMENTA, [factor * (1 - m) ** -power for m in MOMENTA])
    assert found.slope == pytest.approx(power, abs=1e-9)
    assert found.high - found.low == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("epoch", "slope"), [(50.0, 1.0), (5.0, 0.97)])
def test_the_toys_time_to_collapse_has_slope_one_where_memory_is_slow(epoch, slope):
    times = [1 / float(slow_rate(0.5, memory_rate(m, epoch))) for m in MOMENTA]
    assert momentum_slope(MOMENTA, times).slope == pytest.approx(slope, abs=0.01)


def test_the_interval_is_students_with_numpys_standard_error():
    momenta = np.repeat(MOMENTA, 3)
    noise = np.random.default_rng(0).normal(0, 0.3, len(momenta))
    times = np.exp(noise) / (1 - momenta)
    x = -np.log1p(-momenta)
    (expected, _), covariance = np.polyfit(x, np.log(times), 1, cov=True)
    found = momentum_slope(list(momenta), list(times))
    assert found.slope == pytest.approx(expected)
    # Student's 97.5 % point with 16 degrees of freedom, from a table.
    assert found.high - found.slope == pytest.approx(2.1199 * covariance[0, 0] ** 0.5, rel=1e-4)
    assert found.slope - found.low == pytest.approx(found.high - found.slope)
    wider = momentum_slope(list(momenta), list(times), confidence=0.99)
    assert wider.low < found.low


def test_runs_that_did_not_collapse_are_counted_and_not_dropped_in_silence():
    found = momentum_slope(MOMENTA, [10, 20, 50, 100, None, None])
    assert (found.points, found.never) == (4, 2)
    assert found.slope == pytest.approx(1)


@pytest.mark.parametrize(
    ("momenta", "times", "message"),
    [
        ([0.5], [1, 2], "times: found 2 for 1 momenta"),
        ([0.5, 1.0, 0.2], [1, 2, 3], r"momenta: found 1.0; must lie in \[0, 1\)"),
        ([0.5, 0.9, 0.2], [1, 0, 3], "times: found 0; must be positive steps"),
        ([0.5, 0.9, 0.2], [1, None, 3], "times: found 2 collapses at 2 momenta; a slope needs 3"),
        ([0.5, 0.5, 0.5], [1, 2, 3], "times: found 3 collapses at 1 momenta"),
        ([], [], "times: found 0 collapses"),
    ],
)
def test_what_allows_no_slope_is_refused(momenta, times, message):
    with pytest.raises(ValueError, match=message):
        momentum_slope(momenta, times)
    with pytest.raises(ValueError, match="confidence: found 95"):
        momentum_slope(MOMENTA, [1.0] * 6, confidence=95)
