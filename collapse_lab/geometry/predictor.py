"""What a predictor h does to the features it reads: as a linear map, against their eigenspace, and as an expectation.

z (N, D) are the features that go in and p (N, D) = h(z) what comes out, as they are. W (D, D) acts on columns, p = W z: the
weight of a linear predictor, or ``linear_map(z, p)`` of any other. Everything is float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from collapse_lab.geometry.cloud import Moments, double_rows, unit_rows


class Eigenspace(NamedTuple):
    """Per eigenvector v_j of the features' second moment F, descending, each (D,): see ``eigenspace``."""

    eigenvalues: Tensor
    gains: Tensor
    cosines: Tensor


class GradientNorms(NamedTuple):
    """Mean norm over rows of the gradient of a row's own loss at p and at z: the fast and the slow force."""

    p: float
    z: float


def linear_map(z: Tensor, p: Tensor) -> Tensor:
    """The matrix W (D, D) of least squares, W = argmin sum_n |p_n - W z_n|^2, without centring or intercept.

    Of the solutions the one of least norm, singular values of z below max(N, D) times 2.2e-16 of the largest counting as
    zero: directions that z does not use, as after a collapse or with N < D, are mapped to 0, so read W only where z has
    full rank. It is the predictor itself where that is linear. NaN where z or p is not finite. Raises ``ValueError`` where
    shapes differ.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> linear_map(z, z @ torch.tensor([[0.0, 3.0], [1.0, 0.0]]).T).round(decimals=6) + 0.0
    tensor([[0., 3.],
            [1., 0.]], dtype=torch.float64)
    """
    if z.shape != p.shape:
        raise ValueError(f"p: found shape {tuple(p.shape)}, expected that of z, {tuple(z.shape)}")
    before, after = double_rows(z, name="z"), double_rows(p, name="p")
    if not (before.isfinite().all() and after.isfinite().all()):
        return before.new_full((before.shape[1],) * 2, torch.nan)
    weight: Tensor = (torch.linalg.pinv(before) @ after).T
    return weight


def distance_from_identity(w: Tensor, *, rescaled: bool = False) -> float:
    """|W - I|_F / sqrt(D) for a square W (D, D); with ``rescaled``, of the multiple s W, s >= 0, that is nearest to I.

    Rescaled it is sqrt(1 - c^2), c = max(0, tr W / (sqrt(D) |W|_F)): what a cosine loss can see, which knows no scale.
    Range [0, infinity), rescaled [0, 1]; 0: no predictor. W = 0: 1 in both; random weights of mean 0: near 1 rescaled.
    Neither end is collapse: without a predictor it is 0 and training collapses, with a fixed random one it is near 1 and
    training does not. In one dimension it is |1 - phi|. NaN where W is not finite. Raises ``ValueError`` where W is not
    square.

    >>> w = torch.diag(torch.tensor([2.0, 2.0]))
    >>> round(distance_from_identity(w), 6), round(distance_from_identity(w, rescaled=True), 6)
    (1.0, 0.0)
    """
    weight = _square(w)
    scale = 1.0
    if rescaled:
        energy = float(weight.square().sum())
        scale = max(0.0, float(weight.trace())) / energy if energy else 0.0
    identity = torch.eye(len(weight)).to(weight)
    return float((scale * weight - identity).norm() / math.sqrt(len(weight)))


def singular_values(w: Tensor) -> Tensor:
    """Singular values (D,) of W (D, D), descending: in how many directions the predictor passes anything on.

    Collapse of the predictor: all but a few at 0. ``effective_rank`` makes one number of them. NaN where W is not finite.
    Raises ``ValueError`` where W is not square.

    >>> singular_values(torch.tensor([[0.0, 3.0], [1.0, 0.0]]))
    tensor([3., 1.], dtype=torch.float64)
    """
    weight = _square(w)
    if not weight.isfinite().all():
        return torch.full_like(weight[0], torch.nan)
    values: Tensor = torch.linalg.svdvals(weight)
    return values


def eigenspace(w: Tensor, m: Moments) -> Eigenspace:
    """How W (D, D) acts on the eigenvectors v_j of F = E z z^T, the uncentred second moment in ``m``.

    ``eigenvalues`` are s_j of F; ``gains`` v_j^T W v_j, the eigenvalues of W where it shares the eigenspace; ``cosines``
    v_j^T W v_j / |W v_j|, the alignment: 1 where v_j is an eigenvector of W with a positive eigenvalue, about
    N(0, 1/D) for random weights, 0 where W v_j = 0. F is of rows as they are in the paper: ``moments(z, normalise=False)``,
    from N well above D.

    Range of cosines [-1, 1]. Where eigenvalues of F are (nearly) equal its eigenvectors, and so gains and cosines, are
    arbitrary: ``commutator`` is not. In theory SimSiam's linear predictor comes to share F's eigenspace with gains that
    grow as sqrt(s_j); modes collapse whose gain falls to 0. NaN where W or F is not finite. Raises ``ValueError`` where
    shapes do not fit. Tian et al. (2021), DirectPred.

    >>> from collapse_lab.geometry import covariance_moments
    >>> m = covariance_moments(torch.diag(torch.tensor([4.0, 1.0])), count=10)
    >>> eigenspace(torch.diag(torch.tensor([2.0, 1.0])), m).gains
    tensor([2., 1.], dtype=torch.float64)
    """
    weight, second = _square(w, m), m.second / m.count
    if not (weight.isfinite().all() and second.isfinite().all()):
        return Eigenspace(*second.new_full((3, len(second)), torch.nan))
    values, vectors = torch.linalg.eigh(second)
    mapped = weight @ vectors
    gains = (vectors * mapped).sum(0)
    norms = mapped.norm(dim=0)
    cosines = torch.where(norms > 0, gains / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)
    return Eigenspace(values.clamp(min=0).flip(0), gains.flip(0), cosines.flip(0))


