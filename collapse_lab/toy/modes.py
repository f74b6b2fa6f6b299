"""One eigenmode of DirectPred: predictor eigenvalue p, encoder variance s, EMA ratio tau; its fixed points.

Tian, Chen and Ganguli 2021 (2102.06810). With tau = 1 it is the scalar toy under stop-gradient: p = phi, s = theta^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.toy.rule import Array


@dataclass(frozen=True)
class Mode:
    """s2 ``noise2``, a_p ``rate``, e ``weight_decay``, b ``ema_rate`` (None: the target is the encoder, tau = 1)."""

    noise2: float = 0.0
    rate: float = 1.0
    weight_decay: float = 0.0
    ema_rate: float | None = None


def mode_field(system: Mode, p: Array, s: Array, tau: Array) -> Array:
    """d(p, s, tau)/dt, (3, ...).

    ``dp = a s (tau - q p) - e p``; ``ds = 2 p s (tau - q p) - 2 e s``; ``s dtau = b (1 - tau) s - tau ds / 2``,
    ``q = 1 + s2``.
    """
    pull = tau - (1 + system.noise2) * p
    growth = 2 * (p * pull - system.weight_decay)
    dtau = np.zeros_like(tau) if system.ema_rate is None else system.ema_rate * (1 - tau) - tau * growth / 2
    return np.stack([system.rate * s * pull - system.weight_decay * p, s * growth, dtau])


def fixed_points(weight_decay: ArrayLike, noise2: ArrayLike = 0.0, tau: ArrayLike = 1.0) -> tuple[Array, Array]:
    """p_- (unstable) and p_+ (stable): the non-zero rest points of ``dp/dt = p^2 (tau - q p) - e p`` on s = p^2 / a.

    ``(tau -+ sqrt(tau^2 - 4 e q)) / (2 q)``; NaN above the critical weight decay, where only p = 0 is left: collapse.

    >>> [round(float(p), 9) for p in fixed_points(0.05, 0.5)]
    [0.054446658, 0.612220009]
    """
    e, s2, tau = (np.asarray(value, dtype=np.float64) for value in (weight_decay, noise2, tau))
    discriminant = tau**2 - 4 * e * (1 + s2)
    root = np.sqrt(np.where(discriminant >= 0, discriminant, np.nan))
    high = (tau + root) / (2 * (1 + s2))
    # The product of the roots is e / q: no cancellation where e is small.
    return np.asarray(e / ((1 + s2) * high)), np.asarray(high)


def critical_weight_decay(noise2: ArrayLike = 0.0, tau: ArrayLike = 1.0) -> Array:
    """The weight decay above which every start collapses: ``tau^2 / (4 (1 + s2))``.

    >>> float(critical_weight_decay(0.5))
    0.16666666666666666
    """
    return np.asarray(np.asarray(tau, dtype=np.float64) ** 2 / (4 * (1 + np.asarray(noise2, dtype=np.float64))))


def critical_noise2(weight_decay: ArrayLike, tau: ArrayLike = 1.0) -> Array:
    """The augmentation variance above which a mode cannot survive: ``tau^2 / (4 e) - 1``."""
    e, tau = np.asarray(weight_decay, dtype=np.float64), np.asarray(tau, dtype=np.float64)
    return np.asarray(tau**2 / (4 * e) - 1)
