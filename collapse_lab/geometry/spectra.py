"""In how many directions a cloud spreads: functions of the eigenvalues of its moments.

lambda_j are eigenvalues of the second moment E u u^T or, centred, of the covariance; sigma_j = sqrt(lambda_j) are the
singular values of the matrix of rows divided by sqrt(N). The same cloud has quite another rank in one than in the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from collapse_lab.geometry.cloud import NEGLIGIBLE, Moments

RANKME_EPSILON = 1e-7


def spectrum(m: Moments, *, centred: bool = False) -> Tensor:
    """Singular values of the matrix of rows divided by sqrt(N), descending, (D,), float64; uncentred unless told.

    Of unit rows their squares add up to 1 where no row is zero. Collapse: only the first differs from 0. At most min(N, D)
    of them do, centred one fewer, so it needs N well above D. Values below about 1e-8 of the first are rounding. Rows that
    are not finite give NaN. Logged in this form by Jing et al. (2022).

    >>> from collapse_lab.geometry import moments
    >>> spectrum(moments(torch.eye(2)))
    tensor([0.7071, 0.7071], dtype=torch.float64)
    """
    return (m.centred_eigenvalues if centred else m.eigenvalues).sqrt()


def rankme(m: Moments, *, eigenvalues: bool = False, centred: bool = False, epsilon: float = RANKME_EPSILON) -> float:
    """RankMe: ``effective_rank`` of the singular values of the rows, uncentred, as in the paper.

    Of l2-normalised rows where ``m`` is; the paper takes them as they are, ``moments(z, normalise=False)``. Other forms go
    by the same name elsewhere: with ``eigenvalues`` the entropy is over lambda in place of sigma, with ``centred`` the mean
    is taken off first (MONAI), with both it is that of the covariance (reptrix, ssrlib). On a power law of alpha 1,
    D = 128: 107.0 over sigma, 47.0 over lambda.

    Range [1, min(N, D)]; dimensional collapse: near 1; a cloud of rank r: at most r. Uncentred it also shrinks with a
    mean that is not zero; centred it is blind to complete collapse: a constant plus faint noise reads nearly D, a true
    constant 1. Needs N well above D: an isotropic cloud reads about 0.24 D at N = D/4, 0.46 D at N = D/2 and 0.97 D at
    N = 4 D. NaN where rows are not finite. Garrido et al. (2023), 25,600 rows.

    >>> from collapse_lab.geometry import moments
    >>> round(rankme(moments(torch.eye(4))), 3), round(rankme(moments(torch.eye(4)), centred=True), 3)
    (4.0, 3.0)
    """
    values = m.centred_eigenvalues if centred else m.eigenvalues
    return effective_rank(values if eigenvalues else values.sqrt(), epsilon)


def effective_rank(values: Tensor, epsilon: float = RANKME_EPSILON) -> float:
    """exp of the entropy of p = v / sum(v) + epsilon, for a spectrum v (K,) of values that are not negative.

    Range [1, K]; the default epsilon is RankMe's and shifts the ends a little: 2050.8 for a flat K = 2048. All zero: 1.
    Roy & Vetterli (2007), without epsilon; Garrido et al. (2023), with it.

    >>> round(effective_rank(torch.tensor([1.0, 1.0, 0.0])), 3)
    2.0
    """
    values = values.double()
    total = values.sum()
    if total == 0:
        return 1.0
    p = values / total + epsilon
    return float(torch.special.entr(p).sum().exp())


def participation_ratio(m: Moments, *, centred: bool = True) -> float:
    """(sum lambda)^2 / sum lambda^2 = (tr C)^2 / |C|_F^2, of the covariance C unless told not to centre.

    Needs no eigenvalues, so it is the cheapest measure of dimension. Range [1, min(N - 1, D)]; dimensional collapse: near
    1; no variance at all: 1. N isotropic rows read 1 / (1/N + 1/D), so it needs N well above its own value. Centred, it is
    blind to amplitude: a constant plus faint noise reads nearly D. NaN where rows are not finite.
    Gao et al. (2017).

    >>> from collapse_lab.geometry import moments
    >>> round(participation_ratio(moments(torch.eye(4))), 6)
    3.0
    """
    matrix = m.covariance if centred else m.second / m.count
    trace = matrix.trace()
    return 1.0 if trace == 0 else float(trace.square() / matrix.square().sum())


def alpha_req(m: Moments, *, first: int = 11, last: int = 100) -> float:
    """The exponent alpha of a power law lambda_j ~ j^-alpha fitted to ranks ``first``..``last`` of the covariance's spectrum.

    Least squares of log lambda_j on log j with weights 1/j; ``last`` is cut to min(D, N - 1). Rows as they went into
    ``m``; the paper takes them as they are. Range: real numbers, not negative for a descending spectrum; 0 flat, near 1 in
    good networks, large where dimensions are lost, and infinity where the spectrum ends inside the fit range (below 1e-12
    of the largest eigenvalue). Blind to the first ``first`` - 1 ranks and to amplitude; the fit range can reverse an order
    of runs, so it belongs to the number. NaN where rows are not finite.

    Raises ``ValueError`` where fewer than three ranks are left to fit; means something from N of about 4 ``last`` on.
    Agrawal et al. (2022); weights and default range as in the reptrix library.

    >>> from collapse_lab.geometry import covariance_moments
    >>> powers = torch.arange(1, 129, dtype=torch.float64) ** -2
    >>> round(alpha_req(covariance_moments(torch.diag(powers), count=1000)), 6)
    2.0
    """
    end = min(last, m.dimension, m.count - 1)
    if first < 1 or end < first + 2:
        raise ValueError(
            f"ranks {first}..{last}: found N = {m.count}, D = {m.dimension}, which leave {max(end - first + 1, 0)} ranks; "
            "a fit needs at least 3, from rank 1 on: lower first or gather more rows"
        )
    values = m.centred_eigenvalues[first - 1 : end]
    if values[-1] <= NEGLIGIBLE * m.centred_eigenvalues[0]:
        return math.inf
    ranks = torch.arange(first, end + 1, dtype=values.dtype, device=values.device)
    weights = ranks.reciprocal() / ranks.reciprocal().sum()
    x, y = ranks.log() - weights @ ranks.log(), values.log()
    return float(-(weights * x) @ y / (weights @ x.square()))


def explained_auc(m: Moments, *, eigenvalues: bool = False) -> float:
    """Area under the curve of cumulated, centred singular values: (1/D) sum_i (sum_{j<=i} sigma_j) / (sum_k sigma_k).

    Over lambda with ``eigenvalues``. Rows as they went into ``m``; the paper takes them as they are. Range [(D+1)/(2D), 1];
    dimensional collapse: towards 1; no variance at all: 1. Blind to amplitude; not comparable between different D. Needs N
    well above D. NaN where rows are not finite. Li, Efros & Pathak (2022), equation 2.

    >>> from collapse_lab.geometry import moments
    >>> round(explained_auc(moments(torch.cat([torch.eye(4), -torch.eye(4)]))), 4)
    0.625
    """
    values = m.centred_eigenvalues if eigenvalues else m.centred_eigenvalues.sqrt()
    total = values.sum()
    return 1.0 if total == 0 else float(values.cumsum(0).mean() / total)


def power_law_rankme(dimension: int, alpha: float) -> float:
    """RankMe of a cloud whose second moment's eigenvalues fall as j^-alpha, j = 1..D: a yardstick for ``rankme``.

    >>> round(power_law_rankme(128, 2.0), 2), round(power_law_rankme(128, 3.0), 1)
    (46.96, 13.0)
    """
    ranks = torch.arange(1, dimension + 1, dtype=torch.float64)
    return effective_rank(ranks ** (-alpha / 2))
