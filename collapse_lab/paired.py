"""Differences paired by seed: their mean, its t-interval, and one sentence with what the interval allows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import t

LEVEL = 0.95
HEADLINE = 8


class Interval(NamedTuple):
    """A mean over ``n`` values with its t-interval; ``low`` and ``high`` are None where ``n`` is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean at 95 %, mean ± t(0.975, n - 1) s / √n with s of ddof 1.

    It covers what it says where the values are about normal; where all are equal it has no width, which says nothing of
    the next value. Raises ``ValueError`` where there is no value or one is not finite. Source: Student (1908).

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 3), round(found.high, 3)
    (2.0, -0.484, 4.484)
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"values: found {list(values)}; an interval needs at least one, all finite")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def differences(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """Value of ``one`` minus that of ``other`` for every seed (key) that both have, in order of seeds.

    >>> differences({0: 3.0, 1: 5.0, 2: 1.0}, {1: 4.0, 0: 1.0})
    {0: 2.0, 1: 1.0}
    """
    return {seed: one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())}


def sentence(quantity: str, one: str, other: str, found: Interval | None, scale: float = 1.0, unit: str = "") -> str:
    """What the interval of ``one`` minus ``other`` allows to say of a quantity, and no more; values times ``scale``."""
    if found is None:
        return f"No seed gave {quantity} of both '{one}' and '{other}': nothing can be said."
    mean = _number(found.mean * scale) + unit
    if found.low is None or found.high is None:
        return f"One pair of seeds, {mean}: no interval, nothing can be said of another seed."
    low, high = _number(found.low * scale), _number(found.high * scale)
    if found.low == found.high:
        return f"All {found.n} differences are {mean}: without spread there is no interval."
    if found.low <= 0 <= found.high:
        return (
            f"With n = {found.n} the data allow a mean difference between {low} and {high}{unit}; "
            "they do not decide its sign."
        )
    side = "above" if found.mean > 0 else "below"
    return (
        f"With n = {found.n} the data allow a mean difference between {low} and {high}{unit}: "
        f"'{one}' is {side} on average, in these settings."
    )


def _number(value: float) -> str:
    return f"{value:+.3g}" if abs(value) < 100 else f"{value:+.0f}"
