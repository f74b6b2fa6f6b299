"""The alarm: silent on noise, quick on a fall, blind to a layer's own units."""

import numpy as np
import pytest

from collapse_lab.monitors import Alarm
from collapse_lab.monitors.history import Point


def listen(rank, std=None, *, layer="projector", every=1) -> list:
    """Every alert that two curves raise."""
    alarm = Alarm()
    std = np.full(len(rank), 0.9) if std is None else std
    alerts = []
    for step, (r, s) in enumerate(zip(rank, std, strict=True), 1):
        alerts += alarm.update([Point(step * every, layer, "rankme", r), Point(step * every, layer, "std_ratio", s)])
    return alerts


def noise(length, seed, scale=0.03, memory=0.5):
    """exp of an AR(1) series with this standard deviation."""
    rng = np.random.default_rng(seed)
    series = [0.0]
    for shock in rng.standard_normal(length - 1):
        series.append(memory * series[-1] + np.sqrt(1 - memory**2) * shock)
    return np.exp(scale * np.array(series))


def test_no_alarm_in_10_000_readings_of_correlated_noise_and_drift():
    drift = np.exp(-np.linspace(0, 0.3, 500))
    alerts = [listen(60 * noise(500, seed) * drift, 0.8 * noise(500, 99 + seed, 0.01)) for seed in range(20)]
    assert sum(map(len, alerts)) == 0


@pytest.mark.parametrize("depth", [0.5, 1e-3])
def test_up_to_four_bad_readings_in_a_row_are_not_enough_and_five_are(depth):
    for bad, expected in ((1, 0), (4, 0), (5, 1)):
        rank = 60 * noise(120, 1)
        rank[100 : 100 + bad] *= depth
        assert len(listen(rank)) == expected


def test_a_sudden_fall_is_told_after_five_readings_with_its_step():
    rank = 60 * noise(200, 2)
    rank[120:] *= 0.6
    (alert,) = listen(rank)
    assert alert.step == 125
    assert alert.onset == (111, 121)
    assert (alert.layer, alert.measure) == ("projector", "rankme")
    assert alert.fall == pytest.approx(0.6, abs=0.06)
    assert "step 125: rankme of layer 'projector'" in str(alert)


def test_a_slow_fall_is_told_before_half_is_lost():
    rank = 60 * noise(400, 3)
    rank[200:] *= 0.99 ** np.arange(200)
    (alert,) = listen(rank)
    assert 200 < alert.step < 200 + 69


def test_the_std_ratio_alone_is_enough_to_warn():
    std = 0.8 * noise(200, 4, 0.005)
    std[150:] *= 0.97 ** np.arange(50)
    (alert,) = listen(60 * noise(200, 5), std)
    assert alert.measure == "std_ratio"
    assert 150 < alert.step <= 165


def test_only_the_own_history_counts():
    rank = noise(200, 6)
    rank[120:] *= 0.6
    (one,), (other,) = listen(3 * rank), listen(500 * rank)
    assert one._replace(fall=0) == other._replace(fall=0)
    assert one.fall == pytest.approx(other.fall)


def test_layers_are_judged_apart_and_each_warns_once():
    alarm = Alarm()
    fallen = []
    for step in range(1, 301):
        good, bad = 60.0, 60.0 if step < 100 else 10.0
        readings = [Point(step, "a", "rankme", good), Point(step, "b", "rankme", bad)]
        fallen += alarm.update(readings)
        assert alarm.suspects == (step >= 100)
    assert [alert.layer for alert in fallen] == ["b"]


def test_values_that_are_not_finite_raise_it():
    rank = 60 * noise(120, 7)
    rank[100:] = np.nan
    assert len(listen(rank)) == 1


def test_there_is_no_alarm_before_there_is_a_history():
    assert listen(60 * 0.9 ** np.arange(15)) == []


def test_readings_of_other_measures_and_none_at_all_are_passed_over():
    alarm = Alarm()
    assert alarm.update([]) == []
    assert alarm.update([Point(1, "a", "mean_energy", 0.5)]) == []
