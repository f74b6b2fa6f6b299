"""Predictor diagnostics: exact for linear predictors, in DirectPred's theory, and at the ends of their ranges."""

import math

import pytest
import torch
from clouds import draws, gaussian, rotation, seeds
from hypothesis import given
from hypothesis import strategies as st

from collapse_lab import geometry
from collapse_lab.geometry import commutator, distance_from_identity, eigenspace
from collapse_lab.losses import negative_cosine


def psd(eigenvalues: list[float], seed: int = 1) -> torch.Tensor:
    turn = rotation(len(eigenvalues), seed)
    return turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.T


def with_moment(second: torch.Tensor) -> torch.Tensor:
    """D rows whose second moment is exactly the given (D, D)."""
    values, vectors = torch.linalg.eigh(second)
    return math.sqrt(len(second)) * vectors @ torch.diag(values.sqrt()) @ vectors.T


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


def test_a_ridge_is_that_of_the_normal_equations_and_shrinks_what_z_hardly_uses():
    z = gaussian(50, 4) * torch.tensor([1, 1, 1, 1e-3])
    p = torch.tanh(z) + 0.1 * gaussian(50, 4, seed=1)
    second, cross = z.T @ z / 50, p.T @ z / 50
    expected = cross @ torch.linalg.inv(second + 0.01 * second.trace() / 4 * torch.eye(4))
    torch.testing.assert_close(geometry.linear_map(z, p, ridge=0.01), expected)
    assert geometry.linear_map(z, p).norm() > 5 > geometry.linear_map(z, p, ridge=0.01).norm()


def test_singular_values_count_the_directions_that_are_passed_on():
    w = gaussian(8, 3) @ gaussian(3, 8, seed=1)
    values = geometry.singular_values(w)
    assert (values > 1e-9).sum() == 3
    assert values.tolist() == sorted(values.tolist(), reverse=True)
    turn = rotation(8)
    torch.testing.assert_close(geometry.singular_values(turn @ w @ turn.T), values)


# Distance from the identity.


@draws
@given(phi=st.floats(-3, 3), d=st.integers(1, 9))
def test_a_multiple_of_the_features_is_as_far_as_its_factor(phi, d):
    z = gaussian(20, d)
    assert distance_from_identity(z, phi * z) == pytest.approx(abs(1 - phi), abs=1e-12)
    assert distance_from_identity(z, phi * z, rescaled=True) == pytest.approx(0 if phi > 1e-150 else 1, abs=1e-7)


@draws
@given(seed=seeds)
def test_of_a_weight_alone_it_is_the_frobenius_distance(seed):
    w, identity = gaussian(5, 5, seed=seed), torch.eye(5).double()
    expected = float((w - identity).norm()) / math.sqrt(5)
    assert distance_from_identity(identity, w.T) == pytest.approx(expected, rel=1e-12)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_the_rescaled_distance_is_the_least_over_all_multiples_and_knows_no_basis(seed, scale):
    z, turn = gaussian(30, 5, seed=seed), rotation(5, seed)
    p = z + gaussian(30, 5, seed=seed + 1)
    least = min(distance_from_identity(z, s * p) for s in torch.linspace(0, 2, 2001).tolist())
    found = distance_from_identity(z @ turn, scale * p @ turn, rescaled=True)
    assert least - 1e-3 < found <= least + 1e-12
    assert distance_from_identity(z @ turn, p @ turn) == pytest.approx(distance_from_identity(z, p), rel=1e-9)


# Eigenspace alignment.


def test_directpreds_predictor_shares_the_eigenspace_with_gains_of_the_root():
    second = psd([5, 4, 2, 1, 0.5, 0.1])
    values, vectors = torch.linalg.eigh(second)
    z = with_moment(second)
    p = z @ (vectors @ torch.diag(values.sqrt()) @ vectors.T)
    found = eigenspace(z, p)
    torch.testing.assert_close(found.eigenvalues, torch.tensor([5, 4, 2, 1, 0.5, 0.1], dtype=torch.float64))
    torch.testing.assert_close(found.gains, found.eigenvalues.sqrt())
    torch.testing.assert_close(found.cosines, torch.ones(6).double())
    assert commutator(z, p) == pytest.approx(0, abs=1e-12)


@draws
@given(seed=seeds)
def test_gains_and_cosines_are_those_of_the_weight(seed):
    w, z = gaussian(5, 5, seed=seed), with_moment(psd([5, 3, 2, 1, 0.5], seed))
    values, vectors = torch.linalg.eigh(z.T @ z / 5)
    mapped = w @ vectors
    found = eigenspace(z, z @ w.T)
    torch.testing.assert_close(found.eigenvalues, values.flip(0))
    torch.testing.assert_close(found.gains, (vectors * mapped).sum(0).flip(0))
    torch.testing.assert_close(found.cosines, ((vectors * mapped).sum(0) / mapped.norm(dim=0)).flip(0))


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_alignment_knows_no_basis_no_scale_and_no_order(seed, scale):
    w, turn = gaussian(5, 5, seed=seed), rotation(5, seed + 1)
    z = gaussian(60, 5, seed=seed + 2) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
    p = torch.tanh(z @ w.T)
    one, other = eigenspace(z, p), eigenspace(z.flip(0) @ turn, scale * p.flip(0) @ turn)
    torch.testing.assert_close(other.cosines, one.cosines)
    torch.testing.assert_close(other.gains, scale * one.gains)
    assert commutator(z @ turn, scale * p @ turn) == pytest.approx(commutator(z, p), rel=1e-7)
    assert 0 < commutator(z, p) <= 1


