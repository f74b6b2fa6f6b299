"""The answer of ``toy linear``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from collapse_lab.errors import InputError
from collapse_lab.toy import draw_linear, spectra
from collapse_lab.toy.flow import check_most, checked_times
from collapse_lab.toy.linear import Linear, LinearTrajectory, direct_copy, direct_pred, flow
from collapse_lab.toy.modes import critical_weight_decay, fixed_points
from collapse_lab.toy.report import Report, cell, finite
from collapse_lab.toy.rule import Array
from collapse_lab.toy.scalar import Scalar

POINTS = 201
LONGEST = 2000.0
LIVE = 1e-3
PREDICTORS: Mapping[str, Callable[[Array], Array] | None] = {
    "trained": None,
    "direct-pred": direct_pred(),
    "direct-copy": direct_copy(),
}


def linear_report(
    variant: str = "stop-gradient",
    time: float = 50.0,
    noise2: float = 0.1,
    rate: float = 1.0,
    weight_decay: float = 0.0,
    ema_rate: float | None = None,
    predictor: str = "trained",
    symmetric: bool = False,
    dim: int = 6,
    scale: float = 0.7,
    seed: int = 0,
) -> Report:
    """Eigenvalues, alignment and theorems along a flow from random weights, isotropic data and augmentation."""
    if predictor not in PREDICTORS:
        raise InputError(f"predictor: found '{predictor}', allowed are {', '.join(PREDICTORS)}")
    checked_times(time)
    check_most(time=(time, 1e4), rate=(rate, 10.0))
    Scalar(noise2=noise2)
    identity, chosen = np.eye(dim), PREDICTORS[predictor]
    system = Linear(identity, noise2 * identity, variant, rate, weight_decay, ema_rate, symmetric, chosen)
    start = drawn(dim, scale, seed)
    trajectory = flow(system, *start, np.linspace(0, time, POINTS) if time > 0 else [0.0])
    found = spectra.modes(system, trajectory.weights)
    low, high = (finite(float(value)) for value in fixed_points(weight_decay, noise2))
    verdict, alive = _fate(system, start)
    checks = theorems(system, trajectory)
    answer = {name: values[-1].tolist() for name, values in found._asdict().items()} | {
        "commutator": float(spectra.commutator_norm(system, trajectory.weights)[-1]),
        "p_minus": low,
        "p_plus": high,
        "critical_weight_decay": float(critical_weight_decay(noise2)),
        "theorems": checks,
        "modes_alive": alive,
        "verdict": verdict,
    }
    caption = f"{variant} at time {time:g}: {verdict}, {alive} of {dim} modes in the end; p_+ {cell(high)}"
    caption += "".join(f"; {name} {cell(value)}" for name, value in checks.items())
    return Report("linear", answer, _cells(found), caption, linear_table(system, trajectory), draw_linear.linear)


def _cells(found: spectra.Modes) -> list[dict[str, str]]:
    rows = zip(*(values[-1] for values in found), strict=True)
    return [
        {"mode": str(k), "p": cell(float(p)), "s": cell(float(s)), "alignment": cell(float(a))}
        for k, (p, s, a) in enumerate(rows)
    ]


def drawn(dim: int, scale: float, seed: int) -> tuple[Array, Array]:
    """Encoder (D, D), normal of size ``scale``, and a symmetric predictor (D, D) around ``scale / 2`` times the identity."""
    generator = np.random.default_rng(seed)
    encoder = scale * generator.standard_normal((dim, dim)) / np.sqrt(dim)
    noise = scale * generator.standard_normal((dim, dim)) / (4 * np.sqrt(dim))
    return encoder, scale / 2 * np.eye(dim) + (noise + noise.T) / 2


def linear_table(system: Linear, trajectory: LinearTrajectory) -> pd.DataFrame:
    """time, mode, p, s, alignment and the commutator's norm, one row a time and mode."""
    modes = spectra.modes(system, trajectory.weights)
    times, count = len(trajectory.times), modes.p.shape[1]
    norm = spectra.commutator_norm(system, trajectory.weights)
    columns = {
        "time": np.repeat(trajectory.times, count),
        "mode": np.tile(np.arange(count), times),
        "commutator": np.repeat(norm, count),
    }
    return pd.DataFrame(columns | {name: values.ravel() for name, values in modes._asdict().items()})


def theorems(system: Linear, trajectory: LinearTrajectory) -> dict[str, float]:
    """The running checks that apply: the largest residual of theorem 1, the largest value over its bound for 2 and 3."""
    found = {}
    if spectra.theorem_1_applies(system):
        found["theorem_1_residual"] = float(spectra.theorem_1(system, trajectory).max())
    if system.variant == "both-terms":
        found["theorem_2_over_bound"] = _over_bound(*spectra.theorem_2(system, trajectory))
    if spectra.theorem_3_applies(system):
        found["theorem_3_over_bound"] = _over_bound(*spectra.theorem_3(system, trajectory))
    return found


def _over_bound(value: Array, bound: Array) -> float:
    return float(np.max(np.divide(value, bound, out=np.zeros_like(value), where=bound > 1e-12)))


def _fate(system: Linear, start: tuple[Array, Array]) -> tuple[str, int | None]:
    """Fate and modes of F above 1e-3, from the flow run until it rests, at most to time 2,000."""
    longer = flow(system, *start, [LONGEST])
    if np.isfinite(longer.diverged_at):
        return "diverged", None
    alive = int(np.sum(spectra.modes(system, longer.weights).s[-1] > LIVE))
    if np.isfinite(longer.collapsed_at) and not alive:
        return "collapsed", 0
    return ("not-collapsed" if alive and np.isfinite(longer.converged_at) else "undecided"), alive
