"""Alternation: exact and k-step rounds, sampled eta, mean-input, and the gradient that they share without predictor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from collapse_lab.errors import InputError
from collapse_lab.toy import alternation, siamese
from collapse_lab.toy.closed import end_state
from collapse_lab.toy.flow import integrate
from collapse_lab.toy.rule import Array
from collapse_lab.toy.scalar import slot_gradient

Gradient = Callable[[Array, Array, Array], Array]


def test_exact_rounds_reference_values() -> None:
    expected = [0.1, 0.162961, 0.253232, 0.364441, 0.478832, 0.578626, 0.655371, 0.709460]
    np.testing.assert_allclose(alternation.exact_rounds(0.6, 0.1, 7), expected, atol=5.1e-7)


@pytest.mark.parametrize(
    ("phi", "theta", "noise2", "rate"),
    [
        (0.6, 0.1, 0.0, 1.0),
        (0.6, 0.1, 0.3, 1.0),
        (0.4, 0.9, 0.0, 0.5),
        (1.2, -0.8, 0.1, 1.0),
        (0.6, 0.1, 0.0, 3.0),
        (1.4, 0.1, 0.0, 1.0),
        (1.2, 0.2, 0.3, 2.0),
    ],
)
def test_exact_rounds_contract_to_simsiams_limit(phi: float, theta: float, noise2: float, rate: float) -> None:
    found = alternation.exact_rounds(phi, theta, 2000, noise2, rate)
    end = end_state("stop-gradient", phi, theta, noise2, rate)
    limit = end[1]
    assert found[-1] == pytest.approx(limit, abs=1e-12)
    distance = np.abs(found - limit)
    near = np.flatnonzero(distance < 1e-4)[0]
    assert distance[near + 1] / distance[near] == pytest.approx(alternation.contraction(end, noise2, rate), rel=1e-3)


def test_contraction_of_the_blogs_start() -> None:
    assert alternation.contraction(end_state("stop-gradient", 0.6, 0.1)) == pytest.approx(0.606061, abs=5e-7)


@pytest.mark.parametrize(("noise2", "rate"), [(0.0, 1.0), (0.4, 1.0), (0.4, 2.5)])
def test_an_exact_round_is_the_inner_flow_run_to_its_end(noise2: float, rate: float) -> None:
    def inner(t: float, y: Array) -> Array:
        residual = (1 + noise2) * y[0] * y[1] - 0.1
        return -residual * np.array([rate * y[1], y[0]])

    end = integrate(inner, [0.6, 0.1], [200.0], encoder=slice(1, 2)).states[-1]
    assert end[1] == pytest.approx(alternation.exact_rounds(0.6, 0.1, 1, noise2, rate)[1], abs=1e-10)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.807971), (10, 0.807560), (100, 0.807132)])
def test_k_step_limits(k: int, expected: float) -> None:
    assert alternation.k_step_rounds(0.6, 0.1, k, 0.1, 20000)[1][-1] == pytest.approx(expected, abs=5.1e-7)


def test_many_small_steps_are_an_exact_round() -> None:
    found = alternation.k_step_rounds(0.6, 0.1, 40000, 0.001, 40000)[1][-1]
    assert found == pytest.approx(alternation.exact_rounds(0.6, 0.1, 1)[1], abs=1e-4)


@pytest.mark.parametrize("noise2", [0.1, 0.5])
@pytest.mark.parametrize("k", [1, 7])
def test_without_predictor_a_round_shrinks_theta_by_its_factor(noise2: float, k: int) -> None:
    theta, target = 0.8, 0.8
    for _ in range(k):
        theta -= 0.2 * ((1 + noise2) * theta - target)
    factor = alternation.round_factor(noise2, 0.2, k)
    assert theta == pytest.approx(0.8 * factor, rel=1e-12)
    assert alternation.round_factor(noise2) < factor < 1


@pytest.mark.parametrize("noise2", [0.1, 0.7])
def test_gradient_moments_by_quadrature(noise2: float) -> None:
    exact: Gradient = lambda x, n1, n2: n1 * (x + n1)  # noqa: E731
    sampled: Gradient = lambda x, n1, n2: (n1 - n2) * (x + n1)  # noqa: E731
    averaged: Gradient = lambda x, n1, n2: (n1 - n2 / np.sqrt(8)) * (x + n1)  # noqa: E731
    plain: Gradient = lambda x, n1, n2: (n1 - n2) ** 2  # noqa: E731
    for draw, closed in [
        (exact, alternation.sampled_eta(noise2, None)),
        (sampled, alternation.sampled_eta(noise2, 1)),
        (averaged, alternation.sampled_eta(noise2, 8)),
        (plain, alternation.plain_siamese(noise2)),
    ]:
        assert alternation.over_draws(draw, noise2) == pytest.approx(closed, rel=1e-10)
    # The plain loss is twice the profile loss, its single-draw variance four times.
    losses = [alternation.over_draws(draw, noise2) for draw in (lambda x, n1, n2: n1**2, plain)]
    assert losses[1].mean == pytest.approx(2 * losses[0].mean)
    assert losses[1].variance == pytest.approx(4 * losses[0].variance)


def test_mean_input_with_predictor_has_simsiams_expected_gradient_and_less_variance() -> None:
    phi, theta, noise2 = 0.6, 0.4, 0.3
    simsiam: Gradient = lambda x, n1, n2: (phi * theta * (x + n1) - theta * (x + n2)) * phi * (x + n1)  # noqa: E731
    mean_input: Gradient = lambda x, n1, n2: (phi * theta * (x + n1) - theta * x) * phi * (x + n1)  # noqa: E731
    head: Gradient = lambda x, n1, n2: (phi * theta * (x + n1) - theta * x) * theta * (x + n1)  # noqa: E731
    one, other = (alternation.over_draws(draw, noise2) for draw in (simsiam, mean_input))
    expected = slot_gradient(np.float64(phi), np.float64(theta), noise2)  # type: ignore[arg-type]
    assert one.mean == pytest.approx(other.mean)
    assert one.mean == pytest.approx(float(expected.prediction))
    assert alternation.over_draws(head, noise2).mean == pytest.approx(float(expected.predictor))
    assert other.variance < one.variance


def test_mean_input_without_predictor_collapses_alike_with_and_without_stop_gradient() -> None:
    theta, noise2 = 0.7, 0.25
    stopped: Gradient = lambda x, n1, n2: theta * n1 * (x + n1)  # noqa: E731
    both: Gradient = lambda x, n1, n2: theta * n1 * n1  # noqa: E731
    for draw in (stopped, both):
        assert alternation.over_draws(draw, noise2).mean == pytest.approx(theta * noise2)
    found = integrate(lambda t, y: -noise2 * y, [theta], [3.0], encoder=slice(0, 1)).states[-1, 0]
    assert found == pytest.approx(float(alternation.mean_input(theta, noise2, np.array(3.0))), rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_without_predictor_exact_sampled_and_siamese_share_one_expected_gradient(seed: int) -> None:
    network, views = siamese.drawn(seed)
    exact = siamese.exact_eta(network, views)
    assert np.abs(exact).max() > 0.05
    np.testing.assert_allclose(siamese.profile(network, views), exact, atol=1e-15)
    np.testing.assert_allclose(siamese.sampled_eta(network, views), exact, atol=1e-15)
    np.testing.assert_allclose(siamese.plain_siamese(network, views), 2 * exact, atol=2e-15)


def test_the_mlps_gradients_are_autograds() -> None:
    network, views = siamese.drawn(7)
    first, second = (torch.tensor(part, requires_grad=True) for part in network)
    z = torch.tanh(torch.tensor(views) @ first.T) @ second.T
    exact = (z - z.mean(1, keepdim=True).detach()).square().sum(-1).mean()
    plain = (z[:, :, None] - z[:, None]).square().sum(-1).mean()
    for loss, mine in [(exact, siamese.exact_eta), (plain, siamese.plain_siamese)]:
        gradients = torch.autograd.grad(loss, (first, second), retain_graph=True)
        flat = torch.cat([gradient.flatten() for gradient in gradients]).numpy()
        np.testing.assert_allclose(mine(network, views), flat, atol=1e-14)


def test_a_diverging_descent_ends_before_the_step_that_leaves_the_numbers() -> None:
    phi, theta = alternation.k_step_rounds(0.6, 5.0, 3, 1.0, 50)
    assert 1 < len(phi) == len(theta) < 51
    assert np.abs([phi, theta]).max() < 1e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: alternation.exact_rounds(-0.6, 0.1, 1), r"phi: found -0\.6"),
        (lambda: alternation.exact_rounds(np.nan, 0.1, 1), "start: found nan"),
        (lambda: alternation.exact_rounds(0.6, 0.1, -1), "rounds: found -1"),
        (lambda: alternation.exact_rounds(0.6, 0.1, 1, rate=0.0), "rate: found 0"),
        (lambda: alternation.k_step_rounds(0.6, 0.1, 0, 0.1, 1), "k: found 0"),
    ],
)
def test_bad_input_is_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("noise2", "rate", "decay"), [(0.5, 1.0, 0.05), (0.1, 1.0, 0.04), (0.0, 2.0, 0.1)])
@pytest.mark.parametrize("theta", [0.01, 0.3, -0.9])
def test_exact_rounds_with_weight_decay_are_the_inner_flow_run_to_its_end(noise2, rate, decay, theta):
    def inner(time, weights, target):
        p, w = weights
        residual = (1 + noise2) * p * w - target
        return [-rate * w * residual - decay * p, -p * residual - decay * w]

    weights, found = [0.6, theta], [theta]
    for _ in range(3):
        weights = solve_ivp(inner, (0, 4000), weights, args=(found[-1],), rtol=1e-10, atol=1e-13, method="LSODA").y[
            :, -1
        ]
        found.append(weights[1])
    rounds = alternation.exact_rounds(0.6, theta, 200, noise2, rate, decay)
    np.testing.assert_allclose(rounds[:4], found, rtol=1e-6, atol=1e-6)
    limit, factor = alternation.decayed_limit(theta, noise2, rate, decay)
    assert rounds[-1] == pytest.approx(limit, abs=1e-9)
    if factor and abs(rounds[8] - limit) > 1e-9:
        assert (rounds[9] - limit) / (rounds[8] - limit) == pytest.approx(factor, rel=0.1)


def test_descent_in_rounds_with_weight_decay_ends_at_p_plus():
    _, theta = alternation.k_step_rounds(0.6, 0.6, 10, 0.1, 20000, 0.5, 1.0, 0.05)
    # A round's fixed point is that of the flow: p = theta = p_+.
    assert theta[-1] == pytest.approx(0.61222001, abs=1e-8)
