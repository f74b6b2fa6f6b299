"""Measures of a run are those of its weights at both ends."""

import math

import pytest
import torch

from collapse_lab import data
from collapse_lab.augmentation_loss import augmentation_losses as losses_of
from collapse_lab.config import build
from collapse_lab.errors import InputError
from collapse_lab.evaluate import calibrated
from collapse_lab.expectation import expectation_values
from collapse_lab.methods import method
from collapse_lab.network_measures import augmentation_losses, expectation
from collapse_lab.objective import build_objective
from collapse_lab.presets import DATA
from collapse_lab.runs import Run
from collapse_lab.trainer import train

CONFIG = build(
    "simsiam",
    DATA["digits"],
    method("simsiam").overrides,
    {"train.epochs": 6, "data.train_images": 640, "monitor.evaluate_every": 6, "monitor.expectation_views": 8},
    {"monitor.probe": False},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory, images = tmp_path_factory.mktemp("run"), data.load(CONFIG.data)
    with Run(directory, CONFIG) as run:
        train(CONFIG, run, images, lambda progress: None)
    return directory, images


def test_the_expectation_is_that_of_the_recorded_rows_at_both_ends(trained):
    directory, images = trained
    table = [line.split(",") for line in (directory / "metrics.csv").read_text().splitlines()]
    found = expectation(directory, images, views=8)
    for epoch, suffix in (("0", "_start"), ("6", "")):
        recorded = {row[4]: float(row[6]) for row in table if row[1] == epoch and row[4].startswith("expectation_")}
        assert len(recorded) == 10
        assert {name: found[name + suffix] for name in recorded} == pytest.approx(recorded, rel=1e-5, abs=1e-8)
    assert len(found) == 20
    assert found["expectation_gap_predictor"] < found["expectation_gap_identity"]
    assert found["expectation_gap_predictor"] < found["expectation_gap_predictor_start"]


def test_the_augmentation_losses_are_those_of_the_same_networks(trained):
    directory, images = trained
    found = augmentation_losses(directory, images, views=4, draws=2, count=16)
    settings = {"views": 4, "draws": 2, "count": 16, "batch_statistics": False}
    objective = build_objective(CONFIG, *data.statistics(images.train), 8, len(images.train))
    start = losses_of(calibrated(objective, images.train, (8, 8)).encoder, images.train, CONFIG, **settings)
    objective.load_state_dict(torch.load(directory / "checkpoint.pt", weights_only=True)["objective"])
    end = losses_of(objective.encoder, images.train, CONFIG, **settings)
    assert found == pytest.approx({**end, **{f"{name}_start": value for name, value in start.items()}}, rel=1e-5)
    assert all(math.isfinite(value) for value in found.values())
    training = augmentation_losses(directory, images, **{**settings, "batch_statistics": True})
    assert {name for name in training if "loss" in name} == {f"train_{name}" for name in found if "loss" in name}


def test_values_of_the_end_are_those_of_the_trained_weights_and_of_the_start_are_not(trained):
    directory, images = trained
    objective = build_objective(CONFIG, *data.statistics(images.train), 8, len(images.train))
    state = torch.load(directory / "checkpoint.pt", weights_only=True)["objective"]
    objective.load_state_dict(state)
    end = {value.metric: value.value for value in expectation_values(objective, images, CONFIG, 4)}
    found = expectation(directory, images, views=4)
    assert {name: found[name] for name in end} == pytest.approx(end, rel=1e-5, abs=1e-8)
    assert all(found[name] != found[f"{name}_start"] for name in end)


def test_a_run_without_a_checkpoint_is_refused(trained, tmp_path):
    directory, images = trained
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    with pytest.raises(InputError, match=r"checkpoint.pt. cannot be read: No such file"):
        expectation(tmp_path, images)
