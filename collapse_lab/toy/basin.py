"""Where the scalar flow ends, over a plane of starts: fates, their shares, and the exact boundaries between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.errors import InputError
from collapse_lab.toy.fate import COLLAPSED, DIVERGED, FATES, NOT_COLLAPSED, UNDECIDED, Codes, decide, trapped
from collapse_lab.toy.flow import checked_start
from collapse_lab.toy.follow import Indices, follow
from collapse_lab.toy.modes import critical_weight_decay, fixed_points
from collapse_lab.toy.rule import Array, slots_of
from collapse_lab.toy.scalar import Scalar, log_field
from collapse_lab.toy.separatrix import log_gap_on_separatrix

UNTIL, CLOSE = 1e5, 1e-9
SMALL, LIVE, STILL, FAR = 1e-5, 1e-3, 1e-7, 1e5


@dataclass(frozen=True)
class Plane:
    """A rectangle of starts, ``size`` along each side, corners included."""

    phi: tuple[float, float] = (-2.0, 3.0)
    theta: tuple[float, float] = (-2.0, 2.0)
    size: int = 400

    def __post_init__(self) -> None:
        """Refuse an empty rectangle."""
        for name in ("phi", "theta"):
            low, high = checked_start(getattr(self, name))
            if low >= high:
                raise InputError(f"{name} range: found {low:g} to {high:g}, the first must be below the second")
        if self.size < 2:
            raise InputError(f"size: found {self.size}, at least 2 starts along each side")

    @property
    def starts(self) -> tuple[Array, Array]:
        """phi and theta, each (size, size): rows are theta, columns phi."""
        phi, theta = np.meshgrid(np.linspace(*self.phi, self.size), np.linspace(*self.theta, self.size))
        return phi, theta


class Shares(NamedTuple):
    """The part of the starts that meets each fate; the four sum to 1."""

    undecided: float
    collapsed: float
    not_collapsed: float
    diverged: float


def fates(system: Scalar, phi: ArrayLike, theta: ArrayLike) -> Codes:
    """The eventual fate of each start, an index into ``FATES``; inputs broadcast to any shape.

    Exact where ``decide`` decides. The rest is stop-gradient with weight decay below the critical value: one system is
    compared with its separatrix, integrated once; many systems are integrated each until they enter a set that decides.
    Starts within 1e-9 of the separatrix (in ``ln theta^2``) stay undecided. Raises ``InputError`` for a start that is
    not finite.

    >>> [FATES[code] for code in fates(Scalar(noise2=0.5, weight_decay=0.05), [0.05, 0.07], [0.05, 0.07])]
    ['collapsed', 'not-collapsed']
    """
    codes = np.array(decide(system, checked_start(phi), checked_start(theta)))
    rest = codes == UNDECIDED
    if rest.any():
        given = (checked_start(phi), checked_start(theta), *system.numbers)
        numbers = [np.broadcast_to(value, codes.shape)[rest] for value in given]
        one_system = all(value.ndim == 0 for value in system.numbers)
        codes[rest] = _compared(system, *numbers[:2]) if one_system else _followed(np.stack(numbers))
    return codes


def _compared(system: Scalar, phi: Array, theta: Array) -> Codes:
    """Fates by the side of the separatrix on which a start lies."""
    s2, a, e = (float(value) for value in system.numbers)
    height = np.log(a) + 2 * np.log(np.abs(theta)) - log_gap_on_separatrix(phi, s2, e)
    codes = np.where(height > 0, NOT_COLLAPSED, COLLAPSED)
    return np.where(np.abs(height) < CLOSE, UNDECIDED, codes).astype(np.int8)


def _followed(columns: Array) -> Codes:
    """Fates by integration up to the trapping sets; ``columns`` (5, M): phi, theta, s2, a, e."""
    phi, theta, s2, a, e = columns
    low, high = fixed_points(e, s2)

    def rate(y: Array, i: Indices) -> Array:
        return log_field(Scalar("stop-gradient", s2[i], a[i], e[i]), y[0], y[1])

    def judge(y: Array, i: Indices) -> Codes:
        gap = a[i] * np.exp(2 * y[1])
        at_rest = np.maximum(np.abs(y[0] - high[i]), np.abs(gap - high[i] ** 2)) < STILL
        return np.where(at_rest, NOT_COLLAPSED, trapped(y[0], gap, low[i], high[i])).astype(np.int8)

    return follow(rate, judge, np.stack([phi, np.log(np.abs(theta))]), until=UNTIL)[0]


def integrated_fates(system: Scalar, phi: ArrayLike, theta: ArrayLike, *, until: float = 1e4) -> tuple[Codes, Array]:
    """Fate and last phi, theta (2, M) by integration alone: no first integral, no trapping set, no separatrix.

    The independent check of ``fates`` for one system and starts (M,). Judged once no velocity is above
    1e-7: collapsed where |theta| is below 1e-5 and shrinks, not collapsed where it is above 1e-3. With weight decay e
    collapse needs velocities below e^2 / 10 as well, for phi moves with e phi and theta grows again from phi about e on.
    Starts close to a boundary stay undecided, and so do those that weight decay moves too slowly for ``until``.
    """
    decay = float(system.numbers[2])
    dead_still = min(STILL, decay**2 / 10) if decay > 0 else STILL
    phi, theta = np.broadcast_arrays(checked_start(phi), checked_start(theta))

    def rate(y: Array, _: Indices) -> Array:
        return log_field(system, y[0], y[1])

    def judge(y: Array, i: Indices) -> Codes:
        (dphi, rising), size = rate(y, i), np.exp(y[1])
        speed = np.maximum(np.abs(dphi), np.abs(rising) * size)
        dead, alive = (speed < dead_still) & (size < SMALL) & (rising <= 0), (speed < STILL) & (size > LIVE)
        codes = np.where(dead, COLLAPSED, np.where(alive, NOT_COLLAPSED, UNDECIDED))
        return np.where(size > FAR, DIVERGED, codes).astype(np.int8)

    # theta = 0 stays there; the smallest positive number has the same fate and a logarithm.
    level = np.log(np.maximum(np.abs(theta), np.finfo(np.float64).tiny))
    codes, last = follow(rate, judge, np.stack([phi, level]), until=until)
    return codes, np.stack([last[0], np.copysign(np.exp(last[1]), theta)])


def shares(codes: Codes) -> Shares:
    """The share of each fate among codes of any shape."""
    return Shares(*(np.bincount(codes.ravel(), minlength=len(FATES)) / codes.size).tolist())


def boundary(system: Scalar, phi: ArrayLike) -> Array:
    """|theta| on the boundary above ``phi``: starts nearer to theta = 0 collapse. One number per parameter.

    Infinite where every start collapses, 0 where none does. Stop-gradient: ``sqrt((phi^2 - phi*^2) / a)`` for phi > 0
    with ``phi* = 1 / (1 + s2)``, ``|phi| / sqrt(a)`` else, the separatrix under weight decay; without noise and decay
    both terms ``|1 - phi| / sqrt(a)`` and the second term only ``sqrt(2 (1 - phi) / a)``. Raises ``InputError`` for a
    frozen predictor, where phi alone decides.
    """
    keep, phi = slots_of(system.variant), np.asarray(phi, dtype=np.float64)
    s2, a, e = (float(value) for value in system.numbers)
    if a == 0:
        raise InputError("rate: found 0, a frozen predictor leaves no curve; phi alone decides")
    if e > critical_weight_decay(s2) or (keep.target and (s2 > 0 or e > 0)):
        return np.full_like(phi, np.inf)
    if not keep.target and e > 0:
        return np.asarray(np.exp(log_gap_on_separatrix(phi, s2, e) / 2) / np.sqrt(a))
    if not keep.target:
        return np.asarray(np.sqrt(np.maximum(phi**2 - np.where(phi > 0, (1 + s2) ** -2.0, 0.0), 0.0) / a))
    u = 1 - phi
    return np.asarray(np.abs(u) / np.sqrt(a) if keep.prediction else np.sqrt(2 * np.maximum(u, 0.0) / a))
