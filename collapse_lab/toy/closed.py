"""The scalar toy's flow without noise and weight decay, solved: states over time, and where the flow ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import exprel

from collapse_lab.errors import InputError
from collapse_lab.toy.rule import Array


def both_terms(phi: ArrayLike, theta: ArrayLike, times: ArrayLike, rate: ArrayLike = 1.0) -> tuple[Array, Array]:
    """phi and theta at ``times`` where both slots learn; inputs broadcast, the rate is positive.

    With ``u = 1 - phi``, ``w = u^2`` falls as ``dw/dt = -2 w (w - c)``, ``c = u^2 - a theta^2``.

    >>> [round(float(value), 8) for value in both_terms(0.6, 0.1, 10.0)]
    [0.61209768, 0.02163818]
    """
    u, a = 1 - np.asarray(phi, dtype=np.float64), np.asarray(rate, dtype=np.float64)
    theta = np.asarray(theta, dtype=np.float64)
    value, gap = _logistic(u**2, a * theta**2, np.asarray(times, dtype=np.float64))
    return 1 - np.copysign(np.sqrt(value), u), np.copysign(np.sqrt(gap / a), theta)


def second_term_only(phi: ArrayLike, theta: ArrayLike, times: ArrayLike, rate: ArrayLike = 1.0) -> tuple[Array, Array]:
    """phi and theta at ``times`` where only the target slot learns: ``du/dt = -2 u (u - c)``, ``c = u - a theta^2 / 2``.

    >>> [round(float(value), 8) for value in second_term_only(0.6, 0.1, 10.0)]
    [0.60499817, 0.0019134]
    """
    a, theta = np.asarray(rate, dtype=np.float64), np.asarray(theta, dtype=np.float64)
    u, gap = _logistic(1 - np.asarray(phi, dtype=np.float64), a * theta**2 / 2, np.asarray(times, dtype=np.float64))
    return 1 - u, np.copysign(np.sqrt(2 * gap / a), theta)


def _logistic(value: Array, gap: Array, t: Array) -> tuple[Array, Array]:
    """``v`` and ``v - c`` after t under ``dv/dt = -2 v (v - c)``, without cancellation and for either sign of c."""
    x = 2 * (value - gap) * t
    rising = np.exp(np.minimum(x, 0.0))
    denominator = rising + 2 * gap * t * exprel(-np.abs(x))
    return value * rising / denominator, gap * np.exp(-np.maximum(x, 0.0)) / denominator


def stop_gradient_time(
    phi: ArrayLike, start_phi: float, start_theta: float, noise2: float = 0.0, rate: float = 1.0
) -> Array:
    """The time at which the stop-gradient flow from the start reaches ``phi``: t as a function of phi, not the reverse.

    With ``c = phi^2 - a theta^2`` conserved and ``r = sqrt(c)`` (imaginary where c < 0),
    ``t = -A ln(u/u0) + B ln((phi-r)/(phi0-r)) + C ln((phi+r)/(phi0+r))``, ``A = 1/(1-c)``, ``B = 1/(2r(1-r))``,
    ``C = -1/(2r(1+r))``; noise rescales phi and t by ``1 + s2``. Raises ``InputError`` where c is 0 or the end state's
    square, for then the time is another function, and for a ``phi`` that the flow does not pass.

    >>> stop_gradient_time([0.9, 0.99, 0.999], 0.6, 0.1).round(6).tolist()
    [9.472072, 13.513318, 17.098975]
    """
    q = 1 + noise2
    now, first = q * np.asarray(phi, dtype=np.float64), q * start_phi
    c = q**2 * (start_phi**2 - rate * start_theta**2)
    if c in (0.0, 1.0):
        raise InputError(f"start ({start_phi}, {start_theta}): its time has no such form, c = {c}")
    low, high = sorted((first, _stop_gradient_end(first, c)))
    if np.any((now < low) | (now > high)):
        raise InputError(
            f"phi: found {np.asarray(phi).tolist()}, the flow from {start_phi} only passes {low / q:g} to {high / q:g}"
        )
    r = np.sqrt(complex(c))
    total = -np.log((1 - now) / (1 - first)) / (1 - c)
    total = total + np.log((now - r) / (first - r)) / (2 * r * (1 - r))
    return np.asarray((total - np.log((now + r) / (first + r)) / (2 * r * (1 + r))).real * q)


def _stop_gradient_end(phi: float, c: float) -> float:
    """Where phi goes, noise 0: to 1, or to the nearest root of ``phi^2 = c`` on its way there."""
    if c < 0 or (phi > 0 and c < 1):
        return 1.0
    return float(np.copysign(np.sqrt(c), phi))


def end_state(variant: str, phi: float, theta: float, noise2: float = 0.0, rate: float = 1.0) -> tuple[float, float]:
    """The limit of the flow without weight decay, where the first integral gives it.

    Stop-gradient at any noise, the other two at noise 0; the rate is positive. Raises ``InputError`` elsewhere.

    >>> [round(value, 8) for value in end_state("stop-gradient", 0.6, 0.1, noise2=0.1)]
    [0.90909091, 0.69025088]
    """
    if theta == 0:
        return phi, 0.0
    if variant == "stop-gradient":
        q, c = 1 + noise2, phi**2 - rate * theta**2
        end = _stop_gradient_end(q * phi, q**2 * c) / q
        # At a root of phi^2 = c nothing is left but rounding.
        gap = end**2 - c if end == 1 / q else 0.0
        return end, float(np.copysign(np.sqrt(max(gap, 0.0) / rate), theta))
    if noise2 > 0:
        raise InputError(f"end state: '{variant}' has none in closed form at noise2 {noise2}, only at 0")
    u, gap = 1 - phi, rate * theta**2 / (1 if variant == "both-terms" else 2)
    value = u**2 if variant == "both-terms" else u
    c = value - gap
    if c < 0:
        return 1.0, float(np.copysign(np.sqrt(-c * theta**2 / gap), theta))
    return 1 - (float(np.copysign(np.sqrt(c), u)) if variant == "both-terms" else c), 0.0
