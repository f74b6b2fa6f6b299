"""The answer of ``toy cosine``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from collapse_lab.errors import InputError
from collapse_lab.toy import cosine, draw_linear, memory
from collapse_lab.toy.flow import Trajectory, check_most, checked_times
from collapse_lab.toy.report import Report, cell, finite
from collapse_lab.toy.rule import Array

POINTS = 401
MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
SHARE, ALIVE = 0.95, 1e-9


def cosine_report(
    variant: str = "stop-gradient",
    modes: int = 16,
    least_agreement: float = 0.3,
    rate: float = 1.0,
    weight_decay: float = 0.0,
    time: float = 1000.0,
    epoch: float = 5.0,
    seed: int = 0,
) -> Report:
    """Which modes survive under the cosine loss, and the prediction for momentum eta over a sweep of m."""
    checked_times(time)
    check_most(time=(time, 1e6), rate=(rate, 1e4))
    agreement = agreements(modes, least_agreement)
    system = cosine.Cosine(tuple(agreement.tolist()), variant, rate, weight_decay)
    encoder, predictor = drawn(modes, seed, rate)
    trajectory = cosine.flow(system, encoder, predictor, np.linspace(0, time, POINTS) if time > 0 else [0.0])
    table = cosine_table(agreement, trajectory)
    first, last = table.iloc[0], table.iloc[-1]
    alive = cosine.energy(trajectory.states[-1, 1]) > ALIVE
    momenta = sweep(agreement, encoder, epoch)
    answer = {
        "rankme_start": float(first["rankme"]),
        "rankme": float(last["rankme"]),
        "constant_energy": float(table[table["time"] == last["time"]]["energy"].iloc[0]),
        "largest_energy": float(last["largest"]),
        "norm_collapsed_at": finite(float(trajectory.collapsed_at)),
        "modes_alive": int(alive.sum()),
        "predictor_over_agreement": _spread((trajectory.states[-1, 0] / agreement)[alive]),
        "momentum_eta": momenta,
    }
    cells = [
        {"m": cell(row["m"]), "time to 95% in one mode": cell(row["time"]), "slow rate": cell(row["slow_rate"])}
        for row in momenta
    ]
    caption = (
        f"{variant} at time {last['time']:g}: RankMe {first['rankme']:.3f} -> {last['rankme']:.3f}, largest mode "
        f"{last['largest']:.3f} of the energy. The table: momentum eta without predictor, an epoch of {epoch:g}."
    )
    return Report("cosine", answer, cells, caption, table, draw_linear.cosine)


def agreements(modes: int, least: float) -> Array:
    """r of each mode, from 1 (the constant mode) evenly down to ``least``."""
    if not 0 < least < 1:
        raise InputError(f"least agreement: found {least}, must lie between 0 and 1")
    return np.linspace(1.0, least, modes)


def drawn(modes: int, seed: int, rate: float) -> tuple[Array, Array]:
    """Encoder modes, ``||w|| = 1``, and predictor modes, uniform and half as large; all 1 where there is no predictor."""
    generator = np.random.default_rng(seed)
    encoder = generator.uniform(0.2, 1.0, modes)
    norm = np.linalg.norm(encoder)
    predictor = generator.uniform(0.1, 0.5, modes) / norm if rate > 0 else np.ones(modes)
    return encoder / norm, predictor


def cosine_table(agreement: Array, trajectory: Trajectory) -> pd.DataFrame:
    """time, mode, agreement, energy, and with each time RankMe and the largest energy."""
    encoder = trajectory.states[:, 1]
    energy, count = cosine.energy(encoder), len(agreement)
    return pd.DataFrame(
        {
            "time": np.repeat(trajectory.times, count),
            "mode": np.tile(np.arange(count), len(energy)),
            "agreement": np.tile(agreement, len(energy)),
            "energy": energy.ravel(),
            "rankme": np.repeat(cosine.rankme(encoder), count),
            "largest": np.repeat(energy.max(axis=1), count),
        }
    )


def sweep(agreement: Array, encoder: Array, epoch: float) -> list[dict[str, float | None]]:
    """For each m: time until one mode holds 95 % of the energy, and the slow rate of the last mode to die beside it."""
    rows = []
    for m in MOMENTA:
        beta = memory.memory_rate(m, epoch)
        rate = float(memory.slow_rate(agreement[1], beta))
        found = memory.flow(agreement, encoder, m, epoch, np.linspace(0, 10 / rate, 2001))
        rows.append({"m": m, "time": finite(memory.time_to_energy(SHARE, found)), "slow_rate": rate})
    return rows


def _spread(values: Array) -> float:
    """Largest over smallest: 1 where the predictor has become proportional to the agreement of the living modes."""
    return float(values.max() / values.min())
