"""The scalar toy: one predictor weight phi, one encoder weight theta, and a loss that theta enters twice.

With data x of unit variance and two views ``x + n`` whose noise has variance s2, the loss is
``l = E (phi theta x1 - theta x2)^2 / 2``. Without noise it is the toy of Su Jianlin (2020, archives/7980, eqs 4 and 5);
with predictor rate a and weight decay e it is one eigenmode of DirectPred (Tian, Chen and Ganguli 2021, 2102.06810).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.errors import InputError
from collapse_lab.toy.flow import Trajectory, check_numbers, checked_times, integrate
from collapse_lab.toy.rule import Array, SlotGradient, slots_of, velocity

ENCODER = slice(1, 2)
STIFF = 1e4


@dataclass(frozen=True)
class Scalar:
    """What decides the field, each number or an array that broadcasts with the starts.

    ``noise2`` is s2, the variance of the augmentation (that of the data is 1); ``rate`` is a, the predictor's learning
    rate over the encoder's (0: the predictor is frozen and does not decay; with phi = 1 there is no predictor);
    ``weight_decay`` is e. Raises ``InputError`` for an unknown variant, for numbers outside [0, 1e6], and for a
    weight decay between 0 and 1e-9, under which nothing ends in any time.
    """

    variant: str = "stop-gradient"
    noise2: ArrayLike = 0.0
    rate: ArrayLike = 1.0
    weight_decay: ArrayLike = 0.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        slots_of(self.variant)
        check_numbers(noise2=self.noise2, rate=self.rate, weight_decay=self.weight_decay)

    @property
    def numbers(self) -> tuple[Array, Array, Array]:
        """s2, a and e as arrays."""
        s2, a, e = (np.asarray(value, dtype=np.float64) for value in (self.noise2, self.rate, self.weight_decay))
        return s2, a, e


def slot_loss(phi: Any, prediction: Any, target: Any, noise2: Any = 0.0) -> Any:
    """The expected loss with the encoder's weight in its two slots: ``E (phi prediction x1 - target x2)^2 / 2``.

    >>> round(slot_loss(0.6, 0.1, 0.1), 12)
    0.0008
    """
    cross = (phi * prediction - target) ** 2
    return (cross + noise2 * ((phi * prediction) ** 2 + target**2)) / 2


def slot_gradient(phi: Array, theta: Array, noise2: Array | float = 0.0) -> SlotGradient:
    """The gradients of ``slot_loss`` where both slots hold ``theta``; arrays broadcast."""
    residual = (1 + noise2) * phi - 1
    return SlotGradient(theta**2 * residual, phi * theta * residual, theta * (1 - phi) + theta * noise2)


def field(system: Scalar, phi: Array, theta: Array) -> Array:
    """d(phi, theta)/dt, (2, ...): the kept slots' gradient flow with weight decay on what learns."""
    s2, a, e = system.numbers
    dphi, dtheta = velocity(slot_gradient(phi, theta, s2), system.variant, a)
    return np.stack(np.broadcast_arrays(dphi - e * (a > 0) * phi, dtheta - e * theta))


def growth(system: Scalar, phi: Array) -> Array:
    """``d ln|theta| / dt``, which depends on phi alone: negative where the encoder decays."""
    s2, _, e = system.numbers
    keep, q = slots_of(system.variant), 1 + s2
    return np.asarray(keep.prediction * phi * (1 - q * phi) + keep.target * (phi - q) - e)


def growth_roots(system: Scalar) -> Array:
    """The values of phi, at most two and in increasing order, at which ``growth`` is 0; one number per parameter.

    >>> growth_roots(Scalar("both-terms")).tolist(), growth_roots(Scalar(weight_decay=0.16)).round(6).tolist()
    ([1.0], [0.2, 0.8])
    """
    s2, _, e = (float(value) for value in system.numbers)
    keep, q = slots_of(system.variant), 1 + s2
    linear, constant = float(keep.prediction) + float(keep.target), -q * keep.target - e
    if not keep.prediction:
        return np.array([-constant])
    discriminant = linear**2 + 4 * q * constant
    if discriminant < 0:
        return np.zeros(0)
    return np.unique((linear + np.array([-1.0, 1.0]) * np.sqrt(discriminant)) / (2 * q))


