"""Figures that hold toys beside trained networks, drawn from recorded tables."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_lab.style import STYLE
from collapse_lab.toy.draw_linear import line

PANELS = {"std_ratio": "std of z/‖z‖, times √d", "mean_energy": "mean energy ‖E z/‖z‖‖²", "rankme": "RankMe of z"}
LIMITS = {"std_ratio": (0, 1.08), "mean_energy": (-0.02, 1.02), "rankme": (0, 128)}
HEADS = {"none": "no output BatchNorm", "affine": "output BatchNorm"}


def deep(table: pd.DataFrame) -> Figure:
    """std ratio, mean energy and RankMe over steps, a row a head, a line a method, every seed thin."""
    heads = list(dict.fromkeys(table["head"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure((8.4, 2.5 * len(heads) + 0.5), layout="constrained")
        grid = figure.subplots(len(heads), len(PANELS), sharex=True, sharey="col", squeeze=False)
        for row, head in zip(grid, heads, strict=True):
            for axes, (measure, title) in zip(row, PANELS.items(), strict=True):
                curves(axes, table[table["head"] == head], measure)
                axes.set_title(f"{title}\n{HEADS[head]}")
                axes.set_ylim(*LIMITS[measure])
        for axes in grid[-1]:
            axes.set_xlabel("training step")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure


def curves(axes: Axes, table: pd.DataFrame, measure: str) -> None:
    """The mean over seeds of each method, every seed thin beneath it."""
    for position, (name, rows) in enumerate(table.groupby("method", sort=False)):
        by_seed = rows.pivot(index="step", columns="seed", values=measure)
        axes.plot(by_seed, **line(position) | {"lw": 0.5, "alpha": 0.6, "ls": "-"})
        axes.plot(by_seed.mean(axis=1), label=str(name), **line(position))
