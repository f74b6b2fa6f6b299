"""The answer of ``toy alternation``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.linalg import expm

from collapse_lab.toy import alternation, draw_linear, siamese
from collapse_lab.toy.closed import end_state
from collapse_lab.toy.descent import Descent
from collapse_lab.toy.flow import check_most, checked_times
from collapse_lab.toy.memory import scalar_matrix
from collapse_lab.toy.report import Report, cell
from collapse_lab.toy.rule import Array
from collapse_lab.toy.scalar import Scalar

PERIODS = (1, 10, 100)


def alternation_report(
    phi: float = 0.6,
    theta: float = 0.1,
    noise2: float = 0.0,
    rate: float = 1.0,
    weight_decay: float = 0.0,
    rounds: int = 40,
    step_size: float = 0.1,
    steps: int = 20000,
    time: float = 10.0,
    beta: float = 0.1,
    samples: int = 8,
    seed: int = 0,
) -> Report:
    """Every kind of alternation from one start: limits, contraction, decay, and the gradients that are equal."""
    Scalar(noise2=noise2, rate=rate, weight_decay=weight_decay)
    Descent(step_size)
    checked_times(time)
    check_most(time=(time, 1e6))
    exact = alternation.exact_rounds(phi, theta, rounds, noise2, rate, weight_decay)
    limit, factor = exact_limit(phi, theta, noise2, rate, weight_decay)
    descents = {
        k: alternation.k_step_rounds(phi, theta, k, step_size, steps, noise2, rate, weight_decay)[1] for k in PERIODS
    }
    # Without predictor, noise and weight decay shrink theta alike.
    shrink = noise2 + weight_decay
    answer: dict[str, Any] = {
        "exact": {"theta": exact.tolist(), "limit": limit, "contraction": factor},
        "k_step": {str(k): k_step_answer(found, k, steps, step_size) for k, found in descents.items()},
        "no_predictor": without_predictor(shrink, step_size),
        "moving_average": moving_average(shrink, beta),
        "mean_input": {"rate": -shrink},
        "theta_at_time": theta_at(theta, noise2, beta, time, weight_decay),
        "gradient_of_theta": gradients(noise2, samples),
        "with_predictor": with_predictor(phi, theta, noise2),
        "mlp": shared_gradient(seed),
    }
    courses = [
        Course("exact round, predictor", exact, limit),
        without_predictor_course(theta, shrink, rounds),
        *(k_step_course(found, k, rounds, steps) for k, found in descents.items()),
    ]
    table = pd.concat([_rows(course) for course in courses])
    return Report("alternation", answer, _cells(courses), _caption(answer, shrink), table, draw_linear.alternation)


class Course(NamedTuple):
    """theta round after round under one scheme, and what it tends to, NaN where it diverged."""

    scheme: str
    theta: Array
    limit: float


def without_predictor_course(theta: float, shrink: float, rounds: int) -> Course:
    """Exact rounds without predictor, which only shrink theta."""
    values = theta * (1 + shrink) ** -np.arange(rounds + 1.0)
    return Course("exact round, no predictor", values, 0.0 if shrink > 0 else theta)


def k_step_course(found: Array, k: int, rounds: int, steps: int) -> Course:
    """The rounds of a descent, of which every k-th step is one; it diverged where it ended before ``steps``."""
    limit = float(found[-1]) if len(found) > steps else np.nan
    return Course(f"k = {k}, predictor", found[::k][: rounds + 1], limit)


def exact_limit(phi: float, theta: float, noise2: float, rate: float, weight_decay: float) -> tuple[float, float]:
    """What theta tends to in exact rounds with predictor, and the factor of its distance from there a round."""
    if weight_decay:
        return alternation.decayed_limit(theta, noise2, rate, weight_decay)
    end = end_state("stop-gradient", phi, theta, noise2, rate)
    return end[1], alternation.contraction(end, noise2, rate)


def _caption(answer: dict[str, Any], shrink: float) -> str:
    factor, memory, mlp = answer["exact"]["contraction"], answer["moving_average"], answer["mlp"]
    return (
        f"contraction of an exact round {factor:.6f}; moving average: slow eigenvalue "
        f"{memory['slow_eigenvalue']:.6f}; mean-input: theta exp(-{shrink:g} t); the MLP's expected gradients without "
        f"predictor differ by {mlp['largest_difference']:.1e}, their largest entry is {mlp['largest_entry']:.2g}"
    )


def k_step_answer(found: Array, k: int, steps: int, step_size: float) -> dict[str, Any]:
    """The last theta, and the round and time of divergence of a descent that ended before ``steps``."""
    if len(found) > steps:
        return {"theta": float(found[-1])}
    rounds, time = (len(found) - 1) // k + 1, len(found) * step_size
    return {"theta": float(found[-1]), "verdict": "diverged", "diverged_round": rounds, "diverged_at": time}


def theta_at(theta: float, noise2: float, beta: float, time: float, weight_decay: float = 0.0) -> dict[str, float]:
    """Expected theta at a time without predictor, by the kind of eta; the moving average starts at theta."""
    shrink = noise2 + weight_decay
    average = expm(scalar_matrix(shrink, beta) * time) @ [theta, theta]
    decayed = float(alternation.mean_input(theta, shrink, np.array(time)))
    return {
        "time": time,
        "exact_or_sampled_eta": decayed,
        "mean_input": decayed,
        "plain_siamese": float(theta * np.exp(-(noise2 + shrink) * time)),
        "moving_average": float(average[0]),
    }


def without_predictor(noise2: float, step_size: float) -> dict[str, Any]:
    """What a round without predictor multiplies theta by, exactly and in k steps."""
    steps = {str(k): alternation.round_factor(noise2, step_size, k) for k in PERIODS}
    return {"exact_round_factor": alternation.round_factor(noise2), "k_step_round_factor": steps}


def moving_average(noise2: float, beta: float) -> dict[str, float]:
    """The eigenvalues of theta and its moving average."""
    fast, slow = (float(value) for value in np.sort(np.linalg.eigvals(scalar_matrix(noise2, beta)).real))
    return {"beta": beta, "slow_eigenvalue": slow, "fast_eigenvalue": fast}


def _cells(courses: list[Course]) -> list[dict[str, str]]:
    return [
        {
            "scheme": course.scheme,
            "theta after 7 rounds": cell(float(course.theta[min(7, len(course.theta) - 1)])),
            "limit": f"{course.limit:.6f}" if np.isfinite(course.limit) else "diverged",
        }
        for course in courses
    ]


def _rows(course: Course) -> pd.DataFrame:
    rounds, distance = np.arange(len(course.theta)), np.abs(course.theta - course.limit)
    return pd.DataFrame({"scheme": course.scheme, "round": rounds, "theta": course.theta, "distance": distance})


def gradients(noise2: float, samples: int) -> dict[str, Any]:
    """Mean and variance of theta's gradient without predictor, at theta = 1, by how eta is estimated."""
    kinds = {
        "exact_eta": alternation.sampled_eta(noise2, None),
        "one_sample": alternation.sampled_eta(noise2, 1),
        f"mean_of_{samples}": alternation.sampled_eta(noise2, samples),
        "plain_siamese": alternation.plain_siamese(noise2),
    }
    return {name: found._asdict() for name, found in kinds.items()}


def with_predictor(phi: float, theta: float, noise2: float) -> dict[str, Any]:
    """Mean and variance of theta's gradient with predictor and stop-gradient: SimSiam's target and mean-input's."""

    def simsiam(x: Array, n1: Array, n2: Array) -> Array:
        return (phi * theta * (x + n1) - theta * (x + n2)) * phi * (x + n1)

    def mean_input(x: Array, n1: Array, n2: Array) -> Array:
        return (phi * theta * (x + n1) - theta * x) * phi * (x + n1)

    kinds = {"simsiam": simsiam, "mean_input": mean_input}
    return {name: alternation.over_draws(kind, noise2)._asdict() for name, kind in kinds.items()}


def shared_gradient(seed: int) -> dict[str, float]:
    """How far the expected gradients of a small MLP without predictor are from the exact eta's; siamese is halved."""
    network, views = siamese.drawn(seed)
    exact = siamese.exact_eta(network, views)
    others = (
        siamese.profile(network, views),
        siamese.sampled_eta(network, views),
        siamese.plain_siamese(network, views) / 2,
    )
    difference = max(float(np.abs(other - exact).max()) for other in others)
    return {"largest_difference": difference, "largest_entry": float(np.abs(exact).max())}
