"""From one cloud's measures to a verdict: amplitude and dimension are always judged together, no measure decides alone."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from torch import Tensor

from collapse_lab import geometry
from collapse_lab.geometry import Moments
from collapse_lab.monitors import bounds
from collapse_lab.monitors.bounds import Band

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
Says = Literal["healthy", "between", "collapse"]

COLLAPSED: tuple[Kind, ...] = ("complete-collapse", "dimensional-collapse", "outlier-collapse")


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
        None if rows is None else geometry.outlier_share(rows),
    )


def judge_features(
    features: Tensor, *, mode: Mode = "eval", tap: str = "", expected: Measures | None = None
) -> Verdict:
    """The verdict on features (N, D), one row a sample, floating; ``expected`` as in ``judge``.

    >>> import torch
    >>> judge_features(torch.randn(2048, 128, generator=torch.Generator().manual_seed(0))).kind
    'healthy'
    """
    found = measure(geometry.moments(features), features)
    return judge_measures(found, mode=mode, tap=tap, expected=expected)


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
    """``judge_measures`` for values given one by one.

    >>> judge(std_ratio=0.8, mean_energy=0.3, rankme=50, rows=256, dimension=128).kind
    'healthy'
    >>> judge(std_ratio=1.0, mean_energy=0.0, rankme=5, rows=256, dimension=128).kind
    'dimensional-collapse'
    """
    found = Measures(rows, dimension, std_ratio, mean_energy, rankme, centred_rankme, outlier_share)
    return judge_measures(found, mode=mode, tap=tap)


def judge_measures(
    found: Measures, *, mode: Mode = "train", tap: str = "", expected: Measures | None = None, origin: str = "reference"
) -> Verdict:
    """The verdict on one cloud. ``expected`` are the values of a sound one, whose shares then replace absolute bounds.

    In order: ``diverged`` where a value is not finite; ``complete-collapse`` where std ratio and mean energy both say so,
    ``outlier-collapse`` where in that case a few rows carry the variance; ``insufficient-data`` below max(64, d/4) rows,
    too few for a rank; ``outlier-collapse`` where a few rows carry the variance and the rank is not healthy;
    ``dimensional-collapse`` where RankMe says so and a second measure agrees: the centred rank is not healthy either, or
    the amplitude is not; where the centred rank was not taken, the mean is too small to be what lowers RankMe.
    ``healthy`` where std ratio and RankMe both are; else ``unknown``.
    """
    bands = bounds.bands(mode, found.rows, found.dimension)
    if expected is not None:
        bands |= bounds.relative_bands(expected.std_ratio, expected.rankme, expected.centred_rankme, origin)
    votes = {name: _vote(name, getattr(found, name), band) for name, band in bands.items() if _taken(found, name)}
    kind, notes = _decide(found, {name: vote.says for name, vote in votes.items()})
    if kind == "insufficient-data":
        least = Vote("rows", found.rows, f"at least {_least_rows(found.dimension):.0f}", "definition")
        return Verdict(kind, (least,), 0.0, tap, mode, notes=notes)
    severity = 1.0 if kind == "diverged" else max(bands[name].severity(vote.value) for name, vote in votes.items())
    return Verdict(kind, tuple(votes.values()), severity, tap, mode, notes=notes)


def compare_modes(train: Verdict, evaluated: Verdict) -> tuple[Verdict, Verdict]:
    """Both verdicts with a note where train and eval mode disagree on whether the layer has collapsed.

    Collapsed in eval mode alone is what running statistics of BatchNorm look like that have not caught up with the weights,
    as in the first twenty steps or so.
    """
    fallen, sound = (train.kind in COLLAPSED, evaluated.kind in COLLAPSED), "healthy" in (train.kind, evaluated.kind)
    if fallen[0] == fallen[1] or not sound:
        return train, evaluated
    note = f"train mode says {train.kind}, eval mode {evaluated.kind}"
    if fallen[1]:
        note += "; BatchNorm's running statistics may be stale, average them anew over training images"
    return train._replace(notes=(*train.notes, note)), evaluated._replace(notes=(*evaluated.notes, note))


def _decide(found: Measures, says: dict[str, Says]) -> tuple[Kind, tuple[str, ...]]:
    if not all(math.isfinite(value) for value in (found.std_ratio, found.mean_energy, found.rankme)):
        return "diverged", ()
    if found.rows < 2:
        return "insufficient-data", ("one row does not differ from itself",)
    few_rows_carry_it = says.get("outlier_share") == "collapse"
    if found.std_ratio < 1e-6:
        return "complete-collapse", ("all rows are equal",)
    if says["std_ratio"] == says["mean_energy"] == "collapse":
        kind: Kind = "outlier-collapse" if few_rows_carry_it else "complete-collapse"
        return kind, () if few_rows_carry_it else ("rows are a common mean plus noise",)
    if found.rows < _least_rows(found.dimension):
        return "insufficient-data", ()
    if few_rows_carry_it and says["rankme"] != "healthy":
        return "outlier-collapse", ()
    if says["rankme"] == "collapse" and _seconded(found, says):
        masked = says["std_ratio"] == "healthy"
        return "dimensional-collapse", ("std alone looks healthy: it does not see the rank",) if masked else ()
    if says["std_ratio"] == says["rankme"] == "healthy":
        return "healthy", ()
    return "unknown", ()


def _seconded(found: Measures, says: dict[str, Says]) -> bool:
    """Whether a second measure agrees that directions are lost, and not only that the mean is large."""
    if says["std_ratio"] != "healthy":
        return True
    return says["centred_rankme"] != "healthy" if "centred_rankme" in says else found.mean_energy < 0.5


def _least_rows(dimension: int) -> float:
    return max(64.0, dimension / 4)


def _taken(found: Measures, name: str) -> bool:
    return getattr(found, name) is not None


def _vote(name: str, value: float, band: Band) -> Vote:
    return Vote(name, value, band.text(), band.origin, band.says(value))
