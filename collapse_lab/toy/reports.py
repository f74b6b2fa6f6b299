"""The answers of ``toy scalar`` and ``toy basin``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from collapse_lab.errors import InputError
from collapse_lab.toy import basin, draw
from collapse_lab.toy.closed import end_state
from collapse_lab.toy.descent import Descent, descend
from collapse_lab.toy.descent import verdict as descent_verdict
from collapse_lab.toy.fate import FATES, divergence_time
from collapse_lab.toy.flow import Trajectory, check_most, checked_start, checked_times
from collapse_lab.toy.modes import critical_weight_decay, fixed_points
from collapse_lab.toy.report import Report, cell, finite
from collapse_lab.toy.rule import Array
from collapse_lab.toy.scalar import ENCODER, Scalar, conserved, field, flow, has_first_integral, loss

POINTS, ROWS = 501, 11
MOST_STEPS, LONGEST = 100_000, 1_000_000


def scalar_report(
    variant: str,
    phi: float | None,
    theta: float,
    time: float,
    noise2: float = 0.0,
    rate: float = 1.0,
    weight_decay: float = 0.0,
    no_predictor: bool = False,
    step_size: float | None = None,
    momentum: float = 0.0,
    gradient_noise: float = 0.0,
    seed: int = 0,
) -> Report:
    """State at a time, eventual fate and trajectory of the scalar toy, by flow or by gradient descent.

    phi None is 0.6, and 1 without predictor, where no other is allowed.
    """
    if no_predictor and phi not in (None, 1.0):
        raise InputError(f"--phi: found {phi:g} with --no-predictor, which fixes it at 1; leave one of them out")
    if step_size is None and (momentum or gradient_noise):
        raise InputError("--momentum and --gradient-noise belong to a descent; give its --step-size as well")
    check_most(time=(time, 1e6))
    phi, rate = (1.0, 0.0) if no_predictor else (0.6 if phi is None else phi, rate)
    system = Scalar(variant, noise2, rate, weight_decay)
    start = (float(phi), float(theta))
    if step_size is None:
        trajectory, verdict, diverged_at = _flowed(system, start, time)
    else:
        trajectory, verdict, diverged_at = _descended(
            system, start, time, Descent(step_size, momentum, gradient_noise), seed
        )
    table = scalar_table(system, trajectory)
    if step_size is not None:
        table = _beside_flow(system, start, table)
    last = table.iloc[-1]
    answer = {name: finite(last[name]) for name in ("phi", "theta", "loss", "conserved")} | {"verdict": verdict}
    if diverged_at is not None:
        answer["diverged_at"] = diverged_at
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, ROWS).round().astype(int))]
    cells = [{str(name): cell(float(value)) for name, value in row.items()} for row in chosen.to_dict("records")]
    drawn = partial(draw.scalar, system=system, verdict=verdict)
    return Report("scalar", answer, cells, _caption(system, start, verdict, diverged_at), table, drawn)


def scalar_table(system: Scalar, trajectory: Trajectory) -> pd.DataFrame:
    """time, phi, theta, loss and conserved quantity along a trajectory.

    The last is NaN where there is none, and under weight decay once ``exp(2 e t)`` passes 1e6: it multiplies the errors.
    """
    phi, theta, times = trajectory.states[:, 0], trajectory.states[:, 1], trajectory.times
    kept, known = np.full_like(phi, np.nan), 2 * float(system.numbers[2]) * times < np.log(1e6)
    if has_first_integral(system):
        kept[known] = conserved(system, phi[known], theta[known], times[known])
    columns = {"time": times, "phi": phi, "theta": theta}
    return pd.DataFrame(columns | {"loss": loss(phi, theta, system.noise2), "conserved": kept})


def _beside_flow(system: Scalar, start: tuple[float, float], table: pd.DataFrame) -> pd.DataFrame:
    """The table with flow_phi and flow_theta, the flow at the times of the descent, up to where the flow diverges."""
    found = flow(system, *start, table["time"].to_numpy())
    beside = pd.DataFrame(found.states, columns=["flow_phi", "flow_theta"])
    return pd.concat([table, beside], axis=1)


def _flowed(system: Scalar, start: tuple[float, float], time: float) -> tuple[Trajectory, str, float | None]:
    checked_times(time)
    times = np.linspace(0, time, POINTS) if time > 0 else np.zeros(1)
    trajectory = flow(system, *start, times)
    verdict = FATES[int(basin.fates(system, *start))]
    return trajectory, verdict, divergence_time(system, *start) if verdict == "diverged" else None


def _descended(
    system: Scalar, start: tuple[float, float], time: float, descent: Descent, seed: int
) -> tuple[Trajectory, str, float | None]:
    """The iterates up to the time; the fate without noise from as many more steps as it takes, at most 100,000."""
    checked_times(time)

    def velocity(y: Array) -> Array:
        return field(system, y[0], y[1])

    def run(steps: int, every: int = 1) -> Trajectory:
        generator = np.random.default_rng(seed)
        return descend(
            velocity, checked_start(start), descent, steps, encoder=ENCODER, generator=generator, every=every
        )

    if time / descent.step_size > LONGEST:
        raise InputError(
            f"step size: found {descent.step_size:g}, time {time:g} takes more than {LONGEST:,} such steps"
        )
    steps = round(time / descent.step_size)
    trajectory = longer = run(steps)
    verdict = descent_verdict(velocity, longer, ENCODER)
    # Under noise nothing comes to rest, however long it goes on.
    while verdict == "undecided" and descent.noise == 0 and steps < MOST_STEPS:
        steps = min(max(10 * steps, 1000), MOST_STEPS)
        longer = run(steps, every=steps)
        verdict = descent_verdict(velocity, longer, ENCODER)
    return trajectory, verdict, finite(float(longer.diverged_at))


def _caption(system: Scalar, start: tuple[float, float], verdict: str, diverged_at: float | None) -> str:
    said = [f"{system.variant} from phi {start[0]:g}, theta {start[1]:g}: {verdict}"]
    s2, a, e = (float(value) for value in system.numbers)
    if diverged_at is not None:
        said.append(f"|theta| or phi passes 1e6 at time {diverged_at:.6g}")
    elif e > 0 and system.variant == "stop-gradient":
        low, high = (float(value) for value in fixed_points(e, s2))
        critical = float(critical_weight_decay(s2))
        said.append(
            f"critical weight decay {critical:.6g}" + (f", p_- {low:.9f}, p_+ {high:.9f}" if e <= critical else "")
        )
    elif a > 0 and e == 0 and (s2 == 0 or system.variant == "stop-gradient"):
        end = end_state(system.variant, *start, s2, a)
        said.append(f"the flow ends at phi {end[0]:.9f}, theta {end[1]:.9f}")
    return "; ".join(said)


def basin_report(
    variant: str,
    noise2: float,
    rate: float,
    weight_decay: float,
    phi_range: tuple[float, float],
    theta_range: tuple[float, float],
    size: int,
) -> Report:
    """Fates of the starts of a plane."""
    system, plane = Scalar(variant, noise2, rate, weight_decay), basin.Plane(phi_range, theta_range, size)
    phi, theta = plane.starts
    codes = basin.fates(system, phi, theta)
    found = basin.shares(codes)._asdict()
    shares: dict[str, Any] = {name.replace("_", "-"): share for name, share in found.items()}
    answer = {"variant": variant, "starts": codes.size, "shares": shares}
    cells = [{"fate": name, "share of the plane": f"{share:.4%}"} for name, share in shares.items()]
    caption = f"{variant}: {codes.size} starts, phi {phi_range}, theta {theta_range}"
    table = pd.DataFrame({"phi": phi.ravel(), "theta": theta.ravel(), "fate": codes.ravel()})
    return Report("basin", answer, cells, caption, table, partial(draw.basin, system=system))