def commutator(w: Tensor, m: Moments) -> float:
    """|F W - W F|_F / (|F W|_F + |W F|_F), F = E z z^T the uncentred second moment in ``m``: 0 where eigenspaces agree.

    Range [0, 1], whatever the basis and the scale of W and F; both products zero: 0. Also 0 where either is a multiple of
    the identity or, as after a collapse to one direction that W keeps, F W = W F for want of anything else. NaN where W or
    F is not finite. Raises ``ValueError`` where shapes do not fit. Tian et al. (2021), theorem 3, where its norm decays.

    >>> from collapse_lab.geometry import covariance_moments
    >>> m = covariance_moments(torch.diag(torch.tensor([1.0, 0.0])), count=10)
    >>> round(commutator(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), m), 4)
    0.7071
    """
    weight, second = _square(w, m), m.second / m.count
    left, right = second @ weight, weight @ second
    scale = left.norm() + right.norm()
    return 0.0 if scale == 0 else float((left - right).norm() / scale)


def expectation_gap(p: Tensor, targets: Tensor) -> float:
    """Mean over n of 1 - cos(p_n, mean_k t_kn / |t_kn|): how far h(z) is from the mean target over K augmentations.

    p (N, D) are predictions, ``targets`` (K, N, D) the representations of K augmented views of the same samples, drawn
    independently of the view behind p; any floating dtype, K >= 1. The direction of the mean of unit targets is what
    maximises the mean cosine, so 0 says that the predictor fills in the expectation over augmentations, as SimSiam's
    authors suppose. Range [0, 2]; a zero prediction or a mean of zero counts as cosine 0. Any N; finite K adds noise, so
    take K of 10 or more: at K = 1 it is 1 plus the loss. Complete collapse reads 0 too, so read it beside ``std_ratio``.
    NaN where inputs are not finite. Raises ``ValueError`` where shapes do not fit. Chen & He (2020), section 5.

    >>> round(expectation_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])), 6)
    0.0
    """
    if targets.ndim != 3 or targets.shape[1:] != p.shape or not len(targets):
        raise ValueError(
            f"targets: found shape {tuple(targets.shape)}, expected (K, N, D) with (N, D) = {tuple(p.shape)}, K >= 1"
        )
    mean = torch.stack([unit_rows(target) for target in targets]).mean(0)
    return float((1 - (unit_rows(p) * unit_rows(mean)).sum(1)).mean())


def gradient_norms(loss: Tensor, p: Tensor, z: Tensor) -> GradientNorms:
    """Sum over rows r of |dloss/dp_r| and of |dloss/dz_r|, for p and z (..., D).

    ``loss`` is a scalar, the mean over rows, so this is the mean norm of the gradient of a row's own loss, whatever the
    number of rows. The graph is kept and no
    ``.grad`` is touched, so call it before ``backward``. The force at p moves the predictor, fast; that at z moves the
    encoder, slowly, through the predictor and, without a stop-gradient, through the target. Gradients of a cosine loss
    scale as 1/|p|. Range [0, infinity); at the minimum, collapsed or not, 0; a tensor that the loss does not depend on: 0.
    Raises ``ValueError`` where loss is not a scalar, shapes differ, or p or z does not require a gradient.

    >>> p = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    >>> gradient_norms(p.square().sum(-1).mean(), p, p)
    GradientNorms(p=5.0, z=5.0)
    """
    if loss.numel() != 1 or p.shape != z.shape:
        raise ValueError(
            f"found loss {tuple(loss.shape)}, p {tuple(p.shape)}, z {tuple(z.shape)}; expected a scalar and equal shapes"
        )
    if not (p.requires_grad and z.requires_grad):
        raise ValueError("p and z must require gradients: pass the tensors that the loss was computed from, not copies")
    gradients = torch.autograd.grad(loss, (p, z), retain_graph=True, allow_unused=True)
    norms = [0.0 if g is None else float(g.double().norm(dim=-1).sum()) for g in gradients]
    return GradientNorms(*norms)


def _square(w: Tensor, m: Moments | None = None) -> Tensor:
    weight = double_rows(w, name="w")
    dimension = len(weight) if m is None else m.dimension
    if weight.shape != (dimension, dimension):
        raise ValueError(f"w: found shape {tuple(w.shape)}, expected a square ({dimension}, {dimension})")
    return weight
