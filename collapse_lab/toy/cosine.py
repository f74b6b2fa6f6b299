"""A linear model under the cosine loss, solved mode by mode: what the scalar toy cannot show and a real run does.

A cosine does not see the encoder's norm, so collapse is not theta -> 0 but one mode taking all the energy. The images
are the sign vectors x of {-1, 1}^M, a view flips the sign of coordinate k at random so that ``E[x'_k | x] = rho_k x_k``,
and the encoder is ``z = w * x``. All z then have one norm and the expected loss is exact:
``-sum_k r_k lambda_k a_k b_k / (||lambda a|| ||b||)``, with prediction ``lambda * a * x1``, target ``b * x2`` and the
agreement ``r_k = rho_k^2`` of two views. A mode with r = 1 may be the constant one, which carries the mean of z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.errors import InputError
from collapse_lab.toy.flow import Trajectory, check_numbers, checked_start, checked_times, integrate
from collapse_lab.toy.rule import Array, SlotGradient, slots_of, velocity

STIFF = 1e4


@dataclass(frozen=True)
class Cosine:
    """``agreement`` r (M,), each in [0, 1]; ``rate`` a of the predictor, 0 for none; ``weight_decay`` e."""

    agreement: tuple[float, ...]
    variant: str = "stop-gradient"
    rate: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        slots_of(self.variant)
        checked_agreement(self.agreement)
        check_numbers(rate=self.rate, weight_decay=self.weight_decay)


def checked_agreement(agreement: ArrayLike) -> Array:
    """r as float64; raises ``InputError`` for values outside [0, 1]."""
    r = np.asarray(agreement, dtype=np.float64)
    bad = r[~((r >= 0) & (r <= 1))]
    if bad.size:
        raise InputError(f"agreement: found {bad.flat[0]}, must lie in [0, 1]")
    return r


def slot_loss(agreement: Any, predictor: Any, prediction: Any, target: Any) -> Any:
    """The expected loss, in [-1, 1], with the encoder's modes (M,) in its two slots; arrays or tensors."""
    ahead = predictor * prediction
    norms = (ahead**2).sum() ** 0.5 * (target**2).sum() ** 0.5
    return -(agreement * ahead * target).sum() / norms


def slot_gradient(agreement: Array, predictor: Array, prediction: Array, target: Array) -> SlotGradient:
    """The gradients of ``slot_loss``, each (M,)."""
    ahead, match = predictor * prediction, slot_loss(agreement, predictor, prediction, target)
    norm, other = np.linalg.norm(ahead), np.linalg.norm(target)
    outer = -agreement * target / (norm * other) - match * ahead / norm**2
    return SlotGradient(
        outer * prediction, outer * predictor, -agreement * ahead / (norm * other) - match * target / other**2
    )


def flow(system: Cosine, encoder: ArrayLike, predictor: ArrayLike, times: ArrayLike) -> Trajectory:
    """The flow of (lambda, w), states (T, 2, M), from predictor and encoder modes (M,).

    Under stop-gradient each ``w_k^2 - lambda_k^2 / a`` is conserved (times ``exp(2 e t)`` with weight decay), and lambda
    ends in proportion to r on the modes that survive: all but those whose lambda started above that and above w, as in
    the scalar toy. In the other variants the modes with the largest r take all energy. The norm of w falls as
    ``exp(-e t)``; times and states stop where it reaches 1e-3.
    """
    start = np.stack([checked_start(predictor), checked_start(encoder)])
    r = np.asarray(system.agreement)

    def field(t: float, y: Array) -> Array:
        gradient = slot_gradient(r, y[0], y[1], y[1])
        dpredictor, dencoder = velocity(gradient, system.variant, system.rate)
        return np.stack(
            [dpredictor - system.weight_decay * (system.rate > 0) * y[0], dencoder - system.weight_decay * y[1]]
        )

    def flat(t: float, y: Array) -> Array:
        return field(t, y.reshape(2, -1)).ravel()

    # The loss does not see the norms, so weight decay shrinks them exponentially, and the fastest rate grows as 1 / norm^2.
    stiff = system.weight_decay > 0 or (1 + system.rate) * checked_times(times)[-1] > STIFF
    method: Literal["LSODA", "DOP853"] = "LSODA" if stiff else "DOP853"
    encoder_rows = slice(start.shape[1], None)
    found = integrate(flat, start.ravel(), times, encoder=encoder_rows, stop_at_collapse=True, method=method)
    states = found.states.reshape(-1, *start.shape)
    return Trajectory(found.times, states, found.collapsed_at, found.converged_at, found.diverged_at)


def equalisation(z: Array, predictor: Array) -> Array:
    """Halvagal, Laborieux and Zenke 2023 (2212.04858): the velocity of z under stop-gradient where both views agree.

    ``lambda_m z_m / (||lambda z||^3 ||z||) sum_k lambda_k (lambda_k - lambda_m) z_k^2``: modes whose eigenvalue lies
    below the weighted mean ``sum lambda^2 z^2 / sum lambda z^2`` grow, those above shrink, the norm of z is constant.
    """
    ahead = predictor * z
    pull = np.sum(ahead**2) - predictor * np.sum(predictor * z**2)
    return np.asarray(ahead * pull / (np.linalg.norm(ahead) ** 3 * np.linalg.norm(z)))


def energy(encoder: Array) -> Array:
    """The share of each mode in ``||z||^2``, over the last axis; that of a constant mode is ``||E z||^2 / E ||z||^2``."""
    return np.asarray(encoder**2 / np.sum(encoder**2, axis=-1, keepdims=True))


def rankme(encoder: Array) -> Array:
    """RankMe of the uncentred rows z, over the last axis: ``exp(-sum p ln p)``, ``p = |w| / sum |w|``; 1 at collapse."""
    p = np.abs(encoder) / np.sum(np.abs(encoder), axis=-1, keepdims=True)
    return np.asarray(np.exp(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)))
