"""The presets of whole runs: the paper's values, what is filled in named, networks that can be built."""

from __future__ import annotations

import pytest
import torch
from click import Command
from click.testing import CliRunner

from collapse_lab.flags import configuration_flags, configured
from collapse_lab.objective import build_objective
from collapse_lab.optimisation import optimizer, set_rates
from collapse_lab.presets import FILLED_IN, RUNS
from collapse_lab.settings import AugmentConfig, Config


def of(preset: str, **flags: object) -> Config:
    return configured(("simsiam",), {"config": None, "preset": (preset,), **flags})[1][0]


@pytest.mark.parametrize(("preset", "backbone", "rate", "decay"), [
    ("cifar10-800", "resnet18", 0.06, 5e-4),
    ("imagenet-100", "resnet50", 0.1, 1e-4),
])  # fmt: skip
def test_the_network_can_be_built_and_trains_at_the_papers_rate(preset, backbone, rate, decay):
    config = of(preset)
    assert config.network.backbone == backbone
    made = build_objective(config, torch.full((3,), 0.5), torch.full((3,), 0.25), 32, 1000)
    z = made.encoder(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert z.shape == made.predictor(z).shape == (2, 2048)
    sgd = optimizer(made, config.train)
    set_rates(sgd, config.train, 0, 1000, 0)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([rate, rate])
    assert {group["weight_decay"] for group in sgd.param_groups} == {decay}
    assert {group["momentum"] for group in sgd.param_groups} == {0.9}


def test_views_are_the_papers_and_nothing_of_another_data_set_is_left():
    colour = {"jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grayscale": 0.2}
    common = {"crop_scale": (0.2, 1.0), "flip": 0.5, **colour}
    assert of("cifar10-800").augment == AugmentConfig(**common)
    assert of("imagenet-100").augment == AugmentConfig(**common, size=224, blur=0.5, blur_sigma=(0.1, 2.0))


def test_the_data_of_a_preset_give_way_to_those_asked_for():
    assert of("cifar10-800").data.name == "cifar10"
    other = of("cifar10-800", data__name="npz", data__root="cifar10.npz")
    assert (other.data.name, other.train.epochs, other.network.backbone) == ("npz", 800, "resnet18")


@pytest.mark.parametrize("preset", RUNS)
def test_what_is_filled_in_is_set_and_named_in_the_help(preset):
    @configuration_flags
    def command(**values):
        return values

    text = CliRunner().invoke(Command("x", params=command.__click_params__), ["--help"]).output
    unwrapped = " ".join(text.split()).replace("- ", "-")
    assert FILLED_IN[preset].items() <= RUNS[preset].items()
    assert all(key in unwrapped for key in FILLED_IN[preset])
    assert f"{preset}: {next(iter(FILLED_IN[preset]))}" in unwrapped