def test_random_weights_are_not_aligned():
    d = 200
    z = gaussian(1000, d)
    cosines = eigenspace(z, z @ gaussian(d, d, seed=1)).cosines
    assert cosines.mean().item() == pytest.approx(0, abs=3 / d)
    assert cosines.std().item() == pytest.approx(1 / math.sqrt(d), rel=0.2)
    assert (eigenspace(z, z).cosines - 1).abs().max() < 1e-9
    assert (eigenspace(z, -z).cosines + 1).abs().max() < 1e-9


def test_the_commutator_decays_along_directpreds_flow():
    """dW = -(1 + s2)/2 {W, F} + F - e W, dF = -(1 + s2){W^2, F} + {W, F} - 2 e F, in Euler steps."""
    w, f, e, s2, step = psd([0.5, 0.3, 0.2], 3), psd([0.6, 0.2, 0.1], 4), 0.05, 0.2, 0.01
    aligned = []
    for count in range(3001):
        if count % 1000 == 0:
            z = with_moment(f)
            aligned.append(commutator(z, z @ w.T))
        both, square = w @ f + f @ w, w @ w @ f + f @ w @ w
        w, f = w + step * (f - (1 + s2) / 2 * both - e * w), f + step * (both - (1 + s2) * square - 2 * e * f)
        w, f = (w + w.T) / 2, (f + f.T) / 2
    assert aligned[0] > 5 * aligned[-1]
    assert aligned == sorted(aligned, reverse=True)


def test_zero_predictions_and_zero_features_have_defined_values():
    z, zero = gaussian(9, 3), torch.zeros(9, 3)
    assert eigenspace(z, zero).cosines.tolist() == eigenspace(z, zero).gains.tolist() == [0, 0, 0]
    assert eigenspace(zero, z).gains.tolist() == eigenspace(zero, z).eigenvalues.tolist() == [0, 0, 0]
    assert commutator(z, zero) == commutator(zero, z) == 0
    assert distance_from_identity(z, zero) == distance_from_identity(z, zero, rescaled=True) == 1
    assert distance_from_identity(zero, zero) == distance_from_identity(zero, z, rescaled=True) == 0
    assert distance_from_identity(zero, z) == math.inf


def test_one_row_and_fewer_rows_than_channels_have_defined_values():
    for n in (1, 3):
        z = gaussian(n, 6)
        found = eigenspace(z, 2 * z)
        assert found.gains.tolist() == pytest.approx([2.0] * n + [0.0] * (6 - n), abs=1e-9)
        assert commutator(z, 2 * z) == pytest.approx(0, abs=1e-12)


def test_rows_that_are_not_finite_read_nan():
    broken, z = torch.full((3, 3), math.nan), torch.eye(3)
    readings = [geometry.expectation_gap(broken, torch.ones(2, 3, 3)), *geometry.singular_values(broken).tolist()]
    for pair in ((broken, z), (z, broken)):
        readings += [distance_from_identity(*pair), distance_from_identity(*pair, rescaled=True), commutator(*pair)]
        readings += eigenspace(*pair).cosines.tolist() + geometry.linear_map(*pair).flatten().tolist()
    assert all(math.isnan(value) for value in readings)


def test_half_precision_is_read_in_float64():
    z, p = gaussian(20, 4).half(), gaussian(20, 4, seed=1).bfloat16()
    for read in (distance_from_identity, commutator):
        assert read(z, p) == read(z.double(), p.double())
    assert torch.equal(geometry.linear_map(z, p), geometry.linear_map(z.double(), p.double()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: distance_from_identity(torch.ones(3, 2), torch.ones(2, 2)),
            r"p: found shape \(2, 2\), expected that of z",
        ),
        (
            lambda: commutator(torch.ones(3, 2).long(), torch.ones(3, 2)),
            "z: found shape .*, torch.int64; expected floating",
        ),
        (lambda: eigenspace(torch.ones(3), torch.ones(3)), r"z: found shape \(3,\), .*expected floating \(N, D\)"),
        (
            lambda: geometry.linear_map(torch.ones(3, 2), torch.ones(3, 2), ridge=-1),
            "ridge: found -1, expected 0 or more",
        ),
        (lambda: geometry.singular_values(torch.ones(2, 3)), r"w: found shape \(2, 3\), expected a square"),
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
