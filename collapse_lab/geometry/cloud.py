"""Moments of a cloud of rows, and the measures that read no more of them than means, variances and correlations.

Moments add up, so a value does not depend on how the rows were split into batches. Every measure here is a function of
``Moments``, be they of l2-normalised rows, of rows as they are, or made from a covariance. None looks at single rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NEGLIGIBLE = 1e-12


@dataclass(frozen=True, eq=False)
class Moments:
    """Sufficient statistics of rows u_n: count N, sum (D,) and second moment sum_n u_n u_n^T (D, D), in float64.

    ``rows`` (N, D) are the rows themselves, where they are at hand and N < D: the eigenvalues that are not zero are then
    those of an (N, N) matrix, at (N / D)^3 of the cost.
    """

    count: int
    total: Tensor
    second: Tensor
    rows: Tensor | None = None

    def __add__(self, other: Moments) -> Moments:
        rows = _few(self.rows, other.rows)
        return Moments(self.count + other.count, self.total + other.total, self.second + other.second, rows)

    @property
    def dimension(self) -> int:
        """D, the number of channels."""
        return self.total.numel()

    @cached_property
    def covariance(self) -> Tensor:
        """Population covariance (D, D), ddof 0; all zero where the variance is below 1e-12 of the mean squared norm.

        So a constant cloud has no directions, rather than those of rounding.
        """
        mean, second = self.total / self.count, self.second / self.count
        covariance = torch.addr(second, mean, mean, alpha=-1)
        return torch.zeros_like(second) if covariance.trace() <= NEGLIGIBLE * second.trace() else covariance

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues (D,) of the uncentred second moment E u u^T, descending; NaN where rows are not finite."""
        return _eigenvalues(self.second / self.count, self.rows, self.count)

    @cached_property
    def centred_eigenvalues(self) -> Tensor:
        """Eigenvalues (D,) of ``covariance``, descending; NaN where rows are not finite."""
        centred = None if self.rows is None else self.rows - self.total / self.count
        return _eigenvalues(self.covariance, centred, self.count - 1)


def moments(features: Tensor, *, normalise: bool = True, onto: Moments | None = None) -> Moments:
    """Moments of the rows of ``features`` (N, D), l2-normalised (see ``unit_rows``) or, on request, as they are.

    With ``onto`` they are added to moments of earlier rows, in place and in less than half the time of a sum: those are
    used up and must not be read again. Any floating dtype, accumulated in float64: in float32 the rounding of the second
    moment of a rank-1 cloud reads as RankMe 3.6 at D = 2048. Rows that are not finite make every measure NaN. Raises
    ``ValueError`` unless N >= 1, D >= 1 and rows are floating.

    >>> m = moments(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    >>> m.count, m.total.tolist()
    (2, [0.6, 1.8])
    """
    rows = unit_rows(features) if normalise else double_rows(features)
    if onto is None:
        return Moments(len(rows), rows.sum(0), rows.T @ rows, _few(rows))
    # What was made under torch.inference_mode cannot be written to outside it.
    second = onto.second.clone() if onto.second.is_inference() else onto.second
    second.addmm_(rows.T, rows)
    return Moments(onto.count + len(rows), onto.total + rows.sum(0), second, _few(onto.rows, rows))


def covariance_moments(covariance: Tensor, count: int) -> Moments:
    """Moments of ``count`` rows of mean zero that have the symmetric ``covariance`` (D, D), ddof 0.

    A cloud of N rows has rank N at most, so eigenvalues past the ``count``-th count as zero. Raises ``ValueError`` where
    the matrix is not square, floating and symmetric to 1e-6 of its largest entry, or ``count`` is below 1.

    >>> m = covariance_moments(torch.diag(torch.tensor([2.0, 1.0, 1.0])), count=100)
    >>> round(float(m.eigenvalues[0]), 6)
    2.0
    """
    matrix = double_rows(covariance, name="covariance")
    if matrix.shape[0] != matrix.shape[1] or (matrix - matrix.T).abs().max() > 1e-6 * matrix.abs().max():
        raise ValueError(f"covariance: found shape {tuple(matrix.shape)}; expected a symmetric (D, D)")
    if count < 1:
        raise ValueError(f"count: found {count}, expected at least 1 row")
    return Moments(count, matrix.new_zeros(len(matrix)), matrix * count)


