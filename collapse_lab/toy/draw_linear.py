"""Figures of the linear systems, drawn from recorded tables."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_lab.style import COLOURS, DASHES, GREY, STYLE, THICK


def linear(table: pd.DataFrame) -> Figure:
    """Predictor eigenvalues p, encoder variances s and alignment over time (time, mode, p, s, alignment, commutator)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((8.4, 2.9), layout="constrained")
        panels = figure.subplots(1, 3)
        titles = {"p": "p, predictor eigenvalues", "s": "s = uᵀFu, encoder", "alignment": "alignment |uᵀFu| / ‖Fu‖"}
        for axes, (name, title) in zip(panels, titles.items(), strict=True):
            by_mode(axes, table, name)
            axes.set_title(title)
            axes.set_xlabel("time, 1 / learning rate")
        panels[2].set_ylim(-0.02, 1.04)
    return figure


def by_mode(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """One line a mode."""
    for position, (mode, rows) in enumerate(table.groupby("mode")):
        axes.plot(rows["time"], rows[column], label=str(mode), **line(position))


def line(position: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line."""
    return {"color": COLOURS[position % len(COLOURS)], "ls": DASHES[position % len(DASHES)], "lw": THICK}


def alternation(table: pd.DataFrame) -> Figure:
    """theta by round and its distance from the limit (scheme, round, theta, distance)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for position, (scheme, rows) in enumerate(table.groupby("scheme", sort=False)):
            left.plot(rows["round"], rows["theta"], label=str(scheme), **line(position))
            shown = rows[rows["distance"] > 1e-14]
            right.semilogy(shown["round"], shown["distance"], **line(position))
        left.set_title("θ after each round")
        right.set_title("distance from its limit")
        for axes in (left, right):
            axes.set_xlabel("round")
        figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def cosine(table: pd.DataFrame) -> Figure:
    """RankMe and the constant mode's energy over time (time, rankme, energy), and the spectrum at both ends."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((8.4, 2.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        course = table.drop_duplicates("time")
        left.plot(course["time"], course["rankme"], **line(0))
        left.set_title("RankMe of z")
        left.set_ylim(bottom=0)
        middle.plot(course["time"], course["largest"], **line(1))
        middle.set_title("largest mode's share of ‖z‖²")
        middle.set_ylim(-0.02, 1.04)
        for axes in (left, middle):
            axes.set_xlabel("time, 1 / learning rate")
        for time, colour, label in ((table["time"].min(), GREY, "start"), (table["time"].max(), COLOURS[0], "end")):
            rows = table[table["time"] == time]
            right.plot(rows["agreement"], np.maximum(rows["energy"], 1e-12), "o-", ms=3, color=colour, label=label)
        right.set_yscale("log")
        right.set_xlabel("agreement r of two views")
        right.set_title("energy of each mode")
        right.legend()
    return figure
