"""The measures a watch reads, each a function of the moments of l2-normalised rows, with what a reader must know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from collapse_lab import geometry
from collapse_lab.geometry import Moments

SPECTRUM_RANKS = 64


class Statistic(NamedTuple):
    """A measure: its name in tables, its function, and the columns of the README's table."""

    name: str
    function: Callable[[Moments], dict[int, float]]
    formula: str
    range: str
    collapse: str
    blind_to: str


def _scalar(function: Callable[[Moments], float]) -> Callable[[Moments], dict[int, float]]:
    return lambda moments: {0: function(moments)}


def _spectrum(moments: Moments) -> dict[int, float]:
    values = geometry.spectrum(moments).tolist()
    return {rank: values[rank - 1] for rank in log_spaced_ranks(len(values))}


def log_spaced_ranks(dimension: int, count: int = SPECTRUM_RANKS) -> list[int]:
    """At most ``count`` whole ranks from 1 to ``dimension``, evenly spaced in the logarithm, each once.

    >>> log_spaced_ranks(8)
    [1, 2, 3, 4, 5, 6, 7, 8]
    """
    return sorted({round(rank) for rank in np.geomspace(1, dimension, count).tolist()})


STANDARD = (
    Statistic("std", _scalar(geometry.std), "mean over channels of std(u_c)", "[0, 1/sqrt(d)]", "0", "rank"),
    Statistic("std_ratio", _scalar(geometry.std_ratio), "std x sqrt(d)", "[0, 1]", "0", "rank"),
    Statistic("mean_energy", _scalar(geometry.mean_energy), "squared norm of E u", "[0, 1]", "1", "rank"),
    Statistic(
        "rankme",
        _scalar(geometry.rankme),
        "exp entropy of the singular values of u",
        "[1, min(N, d)]",
        "near 1",
        "amplitude around a mean of 0",
    ),
)

SPECTRUM = Statistic(
    "spectrum", _spectrum, "singular values of u / sqrt(N), at 64 ranks", "[0, 1]", "all but the first 0", "-"
)


def read(moments: Moments, statistics: Iterable[Statistic]) -> Iterator[tuple[str, int, float]]:
    """(name, index, value) of each statistic; scalars have index 0, vectors one entry an index."""
    for statistic in statistics:
        for index, value in statistic.function(moments).items():
            yield statistic.name, index, value
