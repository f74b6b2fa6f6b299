"""What a cloud of feature vectors looks like: pure functions of its moments, in float64.

Everything here is a function of ``Moments``: count, sum and second moment of l2-normalised rows. Moments add up, so a
value does not depend on how the rows were split into batches. No function looks at single rows.

The two kinds of collapse need two kinds of measure. ``std_ratio`` and ``mean_energy`` see amplitude: whether rows differ
at all. ``rankme`` and ``spectrum`` see dimension: in how many directions they differ. Neither sees what the other does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RANKME_EPSILON = 1e-7


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of rows u_n: count N, sum (D,) and second moment sum_n u_n u_n^T (D, D), float64."""

    count: int
    total: Tensor
    second: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.second + other.second)

    @property
    def dimension(self) -> int:
        """D, the number of channels."""
        return self.total.numel()


def moments(features: Tensor, *, normalise: bool = True) -> Moments:
    """Moments of the rows of ``features`` (N, D), l2-normalised unless told not to, accumulated in float64.

    Any floating dtype. A row of norm below 1e-12 counts as the zero vector where rows are normalised. Float64 is needed: in float32 the rounding of the second moment
    of a rank-1 cloud reads as RankMe 3.6 at D = 2048. Raises ``ValueError`` unless N >= 1, D >= 1 and rows are floating.
    """
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(f"features: found shape {tuple(features.shape)}, {features.dtype}; expected floating (N, D)")
    rows = features.detach().double()
    if normalise:
        rows = torch.nn.functional.normalize(rows, dim=1)
    return Moments(len(rows), rows.sum(0), rows.T @ rows)


def std(m: Moments) -> float:
    """Mean over channels of the standard deviation of l2-normalised rows: (1/D) sum_c sqrt(E u_c^2 - (E u_c)^2).

    Population standard deviation (ddof 0). Range [0, 1/sqrt(D)]; complete collapse: 0. It obeys sum_c Var u_c =
    1 - mean_energy, so it sees the mean and the evenness of channels and never the rank: the rank-1 cloud of +v and -v,
    v = (1, ..., 1), reads exactly 1/sqrt(D). Needs N >= 2. Chen & He (2020), Figure 2, middle.

    >>> round(std(moments(torch.eye(4))), 4)
    0.433
    """
    mean = m.total / m.count
    variance = m.second.diagonal() / m.count - mean**2
    return float(variance.clamp(min=0).sqrt().mean())


def std_ratio(m: Moments) -> float:
    """``std`` times sqrt(D): 1 where it reaches the value of an isotropic cloud, range [0, 1], complete collapse 0.

    >>> round(std_ratio(moments(torch.eye(4))), 4)
    0.866
    """
    return std(m) * math.sqrt(m.dimension)


def mean_energy(m: Moments) -> float:
    """Squared norm of the mean of l2-normalised rows, |E u|^2: the mean cosine between all pairs of rows.

    Range [0, 1]; complete collapse: 1. The square of m_o of Zhang et al. (2022), whose m_r^2 is 1 minus this. Blind to
    rank. About 1/N for N independent isotropic rows.

    >>> mean_energy(moments(torch.eye(4)))
    0.25
    """
    return float((m.total / m.count).square().sum())


def spectrum(m: Moments) -> Tensor:
    """Singular values of the matrix of l2-normalised, uncentred rows divided by sqrt(N), descending, (D,), float64.

    Their squares add up to 1 where no row is zero. Collapse: only the first differs from 0. At most min(N, D) of them
    do. Values below about 1e-8 are rounding. Rows that are not finite give NaN.

    >>> spectrum(moments(torch.eye(2)))
    tensor([0.7071, 0.7071], dtype=torch.float64)
    """
    if not m.second.isfinite().all():
        return torch.full_like(m.total, torch.nan)
    eigenvalues: Tensor = torch.linalg.eigvalsh(m.second / m.count)
    return eigenvalues.clamp(min=0).sqrt().flip(0)


def rankme(m: Moments) -> float:
    """RankMe of l2-normalised, uncentred rows: ``effective_rank`` of their singular values.

    Range [1, min(N, D)]; dimensional collapse: near 1; a cloud of rank r: at most r. Needs N well above D: an isotropic
    cloud reads about 0.24 D at N = D/2 and 0.97 D at N = 4 D. Shrinks with a mean that is not zero as well as with lost
    directions. Garrido et al. (2023), who do not normalise rows.

    >>> round(rankme(moments(torch.eye(4))), 3)
    4.0
    """
    return effective_rank(spectrum(m))


def effective_rank(singular_values: Tensor, epsilon: float = RANKME_EPSILON) -> float:
    """exp of the entropy of p = s / sum(s) + epsilon for singular values s (K,), not negative.

    Range [1, K]; the default epsilon is RankMe's and shifts the ends a little: 2050.8 for a flat K = 2048. All zero: 1.
    Roy & Vetterli (2007), without epsilon; Garrido et al. (2023), with it.

    >>> round(effective_rank(torch.tensor([1.0, 1.0, 0.0])), 3)
    2.0
    """
    total = singular_values.sum()
    if total == 0:
        return 1.0
    p = singular_values / total + epsilon
    return float(torch.special.entr(p).sum().exp())


def power_law_rankme(dimension: int, alpha: float) -> float:
    """RankMe of a cloud whose covariance eigenvalues fall as j^-alpha, j = 1..D: a yardstick for ``rankme``.

    >>> round(power_law_rankme(128, 2.0), 2), round(power_law_rankme(128, 3.0), 1)
    (46.96, 13.0)
    """
    ranks = torch.arange(1, dimension + 1, dtype=torch.float64)
    return effective_rank(ranks ** (-alpha / 2))
