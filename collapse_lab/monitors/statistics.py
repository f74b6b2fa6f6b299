"""The measures a watch reads, each a function of what a tap gathered, with what a reader must know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from collapse_lab import geometry
from collapse_lab.geometry import Moments

SPECTRUM_RANKS = 64

Needs = Literal["moments", "raw", "rows"]


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one tap gathered over the rows of one reading.

    ``moments`` are those of l2-normalised rows, ``raw`` those of rows as they are, ``rows`` l2-normalised rows (n, D), at
    most 1,024 in all, one tensor per forward call. Where there are several calls of equal n, row i of each is taken to
    be a view of sample i. ``raw`` and ``rows`` are None unless a statistic needs them.
    """

    moments: Moments
    raw: Moments | None = None
    rows: tuple[Tensor, ...] | None = None


class Statistic(NamedTuple):
    """A measure: its name in tables, its function, what the function reads, and the columns of the README's table.

    ``needs`` names the most costly field of ``Gathered`` that the function reads. ``least_rows`` says from how many rows on
    the value means something, ``source`` who defined it, with year.
    """

    name: str
    function: Callable[[Gathered], dict[int, float]]
    needs: Needs
    formula: str
    range: str
    collapse: str
    blind_to: str
    least_rows: str
    source: str


def _scalar(function: Callable[[Moments], float]) -> Callable[[Gathered], dict[int, float]]:
    return lambda gathered: {0: function(gathered.moments)}


def _spectrum(gathered: Gathered) -> dict[int, float]:
    values = geometry.spectrum(gathered.moments).tolist()
    return {rank: values[rank - 1] for rank in log_spaced_ranks(len(values))}


def log_spaced_ranks(dimension: int, count: int = SPECTRUM_RANKS) -> list[int]:
    """At most ``count`` whole ranks from 1 to ``dimension``, evenly spaced in the logarithm, each once.

    >>> log_spaced_ranks(8)
    [1, 2, 3, 4, 5, 6, 7, 8]
    """
    return sorted({round(rank) for rank in np.geomspace(1, dimension, count).tolist()})


CHEAP = (
    Statistic(
        "std",
        _scalar(geometry.std),
        "moments",
        "mean over channels of std(u_c)",
        "[0, 1/sqrt(d)]",
        "0",
        "rank",
        "2",
        "Chen & He (2020)",
    ),
    Statistic(
        "std_ratio",
        _scalar(geometry.std_ratio),
        "moments",
        "std x sqrt(d)",
        "[0, 1]",
        "0",
        "rank",
        "2",
        "Chen & He (2020)",
    ),
    Statistic(
        "mean_energy",
        _scalar(geometry.mean_energy),
        "moments",
        "squared norm of E u",
        "[0, 1]",
        "1",
        "rank",
        "2",
        "Zhang et al. (2022)",
    ),
)

STANDARD = (
    *CHEAP,
    Statistic(
        "rankme",
        _scalar(geometry.rankme),
        "moments",
        "exp entropy of the singular values of u",
        "[1, min(N, d)]",
        "near 1",
        "amplitude around a mean of 0",
        "4 d",
        "Garrido et al. (2023)",
    ),
)

SPECTRUM = Statistic(
    "spectrum",
    _spectrum,
    "moments",
    "singular values of u / sqrt(N), at 64 ranks",
    "[0, 1]",
    "all but the first 0",
    "-",
    "4 d",
    "Jing et al. (2022)",
)

FULL = (*STANDARD, SPECTRUM)


def read(gathered: Gathered, statistics: Iterable[Statistic]) -> Iterator[tuple[str, int, float]]:
    """(name, index, value) of each statistic; scalars have index 0, vectors one entry an index."""
    for statistic in statistics:
        for index, value in statistic.function(gathered).items():
            yield statistic.name, index, value
