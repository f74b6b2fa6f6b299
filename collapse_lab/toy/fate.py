"""Where the scalar flow ends, decided exactly from the start wherever a first integral or a trapping set decides it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collapse_lab.toy.flow import DIVERGED as FAR
from collapse_lab.toy.modes import critical_weight_decay, fixed_points
from collapse_lab.toy.rule import Array, Slots, slots_of
from collapse_lab.toy.scalar import Scalar, growth

Codes = NDArray[np.int8]
Mask = NDArray[np.bool_]
FATES = ("undecided", "collapsed", "not-collapsed", "diverged")
UNDECIDED, COLLAPSED, NOT_COLLAPSED, DIVERGED = range(4)


class Point(NamedTuple):
    """A start and its numbers, all broadcast to one shape; ``gap`` is a theta^2."""

    phi: Array
    theta: Array
    s2: Array
    a: Array
    e: Array
    gap: Array


def decide(system: Scalar, phi: ArrayLike, theta: ArrayLike) -> Codes:
    """The fate of each start as an index into ``FATES``; inputs broadcast.

    theta = 0 is collapse. A frozen predictor leaves an exponential. Without weight decay stop-gradient's first integral
    decides, and that of the others where s2 = 0; with noise or weight decay the others collapse from everywhere.
    Stop-gradient with weight decay collapses from everywhere above the critical value; below it starts in the trapping
    sets around the two stable rest points are decided and all else is ``undecided``.

    >>> FATES[int(decide(Scalar("both-terms"), 0.6, 0.5))]
    'not-collapsed'
    """
    point = _point(system, phi, theta)
    keep = slots_of(system.variant)
    if not keep.target:
        codes = np.where(point.e > 0, _decayed(point), _verdict(_stop_gradient_collapses(point)))
    else:
        always = (point.s2 > 0) | (point.e > 0)
        codes = np.where(always, COLLAPSED, _verdict(_target_slot_collapses(point, keep)))
    codes = np.where(point.a == 0, _frozen(growth(system, point.phi)), codes)
    return np.where(point.theta == 0, COLLAPSED, codes).astype(np.int8)


def _point(system: Scalar, phi: ArrayLike, theta: ArrayLike) -> Point:
    given = (np.asarray(phi, dtype=np.float64), np.asarray(theta, dtype=np.float64), *system.numbers)
    phi, theta, s2, a, e = np.broadcast_arrays(*given)
    return Point(phi, theta, s2, a, e, a * theta**2)


def _verdict(collapses: Mask) -> Codes:
    return np.where(collapses, COLLAPSED, NOT_COLLAPSED).astype(np.int8)


def _stop_gradient_collapses(point: Point) -> Mask:
    """phi moves to 1/q; theta dies on the way iff ``phi^2 - a theta^2`` reaches the least phi^2 still to be passed."""
    ahead = np.where(point.phi > 0, (1 + point.s2) ** -2.0, 0.0)
    return np.asarray(point.phi**2 - point.gap >= ahead)


def _target_slot_collapses(point: Point, keep: Slots) -> Mask:
    """Without noise and decay: both terms iff |1 - phi| >= sqrt(a) |theta|, the second only iff 1 - phi >= a theta^2 / 2."""
    u = 1 - point.phi
    return np.asarray(u**2 >= point.gap if keep.prediction else u >= point.gap / 2)


def divergence_time(system: Scalar, phi: float, theta: float) -> float:
    """When |theta| reaches 1e6 from a start whose fate is to diverge: the predictor is frozen, theta an exponential."""
    return float(np.log(FAR / abs(theta)) / growth(system, np.asarray(phi)))


def _frozen(rate: Array) -> Codes:
    """With phi constant theta is an exponential; its rate decides."""
    return np.where(rate > 0, DIVERGED, np.where(rate < 0, COLLAPSED, NOT_COLLAPSED)).astype(np.int8)


def _decayed(point: Point) -> Codes:
    """Stop-gradient with weight decay: above the critical value every start collapses."""
    codes = trapped(point.phi, point.gap, *fixed_points(point.e, point.s2))
    return np.where(point.e > critical_weight_decay(point.s2), COLLAPSED, codes).astype(np.int8)


def trapped(phi: Array, gap: Array, low: Array, high: Array) -> Codes:
    """The fate in the trapping sets of stop-gradient with weight decay; low, high: p_- and p_+; gap: a theta^2.

    ``{phi < p_-, gap < p_-^2}`` cannot be left and theta decays in it. ``{phi >= p_-, gap >= phi^2}`` cannot be left
    (the sign of ``phi^2 - gap`` is conserved), nor can ``{gap >= p_-^2, phi^2 >= gap, 0 < phi <= p_+}``; in both the
    flow goes to p_+.
    """
    with np.errstate(invalid="ignore"):
        falls = (phi < low) & (gap < low**2)
        above = (phi >= low) & (gap >= phi**2)
        below = (phi > 0) & (phi <= high) & (gap >= low**2) & (phi**2 >= gap)
    return np.where(above | below, NOT_COLLAPSED, np.where(falls, COLLAPSED, UNDECIDED)).astype(np.int8)
