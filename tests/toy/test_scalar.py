"""The scalar toy: reference values, conservation, closed forms against integration, the rule against autograd."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
import torch

from collapse_lab.errors import InputError
from collapse_lab.toy import closed
from collapse_lab.toy.flow import integrate
from collapse_lab.toy.rule import VARIANTS
from collapse_lab.toy.scalar import Scalar, conserved, field, flow, growth, growth_roots, log_field, loss, slot_loss

TIMES = [1, 2, 5, 10, 20, 30, 50]
# phi, theta at TIMES from (0.6, 0.1), to the digits of an integration at relative tolerance 1e-12.
REFERENCE = {
    "stop-gradient": (
        [0.60509941, 0.61318480, 0.67366673, 0.92242244, 0.99984788, 0.99999977, 1.0],
        [0.12706414, 0.16123151, 0.32222176, 0.70771686, 0.80603708, 0.80622549, 0.80622577],
    ),
    "both-terms": (
        [0.60341161, 0.60588345, 0.60997253, 0.61209768, 0.61267166, 0.61270017, 0.61270166],
        [0.0853366979, 0.0729921812, 0.0460589833, 0.0216381768, 0.00482098562, 0.00107562811, 5.35521643e-05],
    ),
    "second-term-only": (
        [0.60274636, 0.60398037, 0.60490491, 0.60499817, 0.605, 0.605, 0.605],
        [0.0671363349, 0.0451581060, 0.0137907924, 0.00191340258, 3.68419e-05, 7.0938e-07, 2.63e-10],
    ),
}
SYSTEMS = [
    Scalar(variant, noise2, rate, decay)
    for variant in VARIANTS
    for noise2, rate, decay in [(0.0, 1.0, 0.0), (0.4, 2.5, 0.0), (0.3, 0.5, 0.07), (0.2, 0.0, 0.1)]
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_values(variant: str) -> None:
    states = flow(Scalar(variant), 0.6, 0.1, TIMES).states
    for found, digits in zip(states.T, REFERENCE[variant], strict=True):
        # Half a unit of the last digit that is given, at most of the eighth decimal.
        last = [min(1e-8, 10.0 ** int(Decimal(repr(float(value))).as_tuple().exponent)) for value in digits]
        assert np.all(np.abs(found - digits) <= np.maximum(0.6 * np.array(last), 1e-13))


@pytest.mark.parametrize("variant", ["both-terms", "second-term-only"])
def test_flow_equals_the_closed_form_to_1e_8_relative_or_1e_10_absolute(variant: str) -> None:
    solve = {"both-terms": closed.both_terms, "second-term-only": closed.second_term_only}[variant]
    for phi, theta, rate in [(0.6, 0.1, 1.0), (0.6, 0.5, 1.0), (1.4, -0.1, 2.0), (-0.5, 1.5, 0.3), (0.6, 0.4, 1.0)]:
        states = flow(Scalar(variant, rate=rate), phi, theta, TIMES).states
        np.testing.assert_allclose(np.stack(solve(phi, theta, np.array(TIMES, float), rate), 1), states, 1e-8, 1e-10)


@pytest.mark.parametrize(
    ("phi", "theta", "noise2", "rate"),
    [(0.6, 0.1, 0.0, 1.0), (0.6, 0.9, 0.0, 1.0), (0.3, 0.2, 0.5, 2.0), (1.4, 0.1, 0.0, 1.0), (-0.5, 0.1, 0.3, 1.0)],
)
def test_stop_gradient_passes_each_phi_at_the_time_of_the_closed_form(
    phi: float, theta: float, noise2: float, rate: float
) -> None:
    end, _ = closed.end_state("stop-gradient", phi, theta, noise2, rate)
    passed = phi + (end - phi) * np.array([0.1, 0.5, 0.9, 0.999])
    times = closed.stop_gradient_time(passed, phi, theta, noise2, rate)
    states = flow(Scalar(noise2=noise2, rate=rate), phi, theta, times).states
    np.testing.assert_allclose(states[:, 0], passed, 1e-8, 1e-10)


def test_time_to_reach_phi() -> None:
    found = closed.stop_gradient_time([0.9, 0.99, 0.999], 0.6, 0.1)
    np.testing.assert_allclose(found, [9.472072, 13.513318, 17.098975], atol=5e-7)
    with pytest.raises(InputError, match=r"only passes 0\.6 to 1"):
        closed.stop_gradient_time(1.2, 0.6, 0.1)
    with pytest.raises(InputError, match="no such form"):
        closed.stop_gradient_time(0.9, 0.5, 0.5)


@pytest.mark.parametrize(
    "system", [s for s in SYSTEMS if s.rate and (s.variant == "stop-gradient" or not s.weight_decay)]
)
def test_conserved_quantity_drifts_less_than_1e_9(system: Scalar) -> None:
    for phi, theta in [(0.6, 0.1), (1.4, 0.5), (-0.5, 0.8)]:
        found = flow(system, phi, theta, np.linspace(0, 50, 101))
        value = conserved(system, found.states[:, 0], found.states[:, 1], 0.0)
        expected = value[0] * np.exp(-2 * float(np.asarray(system.weight_decay)) * found.times)
        assert np.abs(value - expected).max() < 1e-9


def test_conserved_values_of_the_blogs_start() -> None:
    found = [float(conserved(Scalar(variant), 0.6, 0.1)) for variant in VARIANTS]
    np.testing.assert_allclose(found, [0.35, 0.15, 0.395], rtol=1e-14)
    with pytest.raises(InputError, match="weight_decay"):
        conserved(Scalar("both-terms", weight_decay=0.1), 0.6, 0.1)


def test_conserved_is_infinite_on_the_line_that_is_never_crossed() -> None:
    # 1 / q = 0.8, and phi rests there.
    system = Scalar("both-terms", noise2=0.25)
    assert float(conserved(system, 0.8, 0.1)) == -np.inf
    assert flow(system, 0.8, 0.1, [5.0]).states[0, 0] == 0.8


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_the_encoder_rests_at_the_roots_of_its_growth(system: Scalar) -> None:
    phi = growth_roots(system)
    assert np.abs(growth(system, phi)).max(initial=0.0) < 1e-14
    # Between and beyond them its sign is the same everywhere, so there are no others.
    for low, high in zip([-50.0, *phi], [*phi, 50.0], strict=True):
        inside = growth(system, np.linspace(low, high, 1001)[1:-1])
        assert np.all(inside < 0) or np.all(inside > 0)


def test_end_states_and_decay_rates_of_the_blogs_start() -> None:
    assert closed.end_state("stop-gradient", 0.6, 0.1) == pytest.approx((1, 0.806225774829855), abs=1e-14)
    assert closed.end_state("both-terms", 0.6, 0.1) == pytest.approx((0.612701665379258, 0), abs=1e-14)
    assert closed.end_state("second-term-only", 0.6, 0.1) == pytest.approx((0.605, 0), abs=1e-14)
    for variant, rate, index in [("stop-gradient", 0.65, 0), ("both-terms", 0.15, 1), ("second-term-only", 0.395, 1)]:
        end = closed.end_state(variant, 0.6, 0.1)[index]
        early, late = np.abs(flow(Scalar(variant), 0.6, 0.1, [25.0, 26.0]).states[:, index] - end)
        assert np.log(early / late) == pytest.approx(rate, abs=2e-4)


def test_initial_slopes() -> None:
    slopes = [field(Scalar(variant), np.float64(0.6), np.float64(0.1)).tolist() for variant in VARIANTS]
    np.testing.assert_allclose(slopes, [[0.004, 0.024], [0.004, -0.016], [0.004, -0.04]], atol=1e-15)


def test_the_loss_first_rises_under_stop_gradient() -> None:
    phi = (1 + np.sqrt(1 + 8 * 0.35)) / 4
    time = closed.stop_gradient_time(phi, 0.6, 0.1)
    at, theta = flow(Scalar(), 0.6, 0.1, [float(time)]).states[0]
    assert (phi, theta, time) == pytest.approx((0.73733972, 0.44007938, 6.496425), abs=1e-6)
    assert float(loss(0.6, 0.1)) == pytest.approx(8.0e-4, rel=1e-12)
    assert float(loss(at, theta)) == pytest.approx(6.68068284e-3, rel=1e-8)
    states = flow(Scalar(), 0.6, 0.1, np.linspace(0, 50, 2001)).states
    assert loss(states[:, 0], states[:, 1]).max() <= 6.68068285e-3


def test_noise_and_rate_move_the_end_state() -> None:
    for noise2, expected in [(0.1, (0.90909091, 0.69025088)), (0.5, (0.66666667, 0.30731815)), (1.0, (0.591608, 0.0))]:
        assert closed.end_state("stop-gradient", 0.6, 0.1, noise2) == pytest.approx(expected, abs=6e-7)
        reached = flow(Scalar(noise2=noise2), 0.6, 0.1, [300.0]).states[0]
        assert reached == pytest.approx(closed.end_state("stop-gradient", 0.6, 0.1, noise2), abs=1e-8)
    rates = {0.1: 2.531798, 0.5: 1.135782, 1: 0.806226, 2: 0.574456, 10: 0.272029, 100: 0.128062}
    for rate, theta in rates.items():
        assert closed.end_state("stop-gradient", 0.6, 0.1, rate=rate)[1] == pytest.approx(theta, abs=6e-7)
    for noise2, time, expected in [(0.01, 200.0, (0.958317, 0.004192)), (0.1, 200.0, (0.728736, 0.0))]:
        assert flow(Scalar("both-terms", noise2), 0.6, 0.5, [time]).states[0] == pytest.approx(expected, abs=1e-6)


def test_without_predictor_stop_gradient_halves_the_rate_of_collapse() -> None:
    for variant, rate in [("stop-gradient", 0.3), ("both-terms", 0.6)]:
        found = flow(Scalar(variant, noise2=0.3, rate=0.0), 1.0, 0.5, [2.0]).states[0]
        assert found == pytest.approx((1.0, 0.5 * np.exp(-2 * rate)), rel=1e-10)


def test_the_encoder_is_the_faster_one_on_the_stop_gradient_path() -> None:
    moved = np.abs(field(Scalar(), *flow(Scalar(), 0.6, 0.1, np.linspace(0, 20, 50)).states.T))
    assert np.all(moved[1] > moved[0])


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_autograd_of_the_loss_equals_the_field(system: Scalar) -> None:
    generator = np.random.default_rng(0)
    s2, a, e = (float(value) for value in system.numbers)
    keep = VARIANTS[system.variant]
    for phi, theta in generator.uniform(-2, 2, (20, 2)):
        p, one, two = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (phi, theta, theta))
        value = slot_loss(p, one, two, s2)
        dp, done, dtwo = torch.autograd.grad(value, (p, one, two))
        expected = [-a * dp - e * (a > 0) * phi, -(keep.prediction * done + keep.target * dtwo) - e * theta]
        np.testing.assert_allclose(field(system, phi, theta), [float(x) for x in expected], 1e-12, 1e-12)
        assert value.item() == pytest.approx(float(loss(phi, theta, s2)), rel=1e-12)


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_the_field_in_the_logarithm_is_the_same_field(system: Scalar) -> None:
    phi, theta = np.random.default_rng(1).uniform(0.1, 2, (2, 20))
    dphi, dtheta = field(system, phi, theta)
    np.testing.assert_allclose(log_field(system, phi, np.log(theta)), [dphi, dtheta / theta], 1e-11, 1e-12)
    np.testing.assert_allclose(growth(system, phi), dtheta / theta, 1e-11, 1e-12)


def test_many_starts_and_parameters_at_once_equal_one_by_one() -> None:
    generator = np.random.default_rng(2)
    phi, theta = generator.uniform(-1, 2, (2, 12))
    noise2, rate, decay = generator.uniform(0, 1, (3, 12))
    together = flow(Scalar("stop-gradient", noise2, rate, decay), phi, theta, [1.0, 4.0])
    assert together.states.shape == (2, 2, 12)
    for i in range(12):
        alone = flow(Scalar("stop-gradient", noise2[i], rate[i], decay[i]), phi[i], theta[i], [1.0, 4.0])
        np.testing.assert_allclose(together.states[..., i], alone.states, 1e-9, 1e-11)
        assert together.collapsed_at[i] == pytest.approx(float(alone.collapsed_at), rel=1e-6)


def test_events_have_the_times_of_the_closed_form() -> None:
    found = flow(Scalar("second-term-only"), 0.6, 0.1, [60.0])
    theta = closed.second_term_only(0.6, 0.1, float(found.collapsed_at))[1]
    assert float(theta) == pytest.approx(1e-3, rel=1e-8)
    assert found.diverged_at == np.inf
    assert flow(Scalar(), 0.6, 1e-4, [1.0]).collapsed_at == 0.0


def test_divergence_is_reported_with_its_time_and_stops_the_trajectory() -> None:
    found = flow(Scalar(rate=0.0), 0.5, 1.0, [10.0, 40.0, 100.0])
    assert float(found.diverged_at) == pytest.approx(np.log(1e6) / 0.25, rel=1e-9)
    assert found.times.tolist() == [10.0, 40.0]
    assert np.isfinite(found.states).all()


def test_time_0_is_the_start_and_divergence_before_the_first_time_records_nothing() -> None:
    assert flow(Scalar(), 0.6, 0.1, [0.0]).states.tolist() == [[0.6, 0.1]]
    assert flow(Scalar(), 0.6, [0.1, 0.2], 0.0).states.shape == (1, 2, 2)
    assert flow(Scalar(rate=0.0), 0.5, 1.0, [100.0]).states.shape == (0, 2)


def test_a_stiff_start_is_integrated() -> None:
    found = flow(Scalar(), 0.6, 1000.0, [50.0])
    assert found.states[0] == pytest.approx(closed.end_state("stop-gradient", 0.6, 1000.0), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flow(Scalar("stop-gradeint"), 0.6, 0.1, [1.0]), "'stop-gradeint'.*did you mean 'stop-gradient'"),
        (lambda: flow(Scalar(), 0.6, 0.1, [-1.0]), r"time: found -1\.0"),
        (lambda: flow(Scalar(), 0.6, 0.1, [np.nan]), "time: found nan"),
        (lambda: flow(Scalar(), 0.6, 0.1, [2.0, 1.0]), "increasing"),
        (lambda: flow(Scalar(), np.nan, 0.1, [1.0]), "start: found nan"),
        (lambda: flow(Scalar(), 0.6, [0.1, np.inf], [1.0]), "start: found inf"),
        (lambda: Scalar(noise2=-0.1), r"noise2: found -0\.1"),
        (lambda: Scalar(rate=np.inf), "rate: found inf"),
        (lambda: Scalar(weight_decay=[0.1, -1.0]), r"weight_decay: found -1\.0"),
        (lambda: closed.end_state("both-terms", 0.6, 0.1, 0.2), "closed form"),
    ],
)
def test_bad_input_is_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_a_solver_that_cannot_go_on_is_an_error() -> None:
    with pytest.raises(InputError, match="stopped before 2"):
        integrate(lambda t, y: -1 / y, [1.0], [2.0], encoder=slice(0, 1))
