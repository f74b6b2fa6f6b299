"""What a linear trajectory shows: eigenvalues, alignment of eigenspaces, and DirectPred's theorems as running checks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.integrate import cumulative_trapezoid

from collapse_lab.errors import InputError
from collapse_lab.toy.linear import Linear, LinearTrajectory, Weights, correlation, field
from collapse_lab.toy.rule import Array


class Modes(NamedTuple):
    """Per time and mode, (T, D): predictor eigenvalue p, largest first; ``s = u^T F u`` on its eigenvector; alignment."""

    p: Array
    s: Array
    alignment: Array


def modes(system: Linear, weights: Weights) -> Modes:
    """Eigenmodes of the symmetric part of the predictor over time.

    ``alignment = |u^T F u| / ||F u||`` in [0, 1]: 1 where u is an eigenvector of F as well. 1 by definition at F u = 0.
    """
    symmetric = (weights.predictor + np.swapaxes(weights.predictor, -1, -2)) / 2
    values, vectors = np.linalg.eigh(symmetric)
    values, vectors = values[..., ::-1], vectors[..., ::-1]
    image = correlation(system, weights.encoder) @ vectors
    s, size = np.sum(vectors * image, axis=-2), np.linalg.norm(image, axis=-2)
    return Modes(values, s, np.divide(np.abs(s), size, out=np.ones_like(s), where=size > 0))


def commutator_norm(system: Linear, weights: Weights) -> Array:
    """``||F W_p - W_p F||_F`` over time (T,): 0 where F and the predictor share an eigenbasis."""
    f = correlation(system, weights.encoder)
    return np.asarray(np.linalg.norm(f @ weights.predictor - weights.predictor @ f, axis=(-2, -1)))


def theorem_1_applies(system: Linear) -> bool:
    """Stop-gradient and a predictor that learns (rate above 0), whose flow is not symmetrised."""
    trained = system.predictor_of is None and system.rate > 0
    return system.variant == "stop-gradient" and not system.symmetric and trained


def theorem_1(system: Linear, trajectory: LinearTrajectory) -> Array:
    """``||W W^T - W_p^T W_p / a_p - exp(-2 e t) C||_F`` over time (T,): 0, for C from the start, under stop-gradient.

    Holds for any target and data, with the predictor trained and its flow not symmetrised; elsewhere ``InputError``.
    """
    if not theorem_1_applies(system):
        raise InputError("theorem 1 needs stop-gradient and a trained predictor whose flow is not symmetrised")
    encoder, predictor, _ = trajectory.weights
    gap = encoder @ np.swapaxes(encoder, -1, -2) - np.swapaxes(predictor, -1, -2) @ predictor / system.rate
    expected = np.exp(-2 * system.weight_decay * trajectory.times)[:, None, None] * gap[0]
    return np.asarray(np.linalg.norm(gap - expected, axis=(-2, -1)))


def decay_matrix(system: Linear, predictor: Array) -> Array:
    """Theorem 2's H, (DC, DC), with ``d vec(W)/dt = -H vec(W)`` for both terms; vec stacks columns.

    ``H = X' (x) (W_p^T W_p + I) + X (x) (W_p - I)^T (W_p - I) + e I``.
    """
    identity = np.eye(len(predictor))
    moved = np.kron(system.augmentation, predictor.T @ predictor + identity)
    still = np.kron(system.data, (predictor - identity).T @ (predictor - identity))
    return np.asarray(moved + still + system.weight_decay * np.eye(len(moved)))


def theorem_2(system: Linear, trajectory: LinearTrajectory) -> tuple[Array, Array]:
    """``||W(t)||_F`` and its bound ``||W(0)||_F exp(-integral of lambda_min(H))``, each (T,), with both terms.

    The integral is by the trapezoidal rule over the recorded times. Raises ``InputError`` for other variants.
    """
    if system.variant != "both-terms":
        raise InputError(f"theorem 2 is about 'both-terms', found '{system.variant}'")
    least = np.array([np.linalg.eigvalsh(decay_matrix(system, each))[0] for each in trajectory.weights.predictor])
    size = np.linalg.norm(trajectory.weights.encoder, axis=(-2, -1))
    return size, size[0] * np.exp(-cumulative_trapezoid(least, trajectory.times, initial=0.0))


def theorem_3(system: Linear, trajectory: LinearTrajectory) -> tuple[Array, Array]:
    """``||[F, W_p](t)||_F`` and its bound ``exp(-2 l0 t) ||[F, W_p](0)||_F``, each (T,).

    l0 is the least eigenvalue of K over the recorded times. For X = I, X' = s2 I, no EMA, a symmetric predictor with the
    symmetrised flow; elsewhere ``InputError``. A bound with l0 <= 0 says nothing.
    """
    _check_theorem_3(system)
    least = min(
        float(np.linalg.eigvalsh(alignment_matrix(system, encoder, predictor))[0])
        for encoder, predictor in zip(*trajectory.weights[:2], strict=True)
    )
    found = commutator_norm(system, trajectory.weights)
    return found, found[0] * np.exp(-2 * least * trajectory.times)


def alignment_matrix(system: Linear, encoder: Array, predictor: Array) -> Array:
    """Theorem 3's K, (D, D): ``(1 + s2) (a_p F / 2 + W_p^2 - W_p / (1 + s2)) + 3 e I / 2``."""
    q = 1 + float(system.augmentation[0, 0])
    inner = system.rate / 2 * correlation(system, encoder) + predictor @ predictor - predictor / q
    return np.asarray(q * inner + 1.5 * system.weight_decay * np.eye(len(predictor)))


def commutator_velocity(system: Linear, weights: Weights) -> tuple[Array, Array]:
    """``d[F, W_p]/dt`` from the flow, and theorem 3's ``-([F, W_p] K + K [F, W_p])``, each (D, D): equal."""
    _check_theorem_3(system)
    encoder, predictor, _ = weights
    moved, f = field(system, weights), correlation(system, weights.encoder)
    df = moved.encoder @ system.data @ encoder.T + encoder @ system.data @ moved.encoder.T
    found = df @ predictor + f @ moved.predictor - moved.predictor @ f - predictor @ df
    bracket, k = f @ predictor - predictor @ f, alignment_matrix(system, encoder, predictor)
    return found, -(bracket @ k + k @ bracket)


def theorem_3_applies(system: Linear) -> bool:
    """X = I, X' = s2 I, stop-gradient, no EMA, a trained predictor with the symmetrised flow."""
    identity = np.eye(len(system.data))
    isotropic = np.array_equal(system.augmentation, system.augmentation[0, 0] * identity)
    plain = system.variant == "stop-gradient" and system.symmetric and system.predictor_of is None
    return plain and isotropic and np.array_equal(system.data, identity) and system.ema_rate is None


def _check_theorem_3(system: Linear) -> None:
    if not theorem_3_applies(system):
        raise InputError("theorem 3 needs X = I, X' = s2 I, stop-gradient, no EMA and the symmetrised predictor flow")
