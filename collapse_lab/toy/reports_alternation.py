"""The answer of ``toy alternation``."""

from __future__ import annotations

from typing import Any

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
    if weight_decay:
        limit, factor = alternation.decayed_limit(theta, noise2, rate, weight_decay)
    else:
        end = end_state("stop-gradient", phi, theta, noise2, rate)
        limit, factor = end[1], alternation.contraction(end, noise2, rate)
    descents = {
        k: alternation.k_step_rounds(phi, theta, k, step_size, steps, noise2, rate, weight_decay)[1] for k in PERIODS
    }
    # Without predictor, noise and weight decay shrink theta alike.
    shrink = noise2 + weight_decay
    memory = moving_average(shrink, beta)
    answer: dict[str, Any] = {
        "exact": {"theta": exact.tolist(), "limit": limit, "contraction": factor},
        "k_step": {str(k): k_step_answer(found, k, steps, step_size) for k, found in descents.items()},
        "no_predictor": without_predictor(shrink, step_size),
        "moving_average": memory,
        "mean_input": {"rate": -shrink},
        "theta_at_time": theta_at(theta, noise2, beta, time, weight_decay),
        "gradient_of_theta": gradients(noise2, samples),
        "with_predictor": with_predictor(phi, theta, noise2),
        "mlp": shared_gradient(seed),
    }
    curves = {
        "exact round, predictor": exact,
        "exact round, no predictor": theta * (1 + shrink) ** -np.arange(rounds + 1.0),
    }
    curves |= {f"k = {k}, predictor": found[::k][: rounds + 1] for k, found in descents.items()}
    limits = [
        limit,
        0.0 if shrink > 0 else theta,
        *(float(found[-1]) if len(found) > steps else np.nan for found in descents.values()),
    ]
    table = pd.concat([_rows(name, values, end) for (name, values), end in zip(curves.items(), limits, strict=True)])
    caption = (
        f"contraction of an exact round {factor:.6f}; moving average: slow eigenvalue "
        f"{memory['slow_eigenvalue']:.6f}; mean-input: theta exp(-{shrink:g} t); the MLP's expected gradients without "
        f"predictor differ by {answer['mlp']['largest_difference']:.1e}, their largest entry is "
        f"{answer['mlp']['largest_entry']:.2g}"
    )
    return Report("alternation", answer, _cells(curves, limits), caption, table, draw_linear.alternation)


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


def _cells(curves: dict[str, Array], limits: list[float]) -> list[dict[str, str]]:
    return [
        {
            "scheme": name,
            "theta after 7 rounds": cell(float(values[min(7, len(values) - 1)])),
            "limit": f"{end:.6f}" if np.isfinite(end) else "diverged",
        }
        for (name, values), end in zip(curves.items(), limits, strict=True)
    ]


def _rows(name: str, values: Array, limit: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"scheme": name, "round": np.arange(len(values)), "theta": values, "distance": np.abs(values - limit)}
    )


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
