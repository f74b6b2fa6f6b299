"""What a tap hands over for one reading, and the measures that need more of it than one call of ``geometry``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from collapse_lab import geometry
from collapse_lab.geometry import Moments

SPECTRUM_RANKS = 64
ALPHA_LEAST_RANK = 13


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


Reader = Callable[[Gathered], dict[int, float]]


def log_spaced_ranks(dimension: int, count: int = SPECTRUM_RANKS) -> list[int]:
    """At most ``count`` whole ranks from 1 to ``dimension``, evenly spaced in the logarithm, each once.

    >>> log_spaced_ranks(8)
    [1, 2, 3, 4, 5, 6, 7, 8]
    """
    return sorted({round(rank) for rank in np.geomspace(1, dimension, count).tolist()})


def views(gathered: Gathered) -> tuple[Tensor, ...]:
    """The rows of each forward call where they can be views of the same samples: two calls or more, equal n; else none."""
    rows = _rows(gathered)
    return rows if len(rows) > 1 and len({len(call) for call in rows}) == 1 else ()


def of_moments(function: Callable[[Moments], float]) -> Reader:
    """Read a scalar function of the moments of l2-normalised rows."""
    return lambda gathered: {0: function(gathered.moments)}


def of_raw(function: Callable[[Moments], float]) -> Reader:
    """Read a scalar function of the moments of rows as they are."""
    return lambda gathered: {0: function(_raw(gathered))}


def spectrum(gathered: Gathered) -> dict[int, float]:
    """Singular values of unit rows over sqrt(N) at 64 log-spaced ranks."""
    values = geometry.spectrum(gathered.moments).tolist()
    return {rank: values[rank - 1] for rank in log_spaced_ranks(len(values))}


def alpha(gathered: Gathered) -> dict[int, float]:
    """alpha-ReQ at its default fit range; nothing where that leaves fewer than three ranks."""
    m = _raw(gathered)
    return {0: geometry.alpha_req(m)} if min(m.dimension, m.count - 1) >= ALPHA_LEAST_RANK else {}


def alignment(gathered: Gathered) -> dict[int, float]:
    """Alignment, averaged over all pairs of views; nothing without views."""
    pairs = [geometry.alignment(x, y) for x, y in combinations(views(gathered), 2)]
    return {0: sum(pairs) / len(pairs)} if pairs else {}


def uniformity(gathered: Gathered) -> dict[int, float]:
    """Exact uniformity over all rows kept; nothing for a single row."""
    rows = torch.cat(_rows(gathered))
    return {0: geometry.uniformity(rows)} if len(rows) > 1 else {}


def outlier_share(gathered: Gathered) -> dict[int, float]:
    """Share of the variance that the most distant 2 % of the rows kept carry."""
    return {0: geometry.outlier_share(torch.cat(_rows(gathered)))}


def lidar(gathered: Gathered) -> dict[int, float]:
    """Debiased LiDAR of unit rows times sqrt(d), so that delta is in the mean square of a channel; nothing without views."""
    calls = views(gathered)
    if not calls or len(calls[0]) < 2:
        return {}
    rows, samples = torch.cat(calls), torch.arange(len(calls[0])).repeat(len(calls))
    return {0: geometry.lidar(rows * rows.shape[1] ** 0.5, samples, debias=True)}


def _raw(gathered: Gathered) -> Moments:
    if gathered.raw is None:
        raise ValueError("raw: found None; this statistic reads the moments of rows as they are, gather them too")
    return gathered.raw


def _rows(gathered: Gathered) -> tuple[Tensor, ...]:
    if gathered.rows is None:
        raise ValueError("rows: found None; this statistic reads l2-normalised rows, gather them too")
    return gathered.rows
