"""Predictor diagnostics: exact for linear predictors, in DirectPred's theory, and at the ends of their ranges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import geometry
from collapse_lab.geometry import commutator, covariance_moments, distance_from_identity, eigenspace, moments
from collapse_lab.losses import negative_cosine

draws = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(gaussian(d, d, seed=seed)).Q


def psd(eigenvalues: list[float], seed: int = 1) -> torch.Tensor:
    turn = rotation(len(eigenvalues), seed)
    return turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.T


# The predictor as a matrix.


@draws
@given(seed=seeds)
def test_a_linear_predictor_is_found_again(seed):
    w, z = gaussian(6, 6, seed=seed), gaussian(40, 6, seed=seed + 1) + 1
    torch.testing.assert_close(geometry.linear_map(z, z @ w.T), w)


def test_the_linear_map_is_numpys_least_squares_and_leaves_a_residual_that_z_cannot_explain():
    z = gaussian(50, 5)
    p = torch.tanh(z @ gaussian(5, 5, seed=1))
    w = geometry.linear_map(z, p)
    torch.testing.assert_close(w.T, torch.linalg.lstsq(z, p).solution)
    torch.testing.assert_close(z.T @ (p - z @ w.T), torch.zeros(5, 5).double(), atol=1e-10, rtol=0)


def test_directions_that_features_do_not_use_are_mapped_to_zero():
    w = gaussian(6, 6)
    for z in (gaussian(3, 6), gaussian(50, 2) @ gaussian(2, 6, seed=1)):
        found = geometry.linear_map(z, z @ w.T)
        torch.testing.assert_close(z @ found.T, z @ w.T)
        assert torch.linalg.matrix_rank(found) == torch.linalg.matrix_rank(z)
    assert torch.equal(geometry.linear_map(torch.zeros(9, 4), torch.ones(9, 4)), torch.zeros(4, 4).double())


# Distance from the identity.


@draws
@given(phi=st.floats(-3, 3), d=st.integers(1, 9))
def test_a_multiple_of_the_identity_is_as_far_as_its_factor(phi, d):
    w = phi * torch.eye(d).double()
    assert distance_from_identity(w) == pytest.approx(abs(1 - phi), abs=1e-12)
    assert distance_from_identity(w, rescaled=True) == pytest.approx(0 if phi > 1e-150 else 1, abs=1e-7)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_the_rescaled_distance_is_the_least_over_all_multiples(seed, scale):
    w = gaussian(5, 5, seed=seed) + torch.eye(5)
    least = min(distance_from_identity(s * w) for s in torch.linspace(0, 2, 2001).tolist())
    assert distance_from_identity(scale * w, rescaled=True) == pytest.approx(least, abs=1e-3)
    assert distance_from_identity(scale * w, rescaled=True) <= least + 1e-12
    cosine = max(0.0, float(w.trace() / (math.sqrt(5) * w.norm())))
    assert distance_from_identity(scale * w, rescaled=True) == pytest.approx(math.sqrt(1 - cosine**2), rel=1e-6)


@draws
@given(seed=seeds)
def test_distance_and_singular_values_know_no_basis(seed):
    w, turn = gaussian(5, 5, seed=seed), rotation(5, seed)
    assert distance_from_identity(turn @ w @ turn.T) == pytest.approx(distance_from_identity(w), rel=1e-9)
    torch.testing.assert_close(geometry.singular_values(turn @ w @ turn.T), geometry.singular_values(w))


def test_singular_values_count_the_directions_that_are_passed_on():
    values = geometry.singular_values(gaussian(8, 3) @ gaussian(3, 8, seed=1))
    assert (values > 1e-9).sum() == 3
    assert values.tolist() == sorted(values.tolist(), reverse=True)


# Eigenspace alignment.


def test_directpreds_predictor_shares_the_eigenspace_with_gains_of_the_root():
    second = psd([5, 4, 2, 1, 0.5, 0.1])
    values, vectors = torch.linalg.eigh(second)
    w, m = vectors @ torch.diag(values.sqrt()) @ vectors.T, covariance_moments(second, 1000)
    found = eigenspace(w, m)
    torch.testing.assert_close(found.eigenvalues, torch.tensor([5, 4, 2, 1, 0.5, 0.1], dtype=torch.float64))
    torch.testing.assert_close(found.gains, found.eigenvalues.sqrt())
    torch.testing.assert_close(found.cosines, torch.ones(6).double())
    assert commutator(w, m) == pytest.approx(0, abs=1e-12)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_alignment_knows_no_basis_and_no_scale(seed, scale):
    w, second, turn = gaussian(5, 5, seed=seed), psd([5, 3, 2, 1, 0.5], seed), rotation(5, seed + 1)
    m, turned = covariance_moments(second, 100), covariance_moments(turn @ second @ turn.T, 100)
    one, other = eigenspace(w, m), eigenspace(scale * turn @ w @ turn.T, turned)
    torch.testing.assert_close(other.cosines, one.cosines)
    torch.testing.assert_close(other.gains, scale * one.gains)
    assert commutator(scale * turn @ w @ turn.T, turned) == pytest.approx(commutator(w, m), rel=1e-9)
    assert 0 < commutator(w, m) <= 1


def test_random_weights_are_not_aligned():
    d = 200
    m = moments(gaussian(1000, d), normalise=False)
    cosines = eigenspace(gaussian(d, d, seed=1), m).cosines
    assert cosines.mean().item() == pytest.approx(0, abs=3 / d)
    assert cosines.std().item() == pytest.approx(1 / math.sqrt(d), rel=0.2)
    assert (eigenspace(torch.eye(d), m).cosines - 1).abs().max() < 1e-9
    assert (eigenspace(-torch.eye(d), m).cosines + 1).abs().max() < 1e-9


def test_the_commutator_decays_along_directpreds_flow_within_its_bound():
    """dW = -(a/2)(1 + s2){W, F} + a F - e W, dF = -(1 + s2){W^2, F} + {W, F} - 2 e F, Euler steps."""
    w, f, e, s2, step = psd([0.5, 0.3, 0.2], 3), psd([0.6, 0.2, 0.1], 4), 0.05, 0.2, 0.01
    norms, aligned = [], []
    for _ in range(3000):
        norms.append(float((f @ w - w @ f).norm()))
        aligned.append(commutator(w, covariance_moments(f, 100)))
        both = w @ f + f @ w
        square = w @ w @ f + f @ w @ w
        w, f = w + step * (f - (1 + s2) / 2 * both - e * w), f + step * (both - (1 + s2) * square - 2 * e * f)
        w, f = (w + w.T) / 2, (f + f.T) / 2
    assert norms[-1] < 1e-3 * norms[0]
    assert aligned[-1] < 0.05 < aligned[0]


def test_zero_predictors_and_zero_features_have_defined_alignment():
    m, nothing = covariance_moments(psd([2, 1, 0.5]), 10), moments(torch.zeros(9, 3), normalise=False)
    zero = torch.zeros(3, 3)
    assert eigenspace(zero, m).cosines.tolist() == eigenspace(zero, m).gains.tolist() == [0, 0, 0]
    assert commutator(zero, m) == commutator(torch.ones(3, 3), nothing) == 0
    assert eigenspace(torch.eye(3), nothing).eigenvalues.tolist() == [0, 0, 0]


def test_weights_and_features_that_are_not_finite_read_nan():
    broken, m = torch.full((3, 3), math.nan), covariance_moments(torch.eye(3), 10)
    bad = moments(torch.full((4, 3), math.nan))
    readings = [
        distance_from_identity(broken),
        distance_from_identity(broken, rescaled=True),
        commutator(broken, m),
        commutator(torch.eye(3), bad),
        *geometry.singular_values(broken).tolist(),
        *eigenspace(broken, m).cosines.tolist(),
        *eigenspace(torch.eye(3), bad).gains.tolist(),
        *geometry.linear_map(broken, torch.eye(3)).flatten().tolist(),
        geometry.expectation_gap(broken, torch.ones(2, 3, 3)),
    ]
    assert all(math.isnan(value) for value in readings)


def test_half_precision_is_read_in_float64():
    w, z = gaussian(4, 4).bfloat16(), gaussian(20, 4).half()
    m = moments(z, normalise=False)
    assert distance_from_identity(w) == distance_from_identity(w.double())
    assert commutator(w, m) == commutator(w.double(), m)
    assert torch.equal(geometry.linear_map(z, z), geometry.linear_map(z.double(), z.double()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distance_from_identity(torch.ones(2, 3)), r"w: found shape \(2, 3\), expected a square \(2, 2\)"),
        (lambda: commutator(torch.eye(2), moments(torch.eye(3))), r"w: found shape \(2, 2\), expected .* \(3, 3\)"),
        (lambda: geometry.singular_values(torch.eye(2).long()), "w: found shape .*, torch.int64; expected floating"),
        (
            lambda: geometry.linear_map(torch.ones(3, 2), torch.ones(2, 2)),
            r"p: found shape \(2, 2\), expected that of z",
        ),
        (lambda: geometry.expectation_gap(torch.ones(3, 2), torch.ones(3, 2)), r"expected \(K, N, D\) with .*\(3, 2\)"),
        (lambda: geometry.gradient_norms(torch.ones(2), torch.ones(2), torch.ones(2)), "expected a scalar"),
        (lambda: geometry.gradient_norms(torch.ones(()), torch.ones(2), torch.ones(2)), "must require gradients"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The gap to the expectation, and the forces.


def test_the_gap_is_that_of_the_direction_of_the_mean_target():
    p, targets = gaussian(7, 5), gaussian(4, 7, 5, seed=1)
    gaps = []
    for n in range(7):
        mean = sum(target[n] / target[n].norm() for target in targets)
        gaps.append(1 - float(p[n] @ mean / (p[n].norm() * mean.norm())))
    assert geometry.expectation_gap(p, targets) == pytest.approx(sum(gaps) / 7, rel=1e-12)


def test_the_direction_of_the_mean_target_has_no_gap_and_the_least_loss():
    targets = gaussian(6, 20, 5) + 1
    best = torch.nn.functional.normalize(targets, dim=2).mean(0)
    assert geometry.expectation_gap(best, targets) == pytest.approx(0, abs=1e-12)
    assert geometry.expectation_gap(-best, targets) == pytest.approx(2)
    losses = [
        torch.stack([negative_cosine(p, target) for target in targets]).mean()
        for p in (best, best + 0.1 * gaussian(20, 5, seed=1), targets[0])
    ]
    assert losses[0] < min(losses[1:])


def test_one_target_gives_one_plus_the_loss():
    p, target = gaussian(9, 4), gaussian(9, 4, seed=1)
    assert geometry.expectation_gap(p, target[None]) == pytest.approx(1 + float(negative_cosine(p, target)), rel=1e-6)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_the_gap_knows_no_scale_order_or_rotation(seed, scale):
    p, targets, turn = gaussian(8, 4, seed=seed), gaussian(3, 8, 4, seed=seed + 1), rotation(4, seed)
    expected = geometry.expectation_gap(p, targets)
    assert geometry.expectation_gap(scale * p.flip(0) @ turn, targets.flip(0, 1) @ turn) == pytest.approx(
        expected, rel=1e-9
    )


def test_zero_predictions_and_targets_count_as_cosine_zero():
    assert geometry.expectation_gap(torch.zeros(3, 2), torch.ones(4, 3, 2)) == 1
    assert geometry.expectation_gap(torch.ones(3, 2), torch.stack([torch.ones(3, 2), -torch.ones(3, 2)])) == 1


def test_the_force_of_a_cosine_loss_is_the_sine_over_the_norm():
    p, z, t = gaussian(6, 4).requires_grad_(), gaussian(6, 4, seed=2).requires_grad_(), gaussian(6, 4, seed=1)
    cosine = torch.nn.functional.cosine_similarity(p, t).detach()
    expected = float(((1 - cosine**2).sqrt() / p.detach().norm(dim=1)).mean())
    found = geometry.gradient_norms(negative_cosine(p, t), p, z)
    assert found.p == pytest.approx(expected, rel=1e-6)
    assert found.z == 0


def test_the_force_at_z_comes_through_the_predictor():
    z, w, t = gaussian(6, 4).requires_grad_(), gaussian(4, 4, seed=1), gaussian(6, 4, seed=2)
    p = z @ w.T
    found = geometry.gradient_norms((p - t).square().sum(1).mean(), p, z)
    force = 2 * (p - t).detach()
    assert found.p == pytest.approx(float(force.norm(dim=1).mean()), rel=1e-12)
    assert found.z == pytest.approx(float((force @ w).norm(dim=1).mean()), rel=1e-12)
    assert z.grad is None


def test_without_a_predictor_the_stop_gradient_halves_the_force():
    views = gaussian(2, 16, 5).requires_grad_()
    forces = []
    for target in (views.flip(0).detach(), views.flip(0)):
        forces.append(geometry.gradient_norms(negative_cosine(views, target), views, views).z)
    assert forces[0] == pytest.approx(forces[1] / 2, rel=1e-6)


def test_the_force_does_not_depend_on_how_often_a_batch_is_repeated():
    p, t = gaussian(6, 4), gaussian(6, 4, seed=1)
    found = []
    for times in (1, 3):
        many = p.repeat(times, 1).requires_grad_()
        found.append(geometry.gradient_norms(negative_cosine(many, t.repeat(times, 1)), many, many).p)
    assert found[0] == pytest.approx(found[1], rel=1e-6)