def unit_rows(features: Tensor) -> Tensor:
    """Rows of ``features`` (N, D) as unit vectors in float64: u = z / max(|z|, 1e-12), so that a zero row stays zero.

    Raises ``ValueError`` unless N >= 1, D >= 1 and rows are floating.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    return torch.nn.functional.normalize(double_rows(features), dim=1)


def double_rows(features: Tensor, name: str = "features") -> Tensor:
    """``features`` (N, D) detached and in float64; raises ``ValueError`` for other shapes, no rows or other dtypes."""
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(f"{name}: found shape {tuple(features.shape)}, {features.dtype}; expected floating (N, D)")
    return features.detach().double()


def std(m: Moments) -> float:
    """Mean over channels of the standard deviation of l2-normalised rows: (1/D) sum_c sqrt(E u_c^2 - (E u_c)^2).

    Population standard deviation (ddof 0). Range [0, 1/sqrt(D)]; complete collapse: 0. It obeys sum_c Var u_c =
    1 - mean_energy, so it sees the mean and the evenness of channels and never the rank: the rank-1 cloud of +v and -v,
    v = (1, ..., 1), reads exactly 1/sqrt(D). Changes under rotation. Needs N >= 2. Chen & He (2020), Figure 2, middle.

    >>> round(std(moments(torch.eye(4))), 4)
    0.433
    """
    mean = m.total / m.count
    variance = m.second.diagonal() / m.count - mean**2
    return float(variance.clamp(min=0).sqrt().mean())


def std_ratio(m: Moments) -> float:
    """``std`` times sqrt(D): 1 where it reaches the value of an isotropic cloud.

    Range [0, 1]; complete collapse: 0. Blind to rank. One row that differs from N - 1 equal ones holds all variance of
    BatchNorm's output and reads about 2/sqrt(N), not 0. Needs N >= 2. Chen & He (2020).

    >>> round(std_ratio(moments(torch.eye(4))), 4)
    0.866
    """
    return std(m) * math.sqrt(m.dimension)


def mean_energy(m: Moments) -> float:
    """Squared norm of the mean of l2-normalised rows, |E u|^2: the mean cosine over all N^2 pairs of rows.

    Range [0, 1]; complete collapse: 1. The square of m_o of Zhang et al. (2022). Blind to rank. About 1/N for N
    independent isotropic rows, so it needs N well above 1.

    >>> mean_energy(moments(torch.eye(4)))
    0.25
    """
    return float((m.total / m.count).square().sum())


def residual_energy(m: Moments) -> float:
    """Mean squared distance of l2-normalised rows from their mean, E|u - E u|^2, the trace of their covariance.

    Range [0, 1]; complete collapse: 0. The square of m_r of Zhang et al. (2022). With ``mean_energy`` it adds up to the
    share of rows that are not zero. Blind to rank. Needs N >= 2.

    >>> residual_energy(moments(torch.eye(4)))
    0.75
    """
    return float((m.second.trace() / m.count - mean_energy(m)).clamp(min=0))


def mean_absolute_correlation(m: Moments) -> float:
    """Mean over pairs of channels i != j of |C_ij| / sqrt(C_ii C_jj), C the population covariance (D, D).

    Over channels that vary: variance above 1e-12 of their mean square; fewer than two of them (a constant cloud, N = 1,
    D = 1): 1. Range [0, 1]; dimensional collapse: towards 1. N independent Gaussian rows read about sqrt(2 / (pi N)), so
    it needs N well above 100. Blind to amplitude, and to lost rank where the kept directions are the channels
    themselves: it changes under rotation. Logged in this form by Hua et al. (2021).

    >>> round(mean_absolute_correlation(moments(torch.eye(4))), 4)
    0.3333
    """
    covariance = m.covariance
    if not covariance.sum().isfinite():
        return math.nan
    variance = covariance.diagonal()
    varies = variance > NEGLIGIBLE * m.second.diagonal() / m.count
    count = int(varies.sum())
    if count < 2:
        return 1.0
    scale = torch.where(varies, variance.rsqrt(), 0.0)
    return float((scale @ covariance.abs() @ scale - count) / (count * (count - 1)))


def _few(*parts: Tensor | None) -> Tensor | None:
    """A copy of all rows where they are fewer than their channels; None where they are not, or not all at hand."""
    known = [rows for rows in parts if rows is not None]
    if len(known) < len(parts) or sum(map(len, known)) >= known[0].shape[1]:
        return None
    return torch.cat(known)


def _eigenvalues(matrix: Tensor, rows: Tensor | None, rank: int) -> Tensor:
    """Eigenvalues of a positive semidefinite matrix of at most the given rank, descending; NaN where it is not finite.

    Where there are ``rows``, fewer than channels, the matrix is their second moment.
    """
    values = torch.zeros_like(matrix[0])
    if not matrix.sum().isfinite():
        return values.fill_(torch.nan)
    if matrix.trace() > 0:
        small = matrix if rows is None else rows @ rows.T / len(rows)
        largest = torch.linalg.eigvalsh(small).clamp(min=0).flip(0)[:rank]
        values[: len(largest)] = largest
    return values
