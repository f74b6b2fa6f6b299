"""What a predictor h does to the features it reads: as a linear map, against their eigenspace, and as an expectation.

z (N, D) are the features that go in and p (N, D) = h(z) what comes out, as they are, not normalised. F = E z z^T is their
second moment and C = E p z^T, both uncentred and needing N well above D; where h is linear, p = W z and C = W F. Everything is
float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from collapse_lab.geometry.cloud import NEGLIGIBLE, double_rows, unit_rows


class Eigenspace(NamedTuple):
    """Per eigenvector v_j of the features' second moment F, descending, each (D,): see ``eigenspace``."""

    eigenvalues: Tensor
    gains: Tensor
    cosines: Tensor


class GradientNorms(NamedTuple):
    """Mean norm over rows of the gradient of a row's own loss at p and at z: the fast and the slow force."""

    p: float
    z: float


def distance_from_identity(z: Tensor, p: Tensor, *, rescaled: bool = False) -> float:
    """sqrt(E|p - z|^2 / E|z|^2) over rows; with ``rescaled``, of the multiple s p, s >= 0, that is nearest to z.

    Rescaled it is sqrt(1 - c^2), c = max(0, E p.z / sqrt(E|p|^2 E|z|^2)): a cosine loss knows no scale. Of the weight W of a
    linear predictor alone, |W - I|_F / sqrt(D): z = I, p = W^T. In one dimension it is |1 - phi|. Any N.

    Range [0, infinity), rescaled [0, 1]; 0: no predictor; p = 0: 1 in both; p unlike z: near 1 rescaled. Neither end is
    collapse: without a predictor it is 0 and training collapses, with a fixed random one it is near 1 and training does
    not. z = 0: 0 where p = 0, else infinity, rescaled 0. NaN where z or p is not finite. Raises ``ValueError`` where shapes
    differ. Not from a paper.

    >>> z = torch.eye(2)
    >>> round(distance_from_identity(z, 2 * z), 6), round(distance_from_identity(z, 2 * z, rescaled=True), 6)
    (1.0, 0.0)
    """
    before, after = _paired(z, p)
    energy = float(before.square().sum())
    scale = 1.0
    if rescaled:
        norm = float(after.square().sum())
        scale = max(0.0, float((before * after).sum())) / norm if norm else 0.0
    distance = float((scale * after - before).norm())
    if energy == 0:
        return math.inf if distance > 0 else distance
    return distance / math.sqrt(energy)


def linear_map(z: Tensor, p: Tensor, *, ridge: float = 0.0) -> Tensor:
    """The matrix W (D, D) that minimises E|p - W z|^2 + ridge (tr F / D) |W|_F^2, without centring or intercept.

    It is a linear predictor itself, at ridge 0. Of several solutions it is the one of least norm, so directions that z does
    not use, as after a collapse or with N < D, are mapped to 0. Directions that z hardly uses are badly determined where h
    is not linear, and dominate W: give a ridge of 0.01 or so there. NaN where z or p is not finite. Raises ``ValueError``
    where shapes differ or the ridge is negative.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> linear_map(z, z @ torch.tensor([[0.0, 3.0], [1.0, 0.0]]).T).round(decimals=6) + 0.0
    tensor([[0., 3.],
            [1., 0.]], dtype=torch.float64)
    """
    before, after = _paired(z, p)
    if not ridge >= 0:
        raise ValueError(f"ridge: found {ridge}, expected 0 or more")
    dimension = before.shape[1]
    if not (before.isfinite().all() and after.isfinite().all()):
        return before.new_full((dimension, dimension), torch.nan)
    if ridge:
        penalty = (ridge * before.square().sum() / dimension).sqrt() * torch.eye(dimension).to(before)
        before, after = torch.cat([before, penalty]), torch.cat([after, torch.zeros_like(penalty)])
    weight: Tensor = (torch.linalg.pinv(before) @ after).T
    return weight


