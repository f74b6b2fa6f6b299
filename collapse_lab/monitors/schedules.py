"""Schedules: functions of the number of a training step, counted from 1, that say whether it is read.

Any function of that kind is a schedule; these make the common ones. ``any_of`` joins them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], bool]


def every(n: int, *, first: int = 0) -> Schedule:
    """Each of the first ``first`` steps, then every ``n``-th step.

    >>> [step for step in range(1, 21) if every(5, first=3)(step)]
    [1, 2, 3, 5, 10, 15, 20]
    """
    _require_positive("every", n)
    if first < 0:
        raise ValueError(f"first: found {first}, expected 0 or more")
    return lambda step: step <= first or step % n == 0


def log_spaced(per_decade: int) -> Schedule:
    """``per_decade`` steps in each power of ten, evenly spaced in the logarithm: round(10 ** (i / per_decade)).

    Early steps, where runs decide their fate, are read densely, and a long run costs no more than a short one.

    >>> [step for step in range(1, 101) if log_spaced(4)(step)]
    [1, 2, 3, 6, 10, 18, 32, 56, 100]
    """
    _require_positive("per_decade", per_decade)

    def scheduled(step: int) -> bool:
        lowest = max(0, math.ceil(per_decade * math.log10(step - 0.5)))
        return round(10 ** (lowest / per_decade)) == step

    return scheduled


def by_epoch(steps_per_epoch: int, n: int = 1) -> Schedule:
    """The last step of every ``n``-th epoch of ``steps_per_epoch`` steps.

    >>> [step for step in range(1, 100) if by_epoch(14, 2)(step)]
    [28, 56, 84]
    """
    _require_positive("steps_per_epoch", steps_per_epoch)
    _require_positive("n", n)
    return every(steps_per_epoch * n)


def any_of(*schedules: Schedule) -> Schedule:
    """The steps that at least one of the schedules reads.

    >>> [step for step in range(1, 30) if any_of(every(10), by_epoch(14))(step)]
    [10, 14, 20, 28]
    """
    return lambda step: any(schedule(step) for schedule in schedules)


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: found {value}, expected at least 1")
