"""From readings to a verdict: amplitude and dimension are always judged together, and one measure never decides alone."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from collapse_lab import geometry
from collapse_lab.geometry import Moments, power_law_rankme

Kind = Literal[
    "healthy",
    "complete-collapse",
    "dimensional-collapse",
    "outlier-collapse",
    "not-learning",
    "unstable",
    "diverged",
    "insufficient-data",
    "unknown",
]
Mode = Literal["train", "eval"]
Says = Literal["healthy", "collapse", "between"]


class Vote(NamedTuple):
    """One measure that took part: its value, the bound it was held against, where the bound comes from, what it says."""

    measure: str
    value: float
    bound: str
    origin: str
    says: Says = "between"


class Verdict(NamedTuple):
    """What the readings of one tap in one mode say, and which measures said it.

    ``severity`` is 0 where every measure is within its healthy band and 1 at total collapse. ``onset`` is the interval
    of steps (last sound one, first unsound one) in which the trouble began, None where it is not known or there is none;
    ``first_tap`` is the tap that fell first. ``notes`` are sentences on what else a reader must know.
    """

    kind: Kind
    votes: tuple[Vote, ...]
    severity: float = 0.0
    tap: str = ""
    mode: Mode = "train"
    onset: tuple[int, int] | None = None
    first_tap: str | None = None
    notes: tuple[str, ...] = ()


class Measures(NamedTuple):
    """What a verdict on one cloud of rows needs; ``None`` where a measure was not taken."""

    rows: int
    dimension: int
    std_ratio: float
    mean_energy: float
    rankme: float
    centred_rankme: float | None = None
    outlier_share: float | None = None


def measure(moments: Moments, rows: Tensor | None = None) -> Measures:
    """The measures of a cloud from its moments and, for ``outlier_share``, its rows (N, D), l2-normalised here."""
    return Measures(
        moments.count,
        moments.dimension,
        geometry.std_ratio(moments),
        geometry.mean_energy(moments),
        geometry.rankme(moments),
        geometry.rankme(moments, centred=True),
        None if rows is None else outlier_share(rows),
    )


def outlier_share(features: Tensor) -> float:
    """Share of the variance of l2-normalised rows (N, D) that the most distant 2 % of them (at least one) carry.

    Range [0, 1]; all rows equally far from the mean: 0.02 (for N a multiple of 50); one outlier among equal rows: near 1.
    0 where all rows are equal.

    >>> round(outlier_share(torch.tensor([[1.0, 0.0]] * 99 + [[-1.0, 0.0]])), 2)
    0.99
    """
    rows = torch.nn.functional.normalize(features.detach().double(), dim=1)
    distances = (rows - rows.mean(0)).square().sum(1)
    total = float(distances.sum())
    most = distances.topk(max(1, round(0.02 * len(rows)))).values
    return float(most.sum()) / total if total > 1e-18 * len(rows) else 0.0


def judge_features(features: Tensor, *, mode: Mode = "eval", tap: str = "") -> Verdict:
    """The verdict on features (N, D), one row a sample, floating.

    >>> judge_features(torch.randn(2048, 128, generator=torch.Generator().manual_seed(0))).kind
    'healthy'
    """
    return judge(**measure(geometry.moments(features), features)._asdict(), mode=mode, tap=tap)


def judge(
    *,
    std_ratio: float,
    mean_energy: float,
    rankme: float,
    rows: int,
    dimension: int,
    centred_rankme: float | None = None,
    outlier_share: float | None = None,
    mode: Mode = "train",
    tap: str = "",
) -> Verdict:
    """The verdict on one tap from values over ``rows`` rows of ``dimension`` channels.

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
        return Verdict("diverged", (*amplitude, rank), 1.0, tap, mode)
    if std_ratio < 1e-9 or (std_ratio < std_bound and mean_energy > energy_bound):
        return Verdict("complete-collapse", amplitude, 1 - std_ratio, tap, mode)
    if rows < rows_bound:
        return Verdict(
            "insufficient-data", (Vote("rows", rows, f"at least {rows_bound:.0f}", "definition"),), 0, tap, mode
        )
    if rankme < collapsed_rank:
        return Verdict("dimensional-collapse", (*amplitude, rank), 1 - rankme / healthy_rank, tap, mode)
    if std_ratio >= healthy_std and rankme >= healthy_rank:
        return Verdict("healthy", (*amplitude, rank), 0.0, tap, mode)
    return Verdict("unknown", (*amplitude, rank), 0.5, tap, mode)
