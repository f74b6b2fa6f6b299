"""Gradient descent on the scalar toy: reference values, the flow as its limit, momentum, noise and divergence."""

from __future__ import annotations

import numpy as np
import pytest

from collapse_lab.errors import InputError
from collapse_lab.toy.basin import fates
from collapse_lab.toy.descent import Descent, descend, verdict
from collapse_lab.toy.fate import FATES
from collapse_lab.toy.flow import Trajectory
from collapse_lab.toy.rule import Array
from collapse_lab.toy.scalar import ENCODER, Scalar, field, flow

BLOG = (0.6, 0.1)


def run(system: Scalar, descent: Descent, steps: int, start: tuple[float, float] = BLOG, seed: int = 0) -> Trajectory:
    def velocity(y: Array) -> Array:
        return field(system, y[0], y[1])

    return descend(velocity, start, descent, steps, encoder=ENCODER, generator=np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("step_size", "steps", "expected"),
    [
        (1.0, 10, [(0.89638725, 0.69352580), (0.61324365, 0.01904322), (0.60624328, 0.00065984)]),
        (0.1, 100, [(0.92066879, 0.70734373), (0.61220446, 0.02138902), (0.60509981, 0.00176700)]),
        (0.01, 1000, [(0.92225337, 0.70768697), (0.61210829, 0.02161336), (0.60500815, 0.00189859)]),
        (0.1, 2000, [(1.0, 0.80797059), (0.61279923, 0.0), (0.60510140, 0.0)]),
    ],
)
def test_reference_values(step_size: float, steps: int, expected: list[tuple[float, float]]) -> None:
    for variant, state in zip(("stop-gradient", "both-terms", "second-term-only"), expected, strict=True):
        assert run(Scalar(variant), Descent(step_size), steps).states[-1] == pytest.approx(state, abs=5.1e-9)


def test_the_descent_tends_to_the_flow_at_first_order() -> None:
    exact = flow(Scalar(noise2=0.2), *BLOG, [5.0]).states[0]
    errors = [np.abs(run(Scalar(noise2=0.2), Descent(h), round(5 / h)).states[-1] - exact).max() for h in (0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_momentum_speeds_time_up_by_one_over_one_minus_it() -> None:
    exact = flow(Scalar(), *BLOG, [8.0]).states[0]
    found = run(Scalar(), Descent(1e-4, momentum=0.9), round(8.0 * 0.1 / 1e-4)).states[-1]
    assert found == pytest.approx(exact, abs=2e-3)


def test_noise_is_seeded_and_has_the_given_size() -> None:
    one, same, other = (run(Scalar(), Descent(0.1, noise=0.01), 50, seed=seed).states for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    still = descend(
        np.zeros_like,
        np.zeros((2, 20000)),
        Descent(0.5, noise=0.2),
        1,
        encoder=ENCODER,
        generator=np.random.default_rng(0),
    )
    assert still.states[-1].std() == pytest.approx(0.1, rel=0.02)


def test_divergence_is_reported_with_its_time_and_without_nan() -> None:
    found = run(Scalar("second-term-only"), Descent(1.0), 50, start=(0.6, 5.0))
    assert float(found.diverged_at) == 4.0
    assert np.isfinite(found.states).all()
    assert found.times[-1] < 4.0
    assert verdict(lambda y: field(Scalar("second-term-only"), y[0], y[1]), found, ENCODER) == "diverged"


def test_an_encoder_that_will_grow_again_has_not_collapsed() -> None:
    system, start = Scalar(weight_decay=0.01), (1.8, 0.1)
    at_50 = run(system, Descent(0.1), 500, start)
    assert abs(at_50.states[-1, 1]) < 1e-6

    def velocity(y: Array) -> Array:
        return field(system, y[0], y[1])

    assert verdict(velocity, at_50, ENCODER) == "undecided"
    assert verdict(velocity, run(system, Descent(0.1), 40_000, start), ENCODER) == "not-collapsed"
    assert FATES[int(fates(system, *start))] == "not-collapsed"


def test_recording_less_often_changes_nothing_else() -> None:
    system = Scalar()
    every = descend(lambda y: field(system, y[0], y[1]), BLOG, Descent(0.1), 95, encoder=ENCODER, every=10)
    assert every.times.tolist() == pytest.approx([*range(10), 9.5])
    np.testing.assert_array_equal(every.states[-1], run(system, Descent(0.1), 95).states[-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Descent(0.0), "step size: found 0"),
        (lambda: Descent(np.nan), "step size: found nan"),
        (lambda: Descent(0.1, momentum=1.0), "momentum: found 1"),
        (lambda: Descent(0.1, noise=-1), "gradient noise: found -1"),
        (lambda: run(Scalar(), Descent(0.1), -1), "steps: found -1"),
        (lambda: run(Scalar(), Descent(0.1), 1, start=(np.inf, 0.1)), "start: found inf"),
        (lambda: descend(np.zeros_like, BLOG, Descent(0.1, noise=0.1), 1, encoder=ENCODER), "needs a generator"),
    ],
)
def test_bad_input_is_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
