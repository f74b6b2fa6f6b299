"""The paper's linear evaluation and fine-tuning: against the same steps written out, and what each may touch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collapse_lab import data, draws, networks
from collapse_lab.config import build
from collapse_lab.evaluate import calibrated_encoder
from collapse_lab.presets import DATA
from collapse_lab.recipes import FINETUNE, LINEAR, Recipe
from collapse_lab.settings import DataConfig
from collapse_lab.supervised import fitted, rate, supervised_accuracy

SIZE = (8, 8)
DIGITS = data.load(DataConfig("digits", train_images=200))
PLAIN = Recipe(base_rate=2.0, batch=200, epochs=5, frozen=True, crop_scale=(1.0, 1.0), flip=0.0)
FIXED = {"size": SIZE, "view": None, "seed": 3}


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    network = build("simsiam", DATA["digits"]).network
    fresh = networks.encoder(network, *data.statistics(DIGITS.train), 8, seed=0)
    return calibrated_encoder(fresh, DIGITS.train, SIZE).backbone.eval()


class Seen(nn.Module):
    """Flattens, and keeps the sizes of the batches and the modes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[int, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((len(images), self.training))
        return self.weight * images.flatten(1)


def test_the_published_settings():
    assert {name: (rate(row), row.batch) for name, row in LINEAR.items()} == {
        "sgd": (30.0, 256),
        "lars": (pytest.approx(0.32), 4096),
        "larc": (pytest.approx(1.6), 4096),
    }
    for row in LINEAR.values():
        assert (row.epochs, row.momentum, row.weight_decay, row.crop_scale, row.flip) == (
            90,
            0.9,
            0.0,
            (0.08, 1.0),
            0.5,
        )
    assert [row.trust for row in LINEAR.values()] == [None, 0.001, 0.001]


@pytest.mark.parametrize("trust", [None, 0.02])
def test_full_batches_without_crops_follow_the_formula_written_out_in_numpy(trust):
    # Images of one colour each: every crop of one is itself.
    recipe = replace(PLAIN, trust=trust)
    images = replace(DIGITS, train=DIGITS.train.amax((2, 3), keepdim=True).expand(-1, -1, 8, 8).contiguous())
    classifier = fitted(nn.Flatten(), images, recipe, **FIXED)
    x = images.train.flatten(1).double().numpy() / 255
    onehot = np.eye(10)[images.train_labels.numpy()]
    start = torch.empty(10, 64).normal_(0, 0.01, generator=torch.Generator().manual_seed(draws.key(3, 0)))
    weights = [start.double().numpy(), np.zeros(10)]
    speeds = [np.zeros_like(weight) for weight in weights]
    for epoch in range(5):
        logits = x @ weights[0].T + weights[1]
        shares = np.exp(logits - logits.max(1, keepdims=True))
        error = (shares / shares.sum(1, keepdims=True) - onehot) / 200
        lr = 2.0 * 200 / 256 * 0.5 * (1 + np.cos(np.pi * epoch / 5))
        for n, gradient in enumerate((error.T @ x, error.sum(0))):
            norm, steep = np.linalg.norm(weights[n]), np.linalg.norm(gradient)
            scale = trust * norm / steep if trust and norm else 1.0
            speeds[n] = 0.9 * speeds[n] + scale * gradient
            weights[n] = weights[n] - lr * speeds[n]
    head = classifier[1]
    np.testing.assert_allclose(head.weight.detach().numpy(), weights[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(head.bias.detach().numpy(), weights[1], rtol=1e-3, atol=1e-5)


def test_frozen_every_image_is_seen_once_an_epoch_in_eval_mode():
    seen = Seen()
    fitted(seen, DIGITS, replace(PLAIN, batch=64, epochs=2), **FIXED)
    assert seen.calls[1:] == [(64, False), (64, False), (64, False), (8, False)] * 2
    assert seen.weight.grad is None


def test_fine_tuning_runs_in_train_mode_on_whole_batches_and_moves_a_copy():
    seen = Seen()
    classifier = fitted(seen, DIGITS, replace(FINETUNE, batch=64, epochs=1), **FIXED)
    assert classifier[0].calls[1:] == [(64, True)] * 3
    assert not classifier[0].training
    assert seen.weight.item() == 1.0 != classifier[0].weight.item()


@pytest.mark.parametrize("recipe", [replace(PLAIN, batch=64, epochs=1), replace(FINETUNE, batch=64, epochs=1)])
def test_the_backbone_given_and_the_global_generator_are_left_alone(backbone, recipe):
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state = torch.get_rng_state()
    classifier = fitted(backbone, DIGITS, recipe, **FIXED)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    moved = [name for name, tensor in classifier[0].state_dict().items() if not torch.equal(tensor, before[name])]
    assert bool(moved) is not recipe.frozen
    assert recipe.frozen or any("running_mean" in name for name in moved)


def test_the_seed_decides_and_nothing_else(backbone):
    recipe = replace(PLAIN, batch=64, crop_scale=(0.5, 1.0), epochs=2)
    one, two = (fitted(backbone, DIGITS, recipe, **FIXED)[1].weight for _ in range(2))
    other = fitted(backbone, DIGITS, recipe, size=SIZE, view=None, seed=4)[1].weight
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_unlabelled_images_take_no_part(backbone):
    unlabelled = replace(
        DIGITS,
        train=torch.cat([DIGITS.test[:50], DIGITS.train]),
        train_labels=torch.cat([torch.full((50,), -1), DIGITS.train_labels]),
    )
    weights = [fitted(backbone, images, replace(PLAIN, epochs=1), **FIXED)[1].weight for images in (DIGITS, unlabelled)]
    assert torch.equal(*weights)


def test_fine_tuning_learns_digits_that_a_frozen_random_network_knows_less_of():
    digits = data.load(DataConfig("digits", train_images=1000))
    network = networks.encoder(build("simsiam", DATA["digits"]).network, *data.statistics(digits.train), 8, seed=0)
    start = calibrated_encoder(network, digits.train, SIZE).backbone
    recipe = replace(FINETUNE, batch=32, epochs=5, crop_scale=(1.0, 1.0), flip=0.0, base_rate=1.6)
    tuned = supervised_accuracy(start, digits, recipe, **FIXED)
    frozen = supervised_accuracy(start, digits, replace(recipe, frozen=True), **FIXED)
    # Running statistics that average over the whole training instead of its end lose 4 points here, and 64 in 30 epochs.
    assert 0.95 < tuned <= 1
    assert 0.7 < frozen < tuned - 0.03


def test_a_rate_without_bounds_and_a_batch_above_the_images_are_refused(backbone):
    with pytest.raises(FloatingPointError, match=r"stopped being finite in epoch \d; lower the rate"):
        fitted(backbone, DIGITS, replace(FINETUNE, base_rate=1e30, batch=64), **FIXED)
    with pytest.raises(ValueError, match=r"batch: found 256, the bank has 200 images: choose 1\.\.200"):
        fitted(backbone, DIGITS, LINEAR["sgd"], **FIXED)
