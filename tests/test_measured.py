"""What is measured on runs is computed once for every run, function and parameters, and never outlives its run."""

import json

import pytest

from collapse_lab import config as configuration
from collapse_lab.errors import InputError, RunStopped
from collapse_lab.measured import NAME, kept, measure_all, resolve
from collapse_lab.study import Measure

# Counts its calls in the run's directory; the images and the parameters decide its values.
MODULE = """
import math

def brightness(run, images, scale=1.0):
    calls = run / "calls"
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    return {"brightness": scale * images.test.float().mean().item(), "nothing": math.nan}

def broken(run, images):
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    (tmp_path / "brightness_for_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    directories = [tmp_path / "runs" / "simsiam" / f"seed{seed}" for seed in range(2)]
    config = configuration.build("simsiam", {"data.train_images": 100})
    for directory in directories:
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(configuration.to_json(config))
        (directory / "metrics.csv").write_text("step,epoch,source,layer,metric,index,value\n")
    return directories


BRIGHTNESS = Measure("brightness_for_tests:brightness")
TWICE = Measure("brightness_for_tests:brightness", {"scale": 2.0})


def calls(run):
    return len((run / "calls").read_text())


def test_a_measure_is_computed_once_a_run_and_parameters(runs):
    told = []
    assert measure_all({run: [BRIGHTNESS, TWICE] for run in runs}, told.append) == []
    assert len(told) == 2
    assert told[-1].endswith("measured, 0 to go")
    values = kept(runs[0], BRIGHTNESS)
    assert 0 < values["brightness"] < 255
    assert kept(runs[0], TWICE)["brightness"] == pytest.approx(2 * values["brightness"])
    assert values["nothing"] is None
    # Strict JSON: a value that is not a number is null.
    json.loads((runs[0] / NAME).read_text(), parse_constant=pytest.fail)
    assert measure_all({run: [BRIGHTNESS, TWICE] for run in runs}, told.append) == []
    assert [calls(run) for run in runs] == [2, 2]
    assert len(told) == 2


def test_values_do_not_outlive_their_run(runs):
    assert measure_all({runs[0]: [BRIGHTNESS]}, print) == []
    (runs[0] / "metrics.csv").write_text("step,epoch,source,layer,metric,index,value\n1,1,train,,loss,0,-1\n")
    assert kept(runs[0], BRIGHTNESS) is None
    assert measure_all({runs[0]: [BRIGHTNESS]}, print) == []
    assert calls(runs[0]) == 2
    # Only those of the present run are kept.
    assert len(json.loads((runs[0] / NAME).read_text())) == 1


def test_an_error_in_one_run_leaves_the_others_and_says_where(runs):
    broken = Measure("brightness_for_tests:broken")
    (error,) = measure_all({runs[0]: [broken], runs[1]: [BRIGHTNESS]}, print)
    assert isinstance(error, RunStopped)
    assert "was stopped by RuntimeError: no such layer" in str(error)
    assert "no such layer" in (runs[0] / "traceback.txt").read_text()
    assert kept(runs[0], broken) is None
    assert kept(runs[1], BRIGHTNESS)


@pytest.mark.parametrize("name", ["nowhere_at_all:f", "collapse_lab.runs:nothing_of_the_kind"])
def test_a_measure_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match=f"measure '{name}' cannot be found"):
        resolve(Measure(name))


def test_a_damaged_record_is_named(runs):
    (runs[0] / NAME).write_text("{")
    with pytest.raises(InputError, match=r"measures.json' is damaged"):
        kept(runs[0], BRIGHTNESS)


def test_a_measure_that_does_not_take_its_parameters_is_refused_before_any_run(runs):
    with pytest.raises(InputError, match=r"cannot be called so: .*'skale'"):
        resolve(Measure("brightness_for_tests:brightness", {"skale": 2.0}))