def singular_values(w: Tensor) -> Tensor:
    """Singular values (D,) of W (D, D), descending: in how many directions the predictor passes anything on.

    W is the weight of a linear predictor or ``linear_map(z, p)``. Range [0, infinity); collapse of the predictor: all but a
    few at 0. ``effective_rank`` makes one number of them. NaN where W is not finite. Raises ``ValueError`` where W is not
    square.

    >>> singular_values(torch.tensor([[0.0, 3.0], [1.0, 0.0]]))
    tensor([3., 1.], dtype=torch.float64)
    """
    weight = double_rows(w, name="w")
    if weight.shape[0] != weight.shape[1]:
        raise ValueError(f"w: found shape {tuple(w.shape)}, expected a square (D, D)")
    if not weight.isfinite().all():
        return torch.full_like(weight[0], torch.nan)
    values: Tensor = torch.linalg.svdvals(weight)
    return values


def eigenspace(z: Tensor, p: Tensor) -> Eigenspace:
    """How h acts on the eigenvectors v_j of F: eigenvalues s_j of F, gains and cosines, without inverting anything.

    ``gains`` are v_j^T C v_j / s_j, which is v_j^T W v_j where h is linear: the eigenvalues of W where it shares the
    eigenspace; 0 where s_j is below 1e-12 of s_1. ``cosines`` are v_j^T C v_j / |C v_j|, the alignment: 1 where v_j is an
    eigenvector of W with a positive eigenvalue, about N(0, 1/D) for a random one, 0 where C v_j = 0. Range of cosines
    [-1, 1]. Where eigenvalues of F are (nearly) equal its eigenvectors, and so both, are arbitrary.

    In theory the linear predictor of SimSiam comes to share F's eigenspace with gains that grow as sqrt(s_j), and modes
    collapse whose gain falls to 0. NaN where z or p is not finite. Raises ``ValueError`` where shapes differ.
    Tian et al. (2021), DirectPred.

    >>> z = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> eigenspace(z, z @ torch.diag(torch.tensor([3.0, 2.0]))).gains
    tensor([3., 2.], dtype=torch.float64)
    """
    second, cross = _second_moments(z, p)
    if not (second.isfinite().all() and cross.isfinite().all()):
        return Eigenspace(*second.new_full((3, len(second)), torch.nan))
    ascending, vectors = torch.linalg.eigh(second)
    values, vectors = ascending.clamp(min=0).flip(0), vectors.flip(1)
    mapped = cross @ vectors
    along, norms = (vectors * mapped).sum(0), mapped.norm(dim=0)
    used = values > NEGLIGIBLE * values[0]
    gains = torch.where(used, along / values.where(used, 1.0), 0.0)
    cosines = torch.where(norms > 0, along / norms.where(norms > 0, 1.0), 0.0)
    return Eigenspace(values, gains, cosines)


def commutator(z: Tensor, p: Tensor) -> float:
    """|F C - C F|_F / (|F C|_F + |C F|_F): 0 where a linear h shares the eigenspace of F, that is F W = W F.

    Unlike the cosines of ``eigenspace`` it does not hang on the choice of eigenvectors. Range [0, 1], whatever the basis and
    the scale of z and p; both products zero: 0. Also 0 where F is a multiple of the identity and so shared by every W, or
    after a collapse to one direction that W keeps. NaN where z or p is not finite. Raises ``ValueError`` where shapes differ.
    Tian et al. (2021), theorem 3, where the norm of F W - W F decays.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    >>> round(commutator(z, z @ torch.tensor([[0.0, 1.0], [1.0, 0.0]])), 4)
    1.0
    """
    second, cross = _second_moments(z, p)
    left, right = second @ cross, cross @ second
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


def _second_moments(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """F = E z z^T and C = E p z^T."""
    before, after = _paired(z, p)
    return before.T @ before / len(before), after.T @ before / len(before)


def _paired(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    if z.shape != p.shape:
        raise ValueError(f"p: found shape {tuple(p.shape)}, expected that of z, {tuple(z.shape)}")
    return double_rows(z, name="z"), double_rows(p, name="p")
