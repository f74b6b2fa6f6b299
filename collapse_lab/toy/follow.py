"""Follows very many starts of the scalar flow, each with a step of its own, until each has shown its fate.

One ``solve_ivp`` over all starts takes the step of the stiffest and must run to a fixed time. Here a start takes the
step that its own error allows (Dormand and Prince's 5(4) pair) and leaves the computation once it is judged.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from collapse_lab.toy.fate import UNDECIDED, Codes
from collapse_lab.toy.rule import Array

Indices = NDArray[np.intp]
Field = Callable[[Array, Indices], Array]
Judge = Callable[[Array, Indices], Codes]

STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
CHUNK = 20_000
GROW, SHRINK, SAFETY = 4.0, 0.1, 0.9


def follow(
    field: Field, judge: Judge, start: Array, *, until: float, tolerance: float = 1e-9, steps: int = 20_000
) -> tuple[Codes, Array]:
    """The fate (M,) and the last state (D, M) of each start (D, M) of the autonomous flow ``dy/dt = field(y, i)``.

    ``judge`` maps states to fates, index 0 meaning not yet; both get the states (D, m) still followed and their m
    indices among the starts. A start is given up as undecided after time ``until`` or ``steps`` steps. ``tolerance``
    bounds the error of a step, relative to 1 and to the state.
    """
    codes, last = np.zeros(start.shape[1], np.int8), start.copy()
    for first in range(0, start.shape[1], CHUNK):
        _follow_chunk(
            field, judge, np.arange(first, min(first + CHUNK, start.shape[1])), codes, last, until, tolerance, steps
        )
    return codes, last


def _follow_chunk(
    field: Field, judge: Judge, alive: Indices, codes: Codes, last: Array, until: float, tolerance: float, steps: int
) -> None:
    """Fill in the fates and last states of the starts ``alive``."""
    y, left = last[:, alive], np.full(alive.size, until)
    slope = field(y, alive)
    step = np.minimum(left, 0.01 / (1e-3 + np.abs(slope).max(axis=0)))
    for _ in range(steps):
        now = judge(y, alive)
        codes[alive], last[:, alive] = now, y
        keep = (now == UNDECIDED) & (left > 0)
        y, slope, step, left, alive = y[:, keep], slope[:, keep], step[keep], left[keep], alive[keep]
        if not alive.size:
            break
        proposal, end_slope, error = _step(field, alive, y, slope, step)
        error = np.abs(error / (tolerance * np.maximum(1.0, np.abs(y)))).max(axis=0)
        accepted = error <= 1
        y, slope = np.where(accepted, proposal, y), np.where(accepted, end_slope, slope)
        left = left - step * accepted
        step = np.minimum(left, step * np.clip(SAFETY * np.maximum(error, 1e-10) ** -0.2, SHRINK, GROW))


def _step(field: Field, alive: Indices, y: Array, slope: Array, step: Array) -> tuple[Array, Array, Array]:
    """One step of Dormand and Prince: the fifth-order state, its slope, and the difference from the fourth order."""
    slopes, state = [slope], y
    for row in STAGES:
        state = y + step * sum(weight * known for weight, known in zip(row, slopes, strict=True) if weight)
        slopes.append(field(state, alive))
    error = step * sum(weight * known for weight, known in zip(ERROR, slopes, strict=True) if weight)
    return state, slopes[-1], error
