"""DirectPred: autograd, eigenmode reduction, theorems, DirectPred and DirectCopy predictors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from collapse_lab.errors import InputError
from collapse_lab.toy.linear import Linear, Weights, correlation, direct_copy, direct_pred, field, flow, slot_gradient
from collapse_lab.toy.modes import Mode, fixed_points, mode_field
from collapse_lab.toy.rule import VARIANTS, Array
from collapse_lab.toy.scalar import Scalar
from collapse_lab.toy.scalar import flow as scalar_flow
from collapse_lab.toy.spectra import (
    commutator_norm,
    commutator_velocity,
    decay_matrix,
    modes,
    theorem_1,
    theorem_2,
    theorem_3,
)

D = 4
EYE = np.eye(D)


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def covariance(seed: int) -> Array:
    root = random(seed, D, D)
    return root @ root.T / D


def symmetric(seed: int) -> Array:
    return (random(seed, D, D) + random(seed, D, D).T) / 4 + EYE / 2


@pytest.mark.parametrize("seed", range(3))
def test_autograd_of_the_sampled_loss_equals_the_slot_gradients(seed: int) -> None:
    system = Linear(covariance(seed), covariance(seed + 10))
    weights = Weights(random(seed, 3, D), random(seed + 1, 3, 3), random(seed + 2, 3, D))
    # Views x + n on a finite set whose moments are exactly X and X': columns of the roots, both signs.
    roots = [torch.tensor(np.linalg.cholesky(part) * np.sqrt(D)) for part in (system.data, system.augmentation)]
    images, noises = ([sign * column for column in root.T for sign in (1, -1)] for root in roots)
    encoder, predictor, target = (torch.tensor(part, requires_grad=True) for part in weights)
    terms = [
        (predictor @ encoder @ (x + one) - target @ (x + two)).square().sum() / 2
        for x in images
        for one in noises
        for two in noises
    ]
    torch.stack(terms).mean().backward()
    found = slot_gradient(system, weights)
    for mine, theirs in zip(found, (predictor.grad, encoder.grad, target.grad), strict=True):
        assert theirs is not None
        np.testing.assert_allclose(mine, theirs.numpy(), 1e-11, 1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_by_one_is_the_scalar_toy(variant: str) -> None:
    system = Linear(np.eye(1), 0.3 * np.eye(1), variant, rate=2.0, weight_decay=0.02)
    found = flow(system, [[0.1]], [[0.6]], [1.0, 10.0]).weights
    expected = scalar_flow(Scalar(variant, 0.3, 2.0, 0.02), 0.6, 0.1, [1.0, 10.0]).states
    np.testing.assert_allclose(found.predictor.ravel(), expected[:, 0], 1e-8, 1e-10)
    np.testing.assert_allclose(found.encoder.ravel(), expected[:, 1], 1e-8, 1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ema_rate", [None, 0.4])
def test_reduction_to_eigenmodes(seed: int, ema_rate: float | None) -> None:
    """At aligned states the matrices' velocity is the modes' equations, in any eigenbasis."""
    generator = np.random.default_rng(seed)
    basis, image = (np.linalg.qr(generator.standard_normal((D, D)))[0] for _ in range(2))
    p, s, tau = generator.uniform(0.1, 1.5, (3, D))
    tau = tau if ema_rate else np.ones(D)
    encoder = (basis * np.sqrt(s)) @ image.T
    system = Linear(EYE, 0.2 * EYE, rate=1.7, weight_decay=0.03, ema_rate=ema_rate, symmetric=True)
    weights = Weights(encoder, (basis * p) @ basis.T, (basis * tau) @ basis.T @ encoder)
    moved = field(system, weights)
    df = moved.encoder @ encoder.T + encoder @ moved.encoder.T
    dp, ds, dtau = mode_field(Mode(0.2, 1.7, 0.03, ema_rate), p, s, tau)
    np.testing.assert_allclose(basis.T @ moved.predictor @ basis, np.diag(dp), atol=1e-13)
    np.testing.assert_allclose(basis.T @ df @ basis, np.diag(ds), atol=1e-13)
    # W_a = tau W along each mode: the velocity of (u . W_a v) / (u . W v).
    along, target, slope = (np.diag(basis.T @ part @ image) for part in (encoder, weights.target, moved.encoder))
    dtarget = np.diag(basis.T @ moved.target @ image)
    found = dtarget / along - target * slope / along**2
    np.testing.assert_allclose(found if ema_rate else np.zeros(D), dtau, atol=1e-12)


def test_mode_flow_equals_the_matrix_flow() -> None:
    basis = np.linalg.qr(random(5, D, D))[0]
    p, s = np.array([0.9, 0.6, 0.3, 0.1]), np.array([0.5, 0.4, 0.3, 0.2])
    system = Linear(EYE, 0.2 * EYE, weight_decay=0.02)
    found = modes(system, flow(system, (basis * np.sqrt(s)), (basis * p) @ basis.T, [3.0]).weights)
    alone = scalar_flow(Scalar(noise2=0.2, weight_decay=0.02), p, np.sqrt(s), [3.0]).states[0]
    np.testing.assert_allclose(found.p[0], np.sort(alone[0])[::-1], atol=1e-8)
    np.testing.assert_allclose(np.sort(found.s[0]), np.sort(alone[1] ** 2), atol=1e-8)


def test_flow_reaches_the_fixed_point_and_aligns() -> None:
    system = Linear(EYE, 0.5 * EYE, weight_decay=0.05)
    found = flow(system, EYE * 0.7 + 0.1 * random(0, D, D), EYE * 0.5, [400.0])
    last = modes(system, found.weights)
    high = float(fixed_points(0.05, 0.5)[1])
    np.testing.assert_allclose(last.p[0], high, atol=1e-8)
    np.testing.assert_allclose(last.s[0], high**2, atol=1e-8)
    np.testing.assert_allclose(last.alignment[0], 1, atol=1e-8)


@pytest.mark.parametrize("ema_rate", [None, 0.5])
def test_theorem_1_on_any_data(ema_rate: float | None) -> None:
    system = Linear(covariance(1), covariance(2), rate=2.0, weight_decay=0.03, ema_rate=ema_rate)
    found = flow(system, random(3, 3, D) / 2, random(4, 3, 3) / 2, np.linspace(0, 20, 41), target=random(5, 3, D) / 2)
    assert theorem_1(system, found).max() < 1e-9
    # The sign of its constant: s(0) - p(0)^2 / a_p.
    single = Linear(np.eye(1), 0.2 * np.eye(1), rate=2.0, weight_decay=0.03)
    path = flow(single, [[np.sqrt(0.5)]], [[0.3]], [0.0, 5.0]).weights
    gap = path.encoder.ravel() ** 2 - path.predictor.ravel() ** 2 / 2
    assert gap[0] == pytest.approx(0.455)
    assert gap[1] == pytest.approx(0.455 * np.exp(-2 * 0.03 * 5), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_2(seed: int) -> None:
    system = Linear(covariance(seed), covariance(seed + 5), "both-terms", weight_decay=0.02)
    encoder, predictor = random(seed, 3, D), random(seed + 1, 3, 3)
    moved = field(system, Weights(encoder, predictor, encoder)).encoder
    np.testing.assert_allclose(moved.T.ravel(), -decay_matrix(system, predictor) @ encoder.T.ravel(), atol=1e-12)
    size, bound = theorem_2(system, flow(system, encoder, predictor, np.linspace(0, 20, 401)))
    assert np.all(size <= bound * (1 + 1e-3))
    assert size[-1] < 0.1 * size[0]


def test_theorem_2_says_nothing_about_the_scalar_toy_without_noise() -> None:
    assert decay_matrix(Linear(np.eye(1), np.zeros((1, 1)), "both-terms"), np.eye(1)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_theorem_3(seed: int) -> None:
    system = Linear(EYE, 0.2 * EYE, rate=2.0, weight_decay=0.03, symmetric=True)
    encoder = 2 * EYE + random(seed, D, D) / 4
    found, claimed = commutator_velocity(system, Weights(encoder, symmetric(seed), encoder))
    np.testing.assert_allclose(found, claimed, atol=1e-12)
    trajectory = flow(system, encoder, symmetric(seed), np.linspace(0, 10, 101))
    size, bound = theorem_3(system, trajectory)
    assert bound[-1] < bound[0]
    assert np.all(size <= bound * (1 + 1e-9) + 1e-12)
    assert size[-1] < 1e-3 * size[0]


@pytest.mark.parametrize("make", [direct_pred, direct_copy])
def test_set_predictors_share_the_eigenbasis_and_find_the_fixed_point(make: object) -> None:
    predictor_of = make(0.1)  # type: ignore[operator]
    system = Linear(EYE, 0.2 * EYE, weight_decay=0.03, predictor_of=predictor_of)
    found = flow(system, EYE + random(1, D, D) / 4, EYE, [0.0, 5.0, 60.0])
    assert commutator_norm(system, found.weights).max() < 1e-12
    np.testing.assert_allclose(modes(system, found.weights).p[-1], float(fixed_points(0.03, 0.2)[1]), atol=1e-6)


def test_direct_pred_and_direct_copy_are_their_formulae() -> None:
    f = correlation(Linear(EYE, EYE), random(0, D, D))
    values, vectors = np.linalg.eigh(f)
    p = np.diag(vectors.T @ direct_pred(0.1)(f) @ vectors)
    np.testing.assert_allclose(p, np.sqrt(values) + 0.1 * values.max())
    np.testing.assert_allclose(direct_copy(0.3)(f), f + 0.3 * EYE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(EYE, np.eye(3)), "data and augmentation"),
        (lambda: Linear(EYE, EYE, "both-terms", ema_rate=0.1), "passes no gradient"),
        (lambda: Linear(EYE, EYE, rate=-1.0), "rate: found -1"),
        (lambda: Linear(EYE, EYE, "both"), "variant: found 'both'"),
        (lambda: flow(Linear(EYE, EYE), np.eye(3), np.eye(3), [1.0]), "encoder and predictor"),
        (lambda: flow(Linear(EYE, EYE), EYE * np.nan, EYE, [1.0]), "start: found nan"),
        (lambda: theorem_2(Linear(EYE, EYE), flow(Linear(EYE, EYE), EYE, EYE, [1.0])), "theorem 2"),
        (lambda: theorem_3(Linear(EYE, EYE), flow(Linear(EYE, EYE), EYE, EYE, [1.0])), "theorem 3"),
    ],
)
def test_bad_input_is_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
