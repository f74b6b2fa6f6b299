"""Features of an image, of its mean view and means over its views, where theory says how they are related."""

import pytest
import torch
from torch import nn

from collapse_lab import augment, data, networks
from collapse_lab.config import build
from collapse_lab.evaluate import calibrated_encoder, outputs
from collapse_lab.features import Views, features
from collapse_lab.networks import Encoder
from collapse_lab.objective import build_objective
from collapse_lab.presets import DATA
from collapse_lab.recipes import KINDS
from collapse_lab.settings import AugmentConfig, DataConfig

SIZE = (8, 8)
DIGITS = data.load(DataConfig("digits", train_images=100))
CONFIG = build("simsiam", DATA["digits"])
SAME = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


def views(number: int, config: AugmentConfig = CONFIG.augment, seed: int = 5, epoch: int = 0) -> Views:
    return Views(config, number, seed, epoch)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    fresh = networks.encoder(CONFIG.network, *data.statistics(DIGITS.train), 8, seed=0)
    return calibrated_encoder(fresh, DIGITS.train, SIZE)


def test_clean_features_are_those_that_a_run_records():
    objective = build_objective(CONFIG, *data.statistics(DIGITS.train), 8, len(DIGITS.train))
    expected = outputs(objective, DIGITS.test, SIZE)
    found = features(objective.encoder, DIGITS.test, ["clean"], SIZE, views(3))["clean"]
    assert all(torch.equal(found[layer], expected[layer]) for layer in ("backbone", "projector"))


def test_means_are_those_of_the_views_one_by_one(encoder):
    encoder.eval()
    samples = torch.arange(100)
    drawn = augment.views(DIGITS.train, samples, CONFIG.augment, seed=5, epoch=2, views=range(4))
    found = features(encoder, DIGITS.train, KINDS, SIZE, views(4, epoch=2))
    assert list(found) == list(KINDS)
    with torch.no_grad():
        one_by_one = torch.stack([encoder(view) for view in drawn]).double().mean(0).float()
        at_the_mean = encoder.backbone(drawn.double().mean(0).float())
    torch.testing.assert_close(found["mean-output"]["projector"], one_by_one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["mean-input"]["backbone"], at_the_mean, rtol=1e-4, atol=1e-5)


def test_a_linear_encoder_does_not_tell_the_mean_of_its_inputs_from_that_of_its_outputs():
    generator = torch.Generator().manual_seed(1)
    flat, second = nn.Linear(64, 9), nn.Linear(9, 5)
    for weight in (*flat.parameters(), *second.parameters()):
        nn.init.normal_(weight, generator=generator)
    linear = Encoder(nn.Sequential(nn.Flatten(), flat), second)
    found = features(linear, DIGITS.train, ["mean-input", "mean-output"], SIZE, views(7))
    for layer in ("backbone", "projector"):
        torch.testing.assert_close(found["mean-input"][layer], found["mean-output"][layer], rtol=1e-4, atol=1e-3)


def test_an_encoder_that_is_not_linear_does(encoder):
    found = features(encoder, DIGITS.train, ["mean-input", "mean-output"], SIZE, views(7))
    assert (found["mean-input"]["backbone"] - found["mean-output"]["backbone"]).abs().max() > 0.1


def test_one_view_has_one_mean_and_views_that_change_nothing_leave_the_clean_feature(encoder):
    found = features(encoder, DIGITS.train, ["mean-input", "mean-output"], SIZE, views(1))
    torch.testing.assert_close(found["mean-input"], found["mean-output"])
    same = features(encoder, DIGITS.train, KINDS, SIZE, views(3, SAME))
    torch.testing.assert_close(same["mean-input"], same["clean"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same["mean-output"], same["clean"], rtol=1e-4, atol=1e-5)


def test_a_feature_depends_on_its_own_image_and_key_alone(encoder):
    whole = features(encoder, DIGITS.train, ["mean-output"], SIZE, views(3))["mean-output"]["projector"]
    part = features(encoder, DIGITS.train[:7], ["mean-output"], SIZE, views(3))["mean-output"]["projector"]
    torch.testing.assert_close(part, whole[:7], rtol=1e-4, atol=1e-5)
    for other in (views(3, seed=6), views(3, epoch=1)):
        assert not torch.allclose(
            features(encoder, DIGITS.train[:7], KINDS, SIZE, other)["mean-output"]["projector"], part
        )


def test_the_encoder_is_left_as_it_was(encoder):
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    features(encoder, DIGITS.train, KINDS, SIZE, views(2))
    assert encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_what_cannot_be_a_feature_is_refused(encoder):
    with pytest.raises(ValueError, match="found 'mean', expected some of clean, mean-input, mean-output"):
        features(encoder, DIGITS.train, ["mean"], SIZE, views(2))
    with pytest.raises(ValueError, match="found 0, a mean needs at least 1"):
        features(encoder, DIGITS.train, ["mean-input"], SIZE, views(0))
    broken = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), nn.Identity())
    nn.init.constant_(broken.backbone[1].bias, torch.inf)
    with pytest.raises(
        FloatingPointError, match="^clean features of the backbone are not finite; has the run diverged"
    ):
        features(broken, DIGITS.train, ["clean"], SIZE, views(2))
