"""From readings to a verdict: amplitude and dimension are always judged together.

The bounds are provisional: they come from theory and from a few small runs, not from a calibration on labelled runs, and
every vote says so.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from collapse_lab.geometry import power_law_rankme

Kind = Literal["healthy", "complete-collapse", "dimensional-collapse", "diverged", "insufficient-data", "unknown"]


class Vote(NamedTuple):
    """One measure that took part: its value, the bound it was held against, and where the bound comes from."""

    measure: str
    value: float
    bound: str
    origin: str


class Verdict(NamedTuple):
    """What a layer's train-mode readings say, and which measures said it."""

    kind: Kind
    votes: tuple[Vote, ...]


def judge(*, std_ratio: float, mean_energy: float, rankme: float, rows: int, dimension: int) -> Verdict:
    """The verdict on one layer from train-mode values over ``rows`` rows of ``dimension`` channels.

    In order: ``diverged`` where a value is not finite; ``complete-collapse`` where std_ratio < 0.15 and mean_energy >
    0.95; ``insufficient-data`` where there are fewer than max(64, d/4) rows, too few for a rank; ``dimensional-collapse``
    where RankMe is below that of a power law of alpha 3 or below 2 % of d; ``healthy`` where std_ratio is at least 0.5 and
    RankMe at least that of a power law of alpha 2.5; else ``unknown``.

    >>> judge(std_ratio=0.8, mean_energy=0.3, rankme=50, rows=256, dimension=128).kind
    'healthy'
    >>> judge(std_ratio=1.0, mean_energy=0.0, rankme=5, rows=256, dimension=128).kind
    'dimensional-collapse'
    """
    std_bound, energy_bound, healthy_std = 0.15, 0.95, 0.5
    rows_bound = max(64.0, dimension / 4)
    collapsed_rank = max(power_law_rankme(dimension, 3.0), 0.02 * dimension)
    healthy_rank = max(power_law_rankme(dimension, 2.5), collapsed_rank)
    provisional = "provisional"
    amplitude = (
        Vote("std_ratio", std_ratio, f"collapse < {std_bound}, healthy >= {healthy_std}", provisional),
        Vote("mean_energy", mean_energy, f"collapse > {energy_bound}", provisional),
    )
    power_law = f"collapse < {collapsed_rank:.1f}, healthy >= {healthy_rank:.1f}"
    rank = Vote("rankme", rankme, power_law, f"power laws of alpha 3 and 2.5 at d = {dimension}; provisional")
    if not all(math.isfinite(value) for value in (std_ratio, mean_energy, rankme)):
        return Verdict("diverged", (*amplitude, rank))
    if std_ratio < std_bound and mean_energy > energy_bound:
        return Verdict("complete-collapse", amplitude)
    if rows < rows_bound:
        return Verdict("insufficient-data", (Vote("rows", rows, f"at least {rows_bound:.0f}", "definition"),))
    if rankme < collapsed_rank:
        return Verdict("dimensional-collapse", (*amplitude, rank))
    if std_ratio >= healthy_std and rankme >= healthy_rank:
        return Verdict("healthy", (*amplitude, rank))
    return Verdict("unknown", (*amplitude, rank))
