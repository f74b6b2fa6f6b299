"""The calibrated bounds of the verdict, and what RankMe a power law of a given exponent reads at finite N.

``bounds.json`` beside this file is made by ``python benchmarks/collapse_bounds.py ZOO``: a table simulated over (N, d) and
spectra, and bounds from the tuning half of the collapse zoo, with how and from what they were made.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import numpy as np

from collapse_lab.geometry import power_law_rankme


@lru_cache(maxsize=1)
def load() -> dict[str, Any]:
    """The content of ``bounds.json``."""
    table: dict[str, Any] = json.loads(files("collapse_lab.monitors").joinpath("bounds.json").read_text("utf-8"))
    return table


def rankme_of_power_law(rows: int, dimension: int, alpha: float) -> float:
    """RankMe that N = ``rows`` Gaussian rows read whose covariance eigenvalues fall as j^-alpha, j = 1..``dimension``.

    The population's value times the simulated shortfall at N, interpolated in log d, log N/d and alpha; beyond the grid
    (d 16 to 512, N/d 1/4 to 16, alpha 0 to 4) the nearest edge counts. At most min(N, d). Within 5 % between knots.

    >>> round(rankme_of_power_law(256, 128, 0.0)), round(rankme_of_power_law(256, 128, 2.0))
    (119, 50)
    """
    logs = np.interp(alpha, load()["null"]["alphas"], _log_levels(rows, dimension))
    return min(float(np.exp(logs)), rows, dimension)


def equivalent_alpha(rankme: float, rows: int, dimension: int) -> float:
    """The exponent of the power law that reads this RankMe at the same N and d: a rank that does not depend on N.

    Range [0, 4], cut at the ends; small is flat, above about 3 is collapsed. NaN for NaN.

    >>> round(equivalent_alpha(51.0, 256, 128), 1), round(equivalent_alpha(5.0, 256, 128), 1)
    (2.0, 4.0)
    """
    if math.isnan(rankme):
        return math.nan
    falling = _log_levels(rows, dimension)
    return float(np.interp(-math.log(max(rankme, 1.0)), -falling, load()["null"]["alphas"]))


@lru_cache(maxsize=256)
def _log_levels(rows: int, dimension: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """log RankMe at each alpha of the grid for this N and d."""
    null = load()["null"]
    limits = [math.log(power_law_rankme(dimension, alpha)) for alpha in null["alphas"]]
    shortfall = np.asarray(null["mean"])
    dimensions, ratios = np.log(null["dimensions"]), np.log(null["ratios"])
    at_dimension = np.array(
        [
            [np.interp(math.log(dimension), dimensions, shortfall[:, r, a]) for a in range(shortfall.shape[2])]
            for r in range(len(ratios))
        ]
    )
    ratio = math.log(rows / dimension)
    levels = [np.interp(ratio, ratios, at_dimension[:, a]) for a in range(shortfall.shape[2])]
    result: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(limits) + np.asarray(levels)
    return result


class Band(NamedTuple):
    """From where on a measure is healthy and from where on collapsed; ``total`` is its value at total collapse."""

    healthy: float
    collapse: float
    total: float
    origin: str

    def says(self, value: float) -> Literal["healthy", "between", "collapse"]:
        """What a value says; a value at a bound is on its better side."""
        sign = 1 if self.healthy > self.total else -1
        if sign * value >= sign * self.healthy:
            return "healthy"
        return "collapse" if sign * value < sign * self.collapse else "between"

    def severity(self, value: float) -> float:
        """0 at the healthy bound and beyond, 1 at total collapse, linear between; 0 where the two are one, as at d = 1."""
        if self.total == self.healthy:
            return 0.0
        share = (value - self.healthy) / (self.total - self.healthy)
        return min(1.0, max(0.0, share)) if math.isfinite(value) else 1.0

    def text(self) -> str:
        """The bound in words."""
        under, least = ("<", ">=") if self.healthy > self.total else (">", "<=")
        return f"collapse {under} {self.collapse:.3g}, healthy {least} {self.healthy:.3g}"


def bands(mode: str, rows: int, dimension: int) -> dict[str, Band]:
    """The calibrated bands of every measure in a mode, at N = ``rows`` and d = ``dimension``."""
    tuned = load()["bounds"][mode]
    origin = f"{mode}-mode bounds of the collapse zoo's tuning half"
    healthy, collapse = (rankme_of_power_law(rows, dimension, tuned["alpha"][side]) for side in ("healthy", "collapse"))
    power_laws = "power laws of alpha {healthy:.2f} and {collapse:.2f} at this N and d; ".format(**tuned["alpha"])
    return {
        "std_ratio": Band(**tuned["std_ratio"], total=0.0, origin=origin),
        "mean_energy": Band(**tuned["mean_energy"], total=1.0, origin=origin),
        "rankme": Band(healthy, collapse, 1.0, power_laws + origin),
        "centred_rankme": Band(healthy, collapse, 1.0, power_laws + origin),
        "outlier_share": Band(**tuned["outlier_share"], total=1.0, origin=origin),
    }


def relative_bands(std_ratio: float, rankme: float, centred_rankme: float | None, origin: str) -> dict[str, Band]:
    """Bands of a layer held against sound values of its own or of a reference run's, as shares of these."""
    share = load()["bounds"]["share"]
    expected = {"std_ratio": std_ratio, "rankme": rankme, "centred_rankme": centred_rankme}
    return {
        name: Band(share[name]["healthy"] * value, share[name]["collapse"] * value, float(name != "std_ratio"), origin)
        for name, value in expected.items()
        if value is not None
    }
