"""The line of the time to collapse over 1 / (1 - m) is that of every seed, and runs without a collapse are counted."""

import importlib
from pathlib import Path

import pytest

from collapse_lab.paired import interval

ROOT = Path(__file__).resolve().parents[1]
MOMENTA = (0.0, 0.5, 0.8, 0.9)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "figures")
    return importlib.import_module("momentum_time")


def arm(momentum, values):
    return {
        "overrides": {"target.eta_momentum": momentum},
        "seeds": [0, 1],
        "measures": {"collapse_step": {"values": values}},
    }


@pytest.fixture
def summary():
    """Seed 0 needs 5 + 10 / (1 - m) steps, seed 1 needs 7 + 12 / (1 - m) and does not get there at m = 0.9."""
    arms = {f"m = {m}": arm(m, [5 + 10 / (1 - m), None if m == 0.9 else 7 + 12 / (1 - m)]) for m in MOMENTA}
    return {"arms": {**arms, "simsiam": {"overrides": {}, "seeds": [0, 1], "measures": {}}}}


def test_every_seed_has_its_own_line(script, summary):
    fitted = script.lines(script.times(summary))
    assert {seed: (line.slope, line.intercept, line.never) for seed, line in fitted.items()} == {
        0: (pytest.approx(10), pytest.approx(5), 0),
        1: (pytest.approx(12), pytest.approx(7), 1),
    }
    told = script.words(fitted, interval([line.slope for line in fitted.values()]))
    assert told.startswith("11.0 steps for 1 in 1/(1 - m), 95 % t-interval -1.7 to 23.7, n = 2 seeds; 1 runs")


def test_every_collapse_is_a_mark(script, summary):
    found = script.times(summary)
    (axes,) = script.draw(found, script.lines(found), "title").axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in marks] == [4, 3]


def test_an_arm_that_never_collapsed_has_no_times(script, summary):
    summary["arms"]["m = 0.9"]["measures"] = {}
    assert script.times(summary)[0][0.9] is None
