"""Measures of single rows: distances between views of one sample, between samples, and how the two compare.

Moments are not enough here. Everything is float64; rows are l2-normalised except in ``lidar``.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from collapse_lab.geometry.cloud import NEGLIGIBLE, double_rows, unit_rows
from collapse_lab.geometry.spectra import RANKME_EPSILON, effective_rank

ENTRIES_AT_ONCE = 2**22


def alignment(x: Tensor, y: Tensor, *, power: float = 2.0) -> float:
    """Mean over n of |u_n - v_n|^power, u and v the l2-normalised rows of x and y (N, D), row n being views of one sample.

    Any floating dtype. Range [0, 2^power]; perfect agreement: 0, and collapse: 0 too, so it is never read alone. For the
    default power it is 2 - 2 E cos(x, y). Means something from N = 1 on. NaN where rows are not finite. Raises
    ``ValueError`` where shapes differ. Wang & Isola (2020).

    >>> round(alignment(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])), 6)
    1.0
    """
    if x.shape != y.shape:
        raise ValueError(f"y: found shape {tuple(y.shape)}, expected that of x, {tuple(x.shape)}: row n views sample n")
    return float((unit_rows(x) - unit_rows(y)).norm(dim=1).pow(power).mean())


def uniformity(
    features: Tensor, *, t: float = 2.0, most_pairs: int = 2**20, generator: Generator | None = None
) -> float:
    """log of the mean over pairs i < j of exp(-t |u_i - u_j|^2), u the l2-normalised rows of ``features`` (N, D).

    Exact up to ``most_pairs`` pairs (N = 1,448 at the default, which needs 8 MB); for more rows, that many pairs i != j
    are drawn uniformly, with replacement, from ``generator``. Any floating dtype. Range [-4 t, 0] (two opposite points);
    no large cloud goes below the isotropic one, about -4 + 8/D for t = 2: -3.75 at D = 32, -3.94 at D = 128. Complete
    collapse: 0. Hardly sees lost dimensions: half of 128 dead moves it by 0.06. Means something from N of about 100 on.
    NaN where rows are not finite. Raises ``ValueError`` where N < 2 or a generator is missing. Wang & Isola (2020).

    >>> round(uniformity(torch.eye(3)), 6)
    -4.0
    """
    rows = unit_rows(features)
    count = len(rows)
    if count < 2:
        raise ValueError("features: found 1 row, expected at least 2: uniformity is a mean over pairs")
    if count * (count - 1) // 2 <= most_pairs:
        exponents = -t * torch.pdist(rows).square()
    elif generator is None:
        raise ValueError(f"generator: found None; {count} rows have over {most_pairs} pairs, which are drawn: pass one")
    else:
        exponents = -t * _drawn_distances(rows, most_pairs, generator).square()
    return float(exponents.logsumexp(0) - math.log(len(exponents)))


def lidar(
    features: Tensor,
    samples: Tensor,
    *,
    delta: float = 1e-4,
    debias: bool = False,
    epsilon: float = RANKME_EPSILON,
) -> float:
    """LiDAR: ``effective_rank`` of the eigenvalues of S_w^-1/2 S_b S_w^-1/2, in how many directions samples differ.

    Row i of ``features`` (N, D), any floating dtype, is a view of the sample numbered samples[i] (N,): whole numbers, in
    any order. S_b (D, D) is the covariance of the n sample means (ddof 1); S_w the pooled covariance of views around
    their sample's mean, scatter / (N - n), plus delta I. Rows are not normalised, so ``delta`` has their squared unit.

    Sample means of q views carry S_w / q, so noise alone reads high: n = 1,000, q = 10, D = 32, no signal: about 31.4.
    ``debias`` takes S_w / q (its mean over samples where q differs) off S_b, without delta, and negative eigenvalues
    count as zero: 4 directions of variance 1 in D = 128 with noise 0.3, n = 1,000, read about 51, 25, 14, 5.9 at q = 2, 5,
    10, 50 and debiased 13, 6.7, 5.3, 4.3. What is left of noise alone is still not small. Compare only at equal n and q.

    Range [1, min(D, n - 1)]; collapse: near 1, and 1 where sample means do not differ. Means something from n well above
    D on. NaN where rows are not finite. Raises ``ValueError`` for fewer than two samples, no sample with two views, or an
    S_w that delta does not make positive definite. Thilak et al. (2023), n about 1,000 and q about 50.

    >>> sample = torch.arange(4).repeat_interleave(2)
    >>> round(lidar(torch.eye(4)[sample], sample), 3)
    3.0
    """
    rows = double_rows(features)
    between, within, views = _scatter(rows, samples)
    if not rows.isfinite().all():
        return math.nan
    if debias:
        between = between - within / views
    if between.trace() <= NEGLIGIBLE * rows.square().sum(1).mean():
        return 1.0
    factor, failed = torch.linalg.cholesky_ex(within + delta * torch.eye(len(within)).to(within))
    if failed:
        raise ValueError(f"delta: found {delta}, which leaves the covariance of views singular; take a larger one")
    half = torch.linalg.solve_triangular(factor, between, upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
    return effective_rank(torch.linalg.eigvalsh(whitened).clamp(min=0), epsilon)


def _scatter(rows: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, float]:
    """Covariance of sample means, pooled covariance around them, and the harmonic mean of the number of views."""
    if samples.shape != (len(rows),) or samples.is_floating_point() or samples.is_complex():
        raise ValueError(
            f"samples: found shape {tuple(samples.shape)}, {samples.dtype}; expected one whole number a row, ({len(rows)},)"
        )
    _, sample, views = samples.to(rows.device).unique(return_inverse=True, return_counts=True)
    count = len(views)
    if not 2 <= count < len(rows):
        raise ValueError(
            f"samples: found {count} samples in {len(rows)} rows; expected at least 2 samples, one of them with 2 views"
        )
    means = rows.new_zeros(count, rows.shape[1]).index_add_(0, sample, rows) / views[:, None]
    apart, around = means - means.mean(0), rows - means[sample]
    harmonic = 1 / float(views.double().reciprocal().mean())
    return apart.T @ apart / (count - 1), around.T @ around / (len(rows) - count), harmonic


def _drawn_distances(rows: Tensor, pairs: int, generator: Generator) -> Tensor:
    """Distances of pairs of different rows, drawn uniformly with replacement."""
    count, width = rows.shape
    one = torch.randint(count, (pairs,), generator=generator, device=generator.device)
    other = (one + torch.randint(1, count, (pairs,), generator=generator, device=generator.device)) % count
    parts = torch.stack([one, other]).to(rows.device).split(max(1, ENTRIES_AT_ONCE // width), dim=1)
    return torch.cat([(rows[i] - rows[j]).norm(dim=1) for i, j in parts])


def outlier_share(features: Tensor) -> float:
    """Share of the variance of l2-normalised rows (N, D) that the most distant 2 % of them (at least one) carry.

    Range [0, 1]; all rows equally far from the mean: 0.02 (for N a multiple of 50); one outlier among equal rows: near 1.
    0 where all rows are equal, NaN where a row is not finite.

    >>> import torch
    >>> round(outlier_share(torch.tensor([[1.0, 0.0]] * 99 + [[-1.0, 0.0]])), 2)
    0.99
    """
    rows = unit_rows(features)
    distances = (rows - rows.mean(0)).square().sum(1)
    total = float(distances.sum())
    most = distances.topk(max(1, round(0.02 * len(rows)))).values
    return 0.0 if total <= 1e-18 * len(rows) else float(most.sum()) / total
