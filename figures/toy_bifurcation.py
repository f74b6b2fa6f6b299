"""How noise, weight decay and the predictor's rate decide the end of the blog's start (0.6, 0.1) under stop-gradient.

python figures/toy_bifurcation.py
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_lab.style import COLOURS, DASHES, STYLE
from collapse_lab.toy.basin import fates
from collapse_lab.toy.draw import FATE_COLOURS
from collapse_lab.toy.fate import COLLAPSED, NOT_COLLAPSED
from collapse_lab.toy.modes import critical_weight_decay, fixed_points
from collapse_lab.toy.report import publish
from collapse_lab.toy.scalar import Scalar, flow

NOISES, SIZE = (0.0, 0.25, 0.5, 1.0), 81
BRANCH = np.linspace(0.01, 0.26, 26)


def record() -> pd.DataFrame:
    """kind, noise2, rate, weight_decay, value: end states of the flow from two starts, and maps of fates."""
    return pd.concat([branch(noise2) for noise2 in NOISES] + [decay_map(), rate_map()], ignore_index=True)


def branch(noise2: float) -> pd.DataFrame:
    """p at time 3,000 from a high start and from just below p_-."""
    low = np.where(critical_weight_decay(noise2) >= BRANCH, fixed_points(BRANCH, noise2)[0], 0.0)
    high_start, low_start = np.full_like(BRANCH, 1.0), np.where(low > 0, 0.98 * low, 0.3)
    system = Scalar("stop-gradient", np.tile(noise2, 2 * BRANCH.size), 1.0, np.tile(BRANCH, 2))
    start = np.concatenate([high_start, low_start])
    ends = flow(system, start, start, [3000.0]).states[-1, 0]
    return frame("end state", noise2, 1.0, np.tile(BRANCH, 2), ends)


def decay_map() -> pd.DataFrame:
    """Fates over noise and weight decay."""
    noise2, decay = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 0.3, SIZE))
    codes = fates(Scalar("stop-gradient", noise2.ravel(), 1.0, decay.ravel()), 0.6, 0.1)
    return frame("decay map", noise2.ravel(), 1.0, decay.ravel(), codes)


def rate_map() -> pd.DataFrame:
    """Fates over noise and the predictor's rate."""
    noise2, rate = np.meshgrid(np.linspace(0, 1, SIZE), np.geomspace(0.1, 100, SIZE))
    codes = fates(Scalar("stop-gradient", noise2.ravel(), rate.ravel(), 0.0), 0.6, 0.1)
    return frame("rate map", noise2.ravel(), rate.ravel(), 0.0, codes)


def frame(kind: str, noise2: object, rate: object, decay: object, value: object) -> pd.DataFrame:
    """Rows of one kind."""
    return pd.DataFrame({"kind": kind, "noise2": noise2, "rate": rate, "weight_decay": decay, "value": value})


def figure(table: pd.DataFrame) -> Figure:
    """p_+ and p_- against weight decay, the map over noise and weight decay, and that over noise and rate with its boundary.

    In the first only the critical weight decay is a formula: everything above it collapses, and more below it."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure((9.6, 4.1), layout="constrained")
        left, middle, right = drawn.subplots(1, 3)
        draw_branches(left, table[table["kind"] == "end state"])
        draw_map(middle, table[table["kind"] == "decay map"], "weight_decay")
        noise2 = np.linspace(0, 1, 200)
        middle.plot(
            noise2,
            critical_weight_decay(noise2),
            color="black",
            label="critical weight decay, 1 / (4 (1 + s²)):\nall starts above it collapse",
        )
        middle.set_ylabel("weight decay e")
        middle.set_title("fate of (0.6, 0.1), a = 1")
        draw_map(right, table[table["kind"] == "rate map"], "rate")
        # theta0^2 + (phi*^2 - phi0^2) / a = 0, beyond the noise at which phi* = phi0.
        inside = 0.6**2 - (1 + noise2) ** -2.0
        right.plot(noise2[inside > 0], inside[inside > 0] / 0.1**2, color="black", label="boundary, a θ₀² = φ₀² - φ*²")
        right.set_yscale("log")
        right.set_ylim(0.1, 100)
        right.set_ylabel("predictor rate a")
        right.set_title("fate of (0.6, 0.1), e = 0")
        for axes in (middle, right):
            axes.set_xlabel("augmentation variance s²")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=7)
    return drawn


def draw_branches(axes: Axes, table: pd.DataFrame) -> None:
    """Curves from the formula, dots where the flow ended."""
    for position, noise2 in enumerate(NOISES):
        critical = float(critical_weight_decay(noise2))
        decay = np.linspace(0, critical, 400)[1:]
        low, high = fixed_points(decay, noise2)
        colour = COLOURS[position]
        axes.plot(decay, high, color=colour, ls=DASHES[0], label=f"s² = {noise2:g}")
        axes.plot(decay, low, color=colour, ls=DASHES[3])
        rows = table[table["noise2"] == noise2]
        axes.plot(rows["weight_decay"], rows["value"], "o", color=colour, ms=2.5, mew=0)
    axes.plot([], [], color="black", ls=DASHES[0], label="p₊, stable")
    axes.plot([], [], color="black", ls=DASHES[3], label="p₋, unstable")
    axes.plot([], [], "o", color="black", ms=2.5, label="where the flow ends")
    axes.set_xlabel("weight decay e")
    axes.set_title("predictor p at rest")
    axes.set_ylim(-0.04, 1.75)
    axes.set_yticks(np.arange(0, 1.1, 0.2))
    axes.legend(fontsize=7, loc="upper center", ncols=2)


def draw_map(axes: Axes, table: pd.DataFrame, rows: str) -> None:
    """Grey where it collapses, blue where not."""
    grid = table.pivot(index=rows, columns="noise2", values="value")
    colours = matplotlib.colors.ListedColormap(list(FATE_COLOURS))
    axes.pcolormesh(grid.columns, grid.index, grid.to_numpy(), cmap=colours, vmin=-0.5, vmax=3.5, rasterized=True)
    for code, label in ((COLLAPSED, "collapsed"), (NOT_COLLAPSED, "not collapsed")):
        axes.plot([], [], "s", color=FATE_COLOURS[code], mec="grey", label=label)
    axes.grid(False)


if __name__ == "__main__":
    publish("toy_bifurcation", record, figure)
