"""The curve between collapse and survival under stop-gradient with weight decay: the stable manifold of the saddle p_-."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from collapse_lab.errors import InputError
from collapse_lab.toy.modes import critical_weight_decay, fixed_points
from collapse_lab.toy.rule import Array

OFFSET = 1e-6


def log_gap_on_separatrix(phi: ArrayLike, noise2: float, weight_decay: float) -> Array:
    """``ln(a theta^2)`` on the separatrix above each ``phi`` (any shape): a start below it collapses, one above survives.

    With ``L = ln(a theta^2)`` and ``q = 1 + s2`` the flow gives ``dL/dphi = 2 (phi (1 - q phi) - e) / (exp(L) (1 - q phi)
    - e phi)``, integrated both ways from the saddle ``(p_-, ln p_-^2)`` along its stable eigenvector; phi is monotone on
    the curve, so it is a graph over all phi. Relative tolerance 1e-11. Raises ``InputError`` unless
    ``0 < e <= 1 / (4 q)``, for there is no saddle elsewhere.

    >>> low = float(fixed_points(0.05, 0.5)[0])
    >>> bool(abs(log_gap_on_separatrix(low, 0.5, 0.05) - 2 * np.log(low)) < 1e-9)
    True
    """
    if not 0 < weight_decay <= critical_weight_decay(noise2):
        raise InputError(
            f"weight_decay: found {weight_decay:g}, a separatrix needs it above 0 and at most "
            f"{float(critical_weight_decay(noise2)):g} at noise2 {noise2:g}"
        )
    wanted = np.asarray(phi, dtype=np.float64)
    different, where = np.unique(wanted, return_inverse=True)
    saddle = float(fixed_points(weight_decay, noise2)[0])
    left, right = different[different < saddle], different[different >= saddle]
    levels = [_branch(left[::-1], saddle, noise2, weight_decay)[::-1], _branch(right, saddle, noise2, weight_decay)]
    return np.asarray(np.concatenate(levels)[where.reshape(wanted.shape)])


def _branch(phi: Array, saddle: float, noise2: float, e: float) -> Array:
    """The curve at ``phi``, all on one side of the saddle and moving away from it."""
    q = 1 + noise2
    damping = q * saddle**2 + e
    stable = -(damping + np.sqrt(damping**2 + 8 * saddle * e * (1 - 2 * q * saddle))) / 2
    slope = 2 * (1 - 2 * q * saddle) / stable
    level = 2 * np.log(saddle) + slope * (phi - saddle)
    far = np.abs(phi - saddle) > OFFSET * saddle
    if not far.any():
        return np.asarray(level)
    first = saddle * (1 + np.copysign(OFFSET, phi[-1] - saddle))

    def rise(position: float, y: Array) -> Array:
        inside = 1 - q * position
        # Trial steps may overshoot; where exp(700) stands for more the curve has left every plane of interest.
        return np.asarray(2 * (position * inside - e) / (np.exp(np.minimum(y, 700.0)) * inside - e * position))

    initial = [2 * np.log(saddle) + slope * (first - saddle)]
    solution = solve_ivp(rise, (first, phi[-1]), initial, "LSODA", phi[far], rtol=1e-11, atol=1e-11)
    level[far] = solution.y[0]
    return np.asarray(level)