def log_field(system: Scalar, phi: Array, level: Array) -> Array:
    """d(phi, ln|theta|)/dt, (2, ...), at ``level`` = ln|theta|: the same flow, exact however small theta becomes."""
    s2, a, e = system.numbers
    # Trial steps may overshoot, no state does: exp(200) is beyond every start.
    dphi = a * (np.exp(np.minimum(2 * level, 200.0)) * (1 - (1 + s2) * phi)) - e * (a > 0) * phi
    return np.stack(np.broadcast_arrays(dphi, growth(system, phi)))


def loss(phi: ArrayLike, theta: ArrayLike, noise2: ArrayLike = 0.0) -> Array:
    """The expected loss ``theta^2 ((1 - phi)^2 + s2 (1 + phi^2)) / 2``; 0 at collapse, and at phi = 1 where s2 = 0."""
    phi, theta, noise2 = (np.asarray(value, dtype=np.float64) for value in (phi, theta, noise2))
    return np.asarray(theta**2 * ((1 - phi) ** 2 + noise2 * (1 + phi**2)) / 2)


def has_first_integral(system: Scalar) -> bool:
    """Whether ``conserved`` is defined: always under stop-gradient, else only without weight decay."""
    return not slots_of(system.variant).target or not np.any(np.asarray(system.weight_decay) > 0)


def conserved(system: Scalar, phi: ArrayLike, theta: ArrayLike, time: ArrayLike = 0.0) -> Array:
    """The first integral of the flow at (phi, theta), reached at ``time``.

    ``exp(2 e t) (phi^2 - a theta^2)`` under stop-gradient (Tian et al. 2021, theorem 1); without weight decay also
    ``phi^2 + 1 - 2 G - a theta^2`` with both terms and ``1 - G - a theta^2 / 2`` with the second term only, where
    ``G = phi / q - (1 - 1 / q^2) ln |1 - q phi|`` and ``q = 1 + s2``. At s2 = 0, G is phi and both terms conserve
    ``(1 - phi)^2 - a theta^2``. Infinite on the line ``phi = 1 / q`` where G is. Raises ``InputError`` where there is no
    such law.

    >>> round(float(conserved(Scalar(), 0.6, 0.1)), 12)
    0.35
    """
    if not has_first_integral(system):
        raise InputError(f"weight_decay: the flow of '{system.variant}' conserves nothing unless it is 0")
    s2, a, e = system.numbers
    phi, gap = np.asarray(phi, dtype=np.float64), a * np.asarray(theta, dtype=np.float64) ** 2
    keep = slots_of(system.variant)
    if not keep.target:
        return np.asarray(np.exp(2 * e * np.asarray(time)) * (phi**2 - gap))
    q = 1 + s2
    with np.errstate(divide="ignore"):  # ln 0 on the line phi = 1 / q
        barrier = np.where(s2 > 0, (1 - q**-2.0) * np.log(np.where(s2 > 0, np.abs(1 - q * phi), 1.0)), 0.0)
    second = 1 - phi / q + barrier
    if not keep.prediction:
        return np.asarray(second - gap / 2)
    return np.asarray(np.where(s2 > 0, phi**2 - 1 + 2 * second, (1 - phi) ** 2) - gap)


def flow(system: Scalar, phi: ArrayLike, theta: ArrayLike, times: ArrayLike) -> Trajectory:
    """The gradient flow from (phi, theta), numbers or arrays (M,), at ``times`` (T,); states are (T, 2) or (T, 2, M).

    >>> flow(Scalar(), 0.6, 0.1, [10.0]).states.round(8).tolist()
    [[0.92242244, 0.70771686]]
    """
    moments = checked_times(times)
    shape = np.broadcast_shapes(np.shape(phi), np.shape(theta), *(np.shape(value) for value in system.numbers))
    start = np.stack([np.broadcast_to(np.asarray(value, dtype=np.float64), shape) for value in (phi, theta)])

    def rate(t: float, y: Array) -> Array:
        return field(system, y[0], y[1])

    # An explicit solver needs about one step per unit of the fastest rate times the time.
    fastest = float(np.max((1 + np.asarray(system.noise2)) * (1 + np.asarray(system.rate)) * np.sum(start**2, axis=0)))
    stiff = not shape and fastest * moments[-1] > STIFF
    return integrate(rate, start, moments, encoder=ENCODER, method="LSODA" if stiff else "DOP853")
