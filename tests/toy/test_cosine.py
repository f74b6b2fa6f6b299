"""The linear model under the cosine loss: exactness of its loss, autograd, conservation, who survives, momentum eta."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from collapse_lab import geometry
from collapse_lab.errors import InputError
from collapse_lab.losses import negative_cosine
from collapse_lab.toy import cosine, memory
from collapse_lab.toy.rule import VARIANTS, Array

AGREEMENT = np.array([1.0, 0.8, 0.5, 0.3])
SIGNS = np.array(list(itertools.product((1.0, -1.0), repeat=3)))


def images() -> Array:
    """All sign vectors whose first coordinate, the constant mode, is 1."""
    return np.concatenate([np.ones((8, 1)), SIGNS], axis=1)


def random(seed: int) -> tuple[Array, Array]:
    predictor, encoder = np.random.default_rng(seed).uniform(0.2, 1.0, (2, 4))
    return predictor, encoder


@pytest.mark.parametrize("seed", range(3))
def test_expected_loss_is_the_packages_loss_over_all_images_and_views(seed: int) -> None:
    predictor, encoder = random(seed)
    target = random(seed + 10)[1]
    keep = (1 + np.sqrt(AGREEMENT)) / 2
    flips = np.concatenate([np.ones((8, 1)), SIGNS], axis=1)
    chance = np.prod(np.where(flips > 0, keep, 1 - keep)[:, 1:], axis=1)
    found = 0.0
    for (one, p_one), (two, p_two) in itertools.product(zip(flips, chance, strict=True), repeat=2):
        p, t = predictor * encoder * one * images(), target * two * images()
        # The package's loss computes in float32.
        found += p_one * p_two * negative_cosine(torch.tensor(p), torch.tensor(t)).item()
    assert found == pytest.approx(cosine.slot_loss(AGREEMENT, predictor, encoder, target), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_autograd_of_the_loss_equals_the_slot_gradients(seed: int) -> None:
    parts = [*random(seed), random(seed + 20)[1]]
    tensors = [torch.tensor(part, requires_grad=True) for part in parts]
    cosine.slot_loss(torch.tensor(AGREEMENT), *tensors).backward()
    for mine, tensor in zip(cosine.slot_gradient(AGREEMENT, *parts), tensors, strict=True):
        assert tensor.grad is not None
        np.testing.assert_allclose(mine, tensor.grad.numpy(), 1e-12, 1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_mode_equalisation_is_the_prediction_slot_where_views_agree(seed: int) -> None:
    predictor, z = random(seed)
    found = cosine.equalisation(z, predictor)
    np.testing.assert_allclose(found, -cosine.slot_gradient(np.ones(4), predictor, z, z).prediction, atol=1e-15)
    assert abs(found @ z) < 1e-15
    mean = np.sum(predictor**2 * z**2) / np.sum(predictor * z**2)
    assert np.array_equal(found > 0, predictor < mean)


def test_equalisation_makes_the_eigenvalues_equal() -> None:
    predictor, encoder = random(1)
    last = cosine.flow(cosine.Cosine((1.0,) * 4), encoder, predictor / 5, [300.0]).states[-1]
    np.testing.assert_allclose(last[0] / last[0, 0], 1, atol=1e-8)
    assert cosine.energy(last[1]).min() > 0.01
    # A mode whose predictor starts above its encoder and above the mean dies instead, as in the scalar toy.
    last = cosine.flow(cosine.Cosine((1.0,) * 4), [1.0, 1.0, 1.0, 0.1], [0.2, 0.3, 0.4, 2.0], [300.0]).states[-1]
    np.testing.assert_allclose(last[0, :3] / last[0, 0], 1, atol=1e-8)
    assert cosine.energy(last[1])[3] < 1e-12


def test_stop_gradient_keeps_every_mode_and_its_predictor_becomes_the_agreement() -> None:
    predictor, encoder = random(0)
    found = cosine.flow(cosine.Cosine(tuple(AGREEMENT)), encoder, predictor, np.linspace(0, 400, 21))
    kept = found.states[:, 1] ** 2 - found.states[:, 0] ** 2
    assert np.abs(kept - kept[0]).max() < 1e-9
    np.testing.assert_allclose(found.states[-1, 0] / found.states[-1, 0, 0], AGREEMENT, atol=1e-8)
    assert cosine.energy(found.states[-1, 1]).min() > 0.01


def test_weight_decay_multiplies_the_conserved_quantity() -> None:
    predictor, encoder = random(2)
    found = cosine.flow(cosine.Cosine(tuple(AGREEMENT), rate=2.0, weight_decay=0.03), encoder, predictor, [0.0, 5.0])
    kept = found.states[:, 1] ** 2 - found.states[:, 0] ** 2 / 2
    np.testing.assert_allclose(kept[1], kept[0] * np.exp(-2 * 0.03 * 5), rtol=1e-9)


@pytest.mark.parametrize("variant", ["both-terms", "second-term-only"])
def test_else_the_constant_mode_takes_all_while_the_norm_stays(variant: str) -> None:
    predictor, encoder = random(0)
    found = cosine.flow(cosine.Cosine(tuple(AGREEMENT), variant), encoder, predictor, [0.0, 400.0])
    np.testing.assert_allclose(cosine.energy(found.states[-1, 1]), [1, 0, 0, 0], atol=1e-8)
    norms = np.linalg.norm(found.states[:, 1], axis=1)
    assert norms[1] == pytest.approx(norms[0], rel=1e-9)
    assert found.collapsed_at == np.inf
    assert float(cosine.rankme(found.states[-1, 1])) == pytest.approx(1, abs=1e-3)


def test_without_predictor_the_energy_follows_the_replicator_equation() -> None:
    encoder = random(3)[1]
    gradient = cosine.slot_gradient(AGREEMENT, np.ones(4), encoder, encoder)
    share = cosine.energy(encoder)
    fitness = AGREEMENT - share @ AGREEMENT
    np.testing.assert_allclose(-gradient.prediction, encoder * fitness / (encoder @ encoder), atol=1e-15)
    np.testing.assert_allclose(gradient.target, gradient.prediction, atol=1e-15)
    last = cosine.flow(cosine.Cosine(tuple(AGREEMENT), rate=0.0), encoder, np.ones(4), [400.0]).states[-1]
    np.testing.assert_allclose(cosine.energy(last[1]), [1, 0, 0, 0], atol=1e-8)


def test_measures_are_those_of_the_package() -> None:
    encoder = random(4)[1]
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    m = geometry.moments(torch.tensor(images() * encoder @ rotation))
    assert geometry.rankme(m) == pytest.approx(float(cosine.rankme(encoder)), rel=1e-5)
    assert geometry.mean_energy(m) == pytest.approx(float(cosine.energy(encoder)[0]), rel=1e-12)


def test_scalar_memory_collapses_slowly() -> None:
    slow = [float(np.linalg.eigvals(memory.scalar_matrix(0.5, beta)).max()) for beta in (0.1, 1.0)]
    assert slow == pytest.approx([-0.031885, -0.219224], abs=5e-7)
    for noise2, beta in [(0.5, 0.1), (0.01, 0.001)]:
        matrix = memory.scalar_matrix(noise2, beta)
        assert np.linalg.det(matrix) == pytest.approx(beta * noise2)
        assert np.linalg.eigvals(matrix).max() < 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_momentum_eta_collapses_at_the_predicted_rate(momentum: float) -> None:
    encoder, epoch = random(5)[1] / np.linalg.norm(random(5)[1]), 4.0
    rate = float(memory.slow_rate(0.8, memory.memory_rate(momentum, epoch)))
    times = np.array([0.0, 8.0, 9.0, 10.0]) / rate
    found = memory.flow(AGREEMENT, encoder, momentum, epoch, times).states[:, 1]
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    decay = np.log(found[2, 1] / found[3, 1]) * rate
    assert decay == pytest.approx(rate, rel=1e-2)


def test_momentum_delays_collapse_in_proportion_to_one_over_one_minus_m() -> None:
    encoder = random(5)[1] / np.linalg.norm(random(5)[1])
    delay = np.array([1.0, 2.0, 5.0, 10.0, 20.0])
    reached = [
        memory.time_to_energy(0.95, memory.flow(AGREEMENT, encoder, 1 - 1 / d, 4.0, np.linspace(0, 3000, 6001)))
        for d in delay
    ]
    slope, start = np.polyfit(delay, reached, 1)
    assert slope > 0
    np.testing.assert_allclose(reached, start + slope * delay, rtol=0.02)
    frozen = memory.flow(AGREEMENT, encoder, 1.0, 4.0, np.linspace(0, 3000, 11))
    assert memory.time_to_energy(0.95, frozen) == np.inf


def descended(momentum: float, epoch_steps: int, step_size: float, steps: int) -> tuple[Array, Array]:
    """RankMe after each epoch of SGD on 1,024 images that each keep a memory of their own, and the agreement."""
    generator, agreement = np.random.default_rng(0), np.linspace(1, 0.3, 32)
    keep, w = (1 + np.sqrt(agreement)) / 2, generator.uniform(0.2, 1.0, 32)
    w, ranks = w / np.linalg.norm(w), [float(cosine.rankme(w))]
    x = generator.choice([-1.0, 1.0], (1024, 32))
    x[:, 0] = 1
    eta = x * np.where(generator.random(x.shape) < keep, 1, -1) * w
    for step in range(steps):
        if step % epoch_steps == 0:
            order = generator.permutation(1024).reshape(epoch_steps, -1)
        index = order[step % epoch_steps]
        view = x[index] * np.where(generator.random((len(index), 32)) < keep, 1, -1)
        norm = np.linalg.norm(w)
        z, target = view * w / norm, eta[index] / np.linalg.norm(eta[index], axis=1, keepdims=True)
        slope = np.sum(target * z, axis=1, keepdims=True) * z - target
        eta[index] = momentum * eta[index] + (1 - momentum) * z
        w = w - step_size * np.mean(slope * view, axis=0) / norm
        ranks.append(float(cosine.rankme(w)))
    return np.array(ranks), agreement


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_descent_with_a_memory_for_each_image_follows_the_mean_memory(momentum: float) -> None:
    ranks, agreement = descended(momentum, epoch_steps=8, step_size=0.05, steps=2000)
    # The start is drawn as above.
    encoder = np.random.default_rng(0).uniform(0.2, 1.0, 32)
    times = 0.05 * np.array([400.0, 1000.0, 2000.0])
    flow = memory.flow(agreement, encoder / np.linalg.norm(encoder), momentum, 8 * 0.05, times)
    np.testing.assert_allclose(ranks[[400, 1000, 2000]], cosine.rankme(flow.states[:, 1]), rtol=0.08)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine.Cosine((0.5, 1.2)), "agreement: found 1.2"),
        (lambda: cosine.Cosine((0.5,), "both"), "variant: found 'both'"),
        (lambda: cosine.Cosine((0.5,), rate=-1.0), "rate: found -1"),
        (lambda: memory.memory_rate(1.1, 1.0), "momentum: found 1.1"),
        (lambda: memory.memory_rate(0.5, 0.0), "epoch: found 0"),
    ],
)
def test_bad_input_is_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_variants_cover_the_slots() -> None:
    assert {tuple(slots) for slots in VARIANTS.values()} == {(1, 0), (1, 1), (0, 1)}
