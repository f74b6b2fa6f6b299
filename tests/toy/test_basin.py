"""Fates: the examples, exact boundaries, integration against the decision, trapping sets and separatrix."""

from __future__ import annotations

import numpy as np
import pytest

from collapse_lab.errors import InputError
from collapse_lab.toy.basin import Plane, boundary, fates, integrated_fates, shares
from collapse_lab.toy.closed import end_state
from collapse_lab.toy.fate import COLLAPSED, FATES, NOT_COLLAPSED, UNDECIDED, decide, divergence_time
from collapse_lab.toy.modes import critical_noise2, critical_weight_decay, fixed_points
from collapse_lab.toy.rule import VARIANTS
from collapse_lab.toy.scalar import Scalar, flow
from collapse_lab.toy.separatrix import log_gap_on_separatrix


def fate(system: Scalar, phi: float, theta: float) -> str:
    return FATES[int(fates(system, phi, theta))]


@pytest.mark.parametrize(
    ("variant", "start", "end"),
    [
        ("stop-gradient", (1.4, 0.1), (1.396424, 0)),
        ("stop-gradient", (1.05, 0.5), (1, 0.384057)),
        ("stop-gradient", (-0.5, 0.1), (-0.489898, 0)),
        ("stop-gradient", (-0.1, 0.5), (1, 1.113553)),
        ("both-terms", (0.6, 0.5), (1, 0.3)),
        ("both-terms", (0.6, 0.41), (1, 0.09)),
        ("both-terms", (0.6, 0.1), (0.612702, 0)),
        ("second-term-only", (1.4, 0.1), (1, 0.9)),
        ("second-term-only", (0.6, 0.1), (0.605, 0)),
    ],
)
def test_examples(variant: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    assert end_state(variant, *start) == pytest.approx(end, abs=6e-7)
    assert fate(Scalar(variant), *start) == ("collapsed" if end[1] == 0 else "not-collapsed")
    assert flow(Scalar(variant), *start, [3000.0]).states[0] == pytest.approx(end, abs=2e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("noise2", "rate", "decay"), [(0, 1, 0), (0.3, 2, 0), (0, 0.4, 0.05), (0.3, 1, 0.01), (0, 1, 0.3)]
)
def test_integration_agrees_with_the_decision(variant: str, noise2: float, rate: float, decay: float) -> None:
    phi, theta = np.random.default_rng(0).uniform((-2, -2), (3, 2), (1000, 2)).T
    system = Scalar(variant, noise2, rate, decay)
    decided, (found, last) = fates(system, phi, theta), integrated_fates(system, phi, theta)
    known = found != UNDECIDED
    assert known.mean() > 0.98
    assert np.array_equal(found[known], decided[known])
    assert not np.any(decided == UNDECIDED)
    if decay == 0 and (variant == "stop-gradient" or noise2 == 0):
        ends = np.array([end_state(variant, p, t, noise2, rate) for p, t in zip(phi, theta, strict=True)]).T
        np.testing.assert_allclose(last[:, known], ends[:, known], atol=2e-4)


def test_no_stop_gradient_does_not_always_collapse_but_does_with_noise_or_decay() -> None:
    phi, theta = Plane(size=60).starts
    assert 0 < shares(fates(Scalar("both-terms"), phi, theta)).not_collapsed < 1
    for system in (Scalar("both-terms", noise2=1e-6), Scalar("both-terms", weight_decay=1e-6)):
        assert shares(fates(system, phi, theta)).collapsed == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_starts_beside_the_boundary_end_on_their_side(variant: str) -> None:
    for noise2, rate, decay in [(0.0, 1.0, 0.0), (0.0, 3.0, 0.0), (0.3, 0.5, 0.0), (0.2, 2.0, 0.05)]:
        system, phi = Scalar(variant, noise2, rate, decay), np.linspace(-1.9, 2.9, 50)
        height = boundary(system, phi)
        known, always, never = np.isfinite(height) & (height > 1e-6), np.isinf(height), height == 0
        assert np.all(fates(system, phi[known], 0.999 * height[known]) == COLLAPSED)
        assert np.all(fates(system, phi[known], 1.001 * height[known]) == NOT_COLLAPSED)
        assert np.all(fates(system, phi[always], 5.0) == COLLAPSED)
        assert np.all(fates(system, phi[never], 1e-3) == NOT_COLLAPSED)


def test_share_of_the_plane_tends_to_the_area() -> None:
    # Between the lines |1 - phi| = |theta| of [-1, 3] x [-1, 1]: 8 - 2 of an area of 8.
    phi, theta = Plane((-1, 3), (-1, 1), 801).starts
    assert shares(fates(Scalar("both-terms"), phi, theta)).collapsed == pytest.approx(6 / 8, abs=2e-3)
    # Under the parabola theta^2 = 2 (1 - phi) of [-1, 1] x [-2, 2]: 2/3 of it.
    phi, theta = Plane((-1, 1), (-2, 2), 801).starts
    assert shares(fates(Scalar("second-term-only"), phi, theta)).collapsed == pytest.approx(2 / 3, abs=2e-3)


def test_fixed_points_and_critical_weight_decay() -> None:
    known = {
        (0.01, 0.0): (0.010102051, 0.989897949),
        (0.05, 0.5): (0.054446658, 0.612220009),
        (0.04, 0.1): (0.041934338, 0.867156572),
        (0.1, 0.0): (0.112701665, 0.887298335),
        (0.2, 0.0): (0.276393202, 0.723606798),
    }
    for (decay, noise2), expected in known.items():
        low, high = fixed_points(decay, noise2)
        assert (float(low), float(high)) == pytest.approx(expected, abs=1e-9)
        for p in (low, high):
            assert abs(p**2 * (1 - (1 + noise2) * p) - decay * p) < 1e-15
    assert float(critical_weight_decay(0.5)) == pytest.approx(1 / 6)
    assert float(critical_noise2(0.05)) == pytest.approx(4.0)
    assert np.isnan(fixed_points(0.26)).all()


def test_weight_decay_examples() -> None:
    for phi, expected in [(0.05, "collapsed"), (0.0545, "not-collapsed"), (0.07, "not-collapsed")]:
        system = Scalar(noise2=0.5, weight_decay=0.05)
        assert fate(system, phi, phi) == expected
        if expected == "not-collapsed":
            end = flow(system, phi, phi, [3000.0]).states[0]
            assert (end[0], end[1] ** 2) == pytest.approx((0.61222001, 0.37481334), abs=1e-8)


@pytest.mark.parametrize("decay", [1e-8, 1e-4])
def test_integration_does_not_take_slow_decay_for_collapse(decay: float) -> None:
    system = Scalar(weight_decay=decay)
    assert FATES[int(integrated_fates(system, np.array([1.4]), np.array([0.1]))[0][0])] == "undecided"
    assert fate(system, 1.4, 0.1) == "not-collapsed"


def test_above_the_critical_weight_decay_every_start_collapses() -> None:
    phi, theta = Plane(size=50).starts
    assert shares(fates(Scalar(noise2=0.5, weight_decay=0.17), phi, theta)).collapsed == 1


def test_a_little_weight_decay_saves_starts_that_collapse_without() -> None:
    assert fate(Scalar(), 1.4, 0.1) == "collapsed"
    assert fate(Scalar(weight_decay=0.01), 1.4, 0.1) == "not-collapsed"
    end = flow(Scalar(weight_decay=0.01), 1.4, 0.1, [50.0, 2000.0])
    assert end.states[0, 1] < 1e-4
    assert end.states[1, 0] == pytest.approx(float(fixed_points(0.01)[1]), abs=1e-8)


def test_separatrix_passes_the_saddle_and_flows_into_it() -> None:
    low = float(fixed_points(0.05, 0.5)[0])
    assert float(log_gap_on_separatrix(low, 0.5, 0.05)) == pytest.approx(2 * np.log(low), abs=1e-9)
    for phi in (-0.4, 0.3, 1.2):
        theta = np.exp(float(log_gap_on_separatrix(phi, 0.5, 0.05)) / 2)
        states = flow(Scalar(noise2=0.5, weight_decay=0.05), phi, theta, np.linspace(0, 200, 2001)).states
        nearest = np.abs(states - low).max(axis=1).min()
        assert nearest < 1e-3
    with pytest.raises(InputError, match="at most"):
        log_gap_on_separatrix(0.5, 0.5, 0.2)


@pytest.mark.parametrize(("noise2", "decay"), [(0.0, 0.01), (0.5, 0.05), (0.3, 0.15)])
def test_many_systems_are_followed_to_the_fate_that_the_separatrix_gives(noise2: float, decay: float) -> None:
    phi, theta = np.random.default_rng(3).uniform((-2, -2), (3, 2), (500, 2)).T
    together = fates(Scalar(noise2=np.full(500, noise2), weight_decay=decay), phi, theta)
    assert np.array_equal(together, fates(Scalar(noise2=noise2, weight_decay=decay), phi, theta))


def test_trapping_sets_are_not_left() -> None:
    phi, theta = np.random.default_rng(4).uniform((-1, -1), (2, 1), (300, 2)).T
    system = Scalar(noise2=0.3, weight_decay=0.05)
    codes = decide(system, phi, theta)
    known = codes != UNDECIDED
    states = flow(system, phi[known], theta[known], [1.0, 5.0, 20.0, 60.0]).states
    for later in states:
        assert np.array_equal(decide(system, later[0], later[1]), codes[known])


def test_a_frozen_predictor_leaves_an_exponential() -> None:
    assert fate(Scalar(rate=0.0), 0.5, 0.1) == "diverged"
    assert divergence_time(Scalar(rate=0.0), 0.5, 0.1) == pytest.approx(np.log(1e7) / 0.25)
    assert fate(Scalar(rate=0.0), 1.0, 0.1) == "not-collapsed"
    assert fate(Scalar(rate=0.0, noise2=0.1), 1.0, 0.1) == "collapsed"
    assert fate(Scalar("second-term-only", rate=0.0), 1.5, 0.1) == "diverged"


def test_a_dead_encoder_is_collapsed_everywhere() -> None:
    assert np.all(fates(Scalar(), np.linspace(-2, 3, 11), 0.0) == COLLAPSED)
    assert np.all(integrated_fates(Scalar(), np.array([0.5, 1.5]), np.zeros(2), until=10.0)[1][1] < 1e-9)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="phi range"):
        Plane(phi=(1.0, 1.0))
    with pytest.raises(InputError, match="size: found 1"):
        Plane(size=1)
    with pytest.raises(InputError, match="start: found nan"):
        fates(Scalar(), [0.1, np.nan], 0.1)
    with pytest.raises(InputError, match="frozen predictor"):
        boundary(Scalar(rate=0.0), [0.5])
