"""Integrates a vector field over many starts at once and says when each has collapsed, converged or diverged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from collapse_lab.errors import InputError
from collapse_lab.toy.rule import Array

Field = Callable[[float, Array], Array]
Event = Callable[[float, Array], float]

RTOL, ATOL = 1e-12, 1e-14
COLLAPSED, CONVERGED, DIVERGED = 1e-3, 1e-9, 1e6
LARGEST, LEAST_DECAY = 1e6, 1e-9


@dataclass(frozen=True)
class Trajectory:
    """States over time, with the time of each event per start and infinity where it did not come.

    ``times`` (T,) in units of one over the encoder's learning rate; ``states`` (T, D) for one start, (T, D, M) for M
    starts. ``collapsed_at``: the encoder's norm first fell to 1e-3. ``converged_at``: the largest velocity first fell
    to 1e-9. ``diverged_at``: the largest entry first reached 1e6; times and states stop at the first divergence.
    The three have shape () or (M,).
    """

    times: Array
    states: Array
    collapsed_at: Array
    converged_at: Array
    diverged_at: Array


def integrate(
    field: Field,
    start: ArrayLike,
    times: ArrayLike,
    *,
    encoder: slice = slice(1, None),
    stop_at_collapse: bool = False,
    method: Literal["DOP853", "LSODA"] = "DOP853",
    rtol: float = RTOL,
    atol: float = ATOL,
) -> Trajectory:
    """The solution of ``dy/dt = field(t, y)`` through ``start`` (D,) or (D, M) at ``times`` (T,), by ``solve_ivp``.

    ``encoder`` selects the rows of the state that are the encoder: all but the first, as in the scalar toy; where it
    collapses times and states stop if ``stop_at_collapse``. All M starts
    share one step size, and the solver keeps the root mean square of the errors of all D x M numbers within the
    tolerances (relative 1e-12, absolute 1e-14): one start among M may err sqrt(D M) times as much. LSODA suits one stiff
    start.
    Raises ``InputError`` for a start that is not finite, for times that are negative or do not increase, and where the
    solver cannot go on.
    """
    first, moments = checked_start(start), checked_times(times)
    shape, columns = first.shape, first.reshape(first.shape[0], -1).shape[1]

    def flat(t: float, y: Array) -> Array:
        return field(t, y.reshape(shape)).ravel()

    watched = _events(field, shape, encoder, stop_at_collapse)
    reached, states, hits = moments, first[None], [np.zeros(0)] * len(watched)
    # solve_ivp cannot answer for an empty interval.
    if moments[-1] > 0:
        solution = solve_ivp(
            flat, (0.0, moments[-1]), first.ravel(), method, moments, events=watched, rtol=rtol, atol=atol
        )
        if solution.status < 0:
            raise InputError(f"integration from {first.tolist()} stopped before {moments[-1]:g}: {solution.message}")
        # Divergence before the first moment leaves nothing recorded.
        reached = np.asarray(solution.t, dtype=np.float64)
        states, hits = np.reshape(np.transpose(solution.y), (-1, *shape)), solution.t_events
    found = [_first_time(event, at, first.ravel()) for event, at in zip(watched, hits, strict=True)]
    collapsed, converged, diverged = np.array(found).reshape(columns, 3).T.reshape(3, *shape[1:])
    return Trajectory(reached, states, collapsed, converged, diverged)


def checked_start(start: ArrayLike) -> Array:
    """The start as float64; raises ``InputError`` where an entry is not finite or beyond 1e6."""
    first = np.asarray(start, dtype=np.float64)
    bad = first[~(np.abs(first) < DIVERGED)]
    if bad.size:
        raise InputError(f"start: found {bad.flat[0]}, every entry must be finite and below {DIVERGED:g} in size")
    return first


def check_most(**numbers: tuple[float, float]) -> None:
    """Raise ``InputError`` where a number is above the most (number, most) that is integrated in seconds."""
    for name, (value, most) in numbers.items():
        if value > most:
            raise InputError(f"{name}: found {value:g}, at most {most:g}")


def check_numbers(**numbers: ArrayLike) -> None:
    """Raise ``InputError`` unless each lies in [0, 1e6], and a ``weight_decay`` is 0 or at least 1e-9."""
    for name, given in numbers.items():
        values = np.asarray(given, dtype=np.float64)
        bad = values[~((values >= 0) & np.isfinite(values))]
        if bad.size:
            raise InputError(f"{name}: found {bad.flat[0]}, must be finite and not negative")
        if values.size and values.max() > LARGEST:
            raise InputError(f"{name}: found {values.max():g}, at most {LARGEST:g}")
        tiny = values[(values > 0) & (values < LEAST_DECAY)]
        if name == "weight_decay" and tiny.size:
            raise InputError(f"weight_decay: found {tiny.flat[0]:g}, must be 0 or at least {LEAST_DECAY:g}")


def checked_times(times: ArrayLike) -> Array:
    """The times as float64 (T,); raises ``InputError`` unless they are finite, not negative and increase."""
    moments = np.atleast_1d(np.asarray(times, dtype=np.float64))
    bad = moments[~((moments >= 0) & np.isfinite(moments))]
    if bad.size:
        raise InputError(f"time: found {bad[0]}, must be finite and not negative")
    if moments.ndim != 1 or np.any(np.diff(moments) <= 0):
        raise InputError("times: must be one increasing list of numbers")
    return moments


def _events(field: Field, shape: tuple[int, ...], encoder: slice, stop: bool) -> list[Event]:
    columns = int(np.prod(shape[1:]))
    return [event for column in range(columns) for event in _events_of_start(field, shape, encoder, column, stop)]


def _events_of_start(field: Field, shape: tuple[int, ...], encoder: slice, column: int, stop: bool) -> Sequence[Event]:
    def own(y: Array) -> Array:
        state: Array = y.reshape(shape[0], -1)[:, column]
        return state

    def collapsed(t: float, y: Array) -> float:
        return float(np.linalg.norm(own(y)[encoder])) - COLLAPSED

    def converged(t: float, y: Array) -> float:
        return float(np.abs(own(field(t, y.reshape(shape)).ravel())).max()) - CONVERGED

    def diverged(t: float, y: Array) -> float:
        return DIVERGED - float(np.abs(own(y)).max())

    events: list[Any] = [collapsed, converged, diverged]
    for event in events:
        event.direction = -1
    diverged.terminal, collapsed.terminal = True, stop  # type: ignore[attr-defined]
    return events


def _first_time(event: Event, hits: Array, start: Array) -> float:
    if event(0.0, start) <= 0:
        return 0.0
    return float(hits[0]) if hits.size else np.inf
