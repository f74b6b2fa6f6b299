"""Gradient descent beside the flow: step size, momentum and gradient noise on the same vector fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.errors import InputError
from collapse_lab.toy.flow import COLLAPSED, CONVERGED, DIVERGED, Trajectory, checked_start
from collapse_lab.toy.rule import Array

Velocity = Callable[[Array], Array]
DEAD, LIVE, STILL = 1e-6, 1e-3, 1e-12


@dataclass(frozen=True)
class Descent:
    """How to step: ``v <- momentum v + g + noise N(0, 1)``, ``y <- y - step_size v``, every component at once.

    ``g`` is minus the flow's velocity, so a predictor rate scales its step. Raises ``InputError`` unless
    ``step_size > 0``, ``0 <= momentum < 1`` and ``noise >= 0``.
    """

    step_size: float
    momentum: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not a descent."""
        if not (0 < self.step_size < np.inf):
            raise InputError(f"step size: found {self.step_size}, must be finite and above 0")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: found {self.momentum}, must be at least 0 and below 1")
        if not 0 <= self.noise < np.inf:
            raise InputError(f"gradient noise: found {self.noise}, must be finite and not negative")


def descend(
    velocity: Velocity,
    start: ArrayLike,
    descent: Descent,
    steps: int,
    *,
    encoder: slice,
    generator: np.random.Generator | None = None,
    every: int = 1,
) -> Trajectory:
    """The iterates from ``start`` (D,) or (D, M), recorded each ``every`` steps and at the last; time is steps x step size.

    Stops at the first step that brings an entry to 1e6 or beyond the numbers: that is divergence, its time is recorded
    per start and no such state is. Raises ``InputError`` for a negative number of steps, a start that is not finite, and
    noise without a generator.
    """
    y = checked_start(start)
    if steps < 0:
        raise InputError(f"steps: found {steps}, must not be negative")
    if descent.noise > 0 and generator is None:
        raise InputError("gradient noise: needs a generator, so that the run can be repeated")
    record = Recorder(velocity, encoder, y)
    kept, moments, buffer = [y], [0.0], np.zeros_like(y)
    for step in range(1, steps + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            buffer = descent.momentum * buffer - velocity(y)
            if generator is not None and descent.noise > 0:
                buffer = buffer + descent.noise * generator.standard_normal(y.shape)
            new = y - descent.step_size * buffer
        if record.has_diverged(new, step * descent.step_size):
            break
        y = new
        record.note(y, step * descent.step_size)
        if step % every == 0 or step == steps:
            kept.append(y)
            moments.append(step * descent.step_size)
    return Trajectory(np.array(moments), np.stack(kept), record.collapsed, record.converged, record.diverged)


class Recorder:
    """Times of the events of ``Trajectory``, noted as the states come."""

    def __init__(self, velocity: Velocity, encoder: slice, start: Array) -> None:
        self.velocity, self.encoder = velocity, encoder
        self.collapsed, self.converged, self.diverged = (np.full(start.shape[1:], np.inf) for _ in range(3))
        self.note(start, 0.0)

    def note(self, y: Array, time: float) -> None:
        """Keep the first time at which each start has collapsed or converged."""
        dead = np.linalg.norm(y[self.encoder], axis=0) <= COLLAPSED
        still = np.abs(self.velocity(y)).max(axis=0) <= CONVERGED
        self.collapsed = np.where(dead, np.minimum(self.collapsed, time), self.collapsed)
        self.converged = np.where(still, np.minimum(self.converged, time), self.converged)

    def has_diverged(self, y: Array, time: float) -> bool:
        """Whether an entry is beyond 1e6 or not a number; keeps the time."""
        far = ~(np.abs(y) < DIVERGED).all(axis=0)
        self.diverged = np.where(far, time, self.diverged)
        return bool(far.any())


def verdict(velocity: Velocity, last: Trajectory, encoder: slice) -> str:
    """The fate of one start that the last iterate shows, once no velocity is above 1e-12, or ``diverged``.

    ``collapsed`` where the encoder is below 1e-6 and does not grow, ``not-collapsed`` where it is above 1e-3. All else is
    ``undecided``: a tiny encoder can grow again while weight decay still moves the predictor.
    """
    if np.isfinite(last.diverged_at):
        return "diverged"
    y = last.states[-1]
    speed, size = velocity(y), float(np.linalg.norm(y[encoder]))
    if float(np.abs(speed).max()) >= STILL:
        return "undecided"
    if size < DEAD and float(np.sum(speed[encoder] * y[encoder])) <= 0:
        return "collapsed"
    return "not-collapsed" if size > LIVE else "undecided"
