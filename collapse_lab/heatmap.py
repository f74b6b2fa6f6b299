"""Rank and amplitude of every layer at every step as heat maps, from a table of readings alone: which layer fell first."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_lab.errors import InputError
from collapse_lab.records import read_metrics
from collapse_lab.style import GREY, STYLE, save

LOST = 0.5


def draw(table: Path, out: Path) -> list[Path]:
    """Write ``figure`` of a table of readings as ``layers.png`` and ``layers.pdf`` into a directory.

    Raises ``InputError`` where the table cannot be read or has no readings of layers, or the directory cannot be written.
    """
    return save(figure(read_metrics(table)), out / "layers")


def figure(table: pd.DataFrame) -> Figure:
    """RankMe over its own highest value so far, and std ratio, by layer and step, in train mode.

    A layer is held against its own history, since RankMe is not comparable between layers. A cross marks the reading from
    which on it stays below half of its highest before, the number beside it the step.
    """
    rank, std_ratio = by_layer(table, "rankme"), by_layer(table, "std_ratio")
    if rank.empty and std_ratio.empty:
        raise InputError("the table has no train-mode readings of rankme or std_ratio; nothing can be drawn by layer")
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        drawn = Figure((7.2, 1.6 + 0.5 * len(rank.columns.union(std_ratio.columns))), layout="constrained")
        left, right = drawn.subplots(1, 2, sharey=True)
        _mesh(drawn, left, rank / rank.cummax(), "RankMe / its highest so far")
        _mesh(drawn, right, std_ratio, "std of z/‖z‖, times √d")
        for position, step in enumerate(rank_lost(rank).values()):
            if step is not None:
                left.plot(step, position, "x", color="#D55E00", ms=7, mew=2)
                left.annotate(str(step), (step, position), (5, 4), textcoords="offset points", color="#D55E00")
        drawn.supxlabel(f"Cross: from here on below {LOST:.0%} of its highest. Train mode.", fontsize=8, color=GREY)
    return drawn


def by_layer(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Train-mode values of a scalar by step (rows) and layer (columns), layers in the order of the table."""
    rows = table[(table["source"] == "train") & (table["metric"] == metric) & (table["layer"] != "")]
    return rows.pivot(index="step", columns="layer", values="value")[rows["layer"].unique()]


def rank_lost(rank: pd.DataFrame, share: float = LOST) -> dict[str, int | None]:
    """Step from which on each layer's value stays below ``share`` of its highest before; None where it does not.

    ``rank`` has values by step (rows) and layer (columns), as ``by_layer`` gives. NaN, of a network that diverged, is lost.

    >>> values = pd.DataFrame({"early": [9.0, 3.0, 8.0], "late": [9.0, 4.0, 2.0]}, index=[10, 20, 30])
    >>> rank_lost(values)
    {'early': None, 'late': 20}
    """
    sound = (rank >= share * rank.cummax()).to_numpy()
    steps = rank.index.to_list()
    last = [int(np.flatnonzero(column).max(initial=-1)) for column in sound.T]
    return {
        str(layer): int(steps[position + 1]) if position + 1 < len(steps) else None
        for layer, position in zip(rank, last, strict=True)
    }


def _mesh(drawn: Figure, axes: Axes, values: pd.DataFrame, title: str) -> None:
    """One row a layer, each value drawn from its step to the next."""
    axes.set_title(title)
    axes.set_xlabel("training step")
    if values.empty:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)
        return
    steps = values.index.to_numpy(float)
    width = steps[-1] - steps[-2] if len(steps) > 1 else 1.0
    edges = np.append(steps, steps[-1] + width)
    rows = np.arange(len(values.columns) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, values.to_numpy().T, vmin=0, vmax=1, cmap="cividis")
    axes.set_yticks(rows[:-1] + 0.5, labels=list(values.columns))
    axes.set_ylim(rows[-1], rows[0])
    drawn.colorbar(mesh, ax=axes, orientation="horizontal", shrink=0.8)
