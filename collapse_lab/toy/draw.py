"""Figures of the scalar toy, drawn from recorded tables; vector field and boundaries come from their formulae."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from collapse_lab.style import COLOURS, DASHES, GREY, STYLE, THICK
from collapse_lab.toy.basin import boundary
from collapse_lab.toy.fate import FATES
from collapse_lab.toy.scalar import Scalar, conserved, field, growth_roots, has_first_integral

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
# Collapsed dark, living light: the map reads in black and white too.
FATE_COLOURS = ("#FFFFFF", "#7A7A7A", "#CFE6F5", "#E69F00")


def scalar(table: pd.DataFrame, system: Scalar, verdict: str) -> Figure:
    """A trajectory (time, phi, theta, loss, conserved) over time and in the phase plane."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.6, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        courses(left, table)
        left.set_title(f"{system.variant}: {verdict}")
        portrait(right, system, window(table))
        path(right, table)
        if "flow_phi" in table:
            right.plot(table["flow_phi"], table["flow_theta"], color="black", ls=":", lw=1.2, label="the flow")
        right.set_title(described(system))
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7)
    return figure


def described(system: Scalar) -> str:
    """The numbers of a system, for a title."""
    s2, a, e = (float(value) for value in system.numbers)
    return f"noise {s2:g}, predictor rate {a:g}, weight decay {e:g}"


def courses(axes: Axes, table: pd.DataFrame) -> None:
    """phi and theta against time, beside the flow where a descent has recorded it."""
    axes.plot(table["time"], table["phi"], color=BLUE, ls=DASHES[0], lw=THICK, label="φ, predictor")
    axes.plot(table["time"], table["theta"], color=ORANGE, ls=DASHES[1], lw=THICK, label="θ, encoder")
    for column in ("flow_phi", "flow_theta"):
        if column in table:
            label = "the flow" if column == "flow_phi" else None
            axes.plot(table["time"], table[column], color="black", ls=":", lw=1.0, label=label)
    axes.set_xlabel("time, 1 / learning rate")
    axes.legend(loc="best")


def window(table: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of phi and theta that hold the trajectory, the axis theta = 0 and phi = 1, with a margin."""
    phi, theta = table["phi"].clip(-50, 50), table["theta"].clip(-50, 50)
    low, high = min(float(phi.min()), 0.0), max(float(phi.max()), 1.0)
    bottom, top = min(float(theta.min()), 0.0), max(float(theta.max()), 0.25)
    wide, tall = 0.15 * (high - low), 0.12 * (top - bottom)
    return (low - wide, high + wide), (bottom - tall, top + tall)


def portrait(axes: Axes, system: Scalar, limits: tuple[tuple[float, float], tuple[float, float]]) -> None:
    """Streamlines, nullclines, curves of the conserved quantity and the boundary of the basin of collapse."""
    phi, theta = np.meshgrid(np.linspace(*limits[0], 121), np.linspace(*limits[1], 121))
    dphi, dtheta = field(system, phi, theta)
    axes.streamplot(phi, theta, dphi, dtheta, color="#BDBDBD", linewidth=0.6, density=0.9, arrowsize=0.6)
    if has_first_integral(system) and not np.any(np.asarray(system.weight_decay) > 0):
        value = np.ma.masked_invalid(conserved(system, phi, theta))
        levels = np.unique(np.quantile(value.compressed(), np.linspace(0.1, 0.9, 7)))
        axes.contour(phi, theta, value, levels, colors=GREEN, linewidths=0.5, linestyles=":")
        axes.plot([], [], color=GREEN, lw=0.8, ls=":", label="conserved")
    nullclines(axes, system, limits[0])
    edge(axes, system, limits[0])
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    axes.set_xlabel("φ, predictor")
    axes.set_ylabel("θ, encoder")
    axes.grid(False)


def nullclines(axes: Axes, system: Scalar, limits: tuple[float, float]) -> None:
    """The lines of rest from their formulae: a velocity may touch zero there without changing its sign.

    phi rests where ``a theta^2 (1 - q phi) = e phi``, nowhere in particular where it is frozen; theta where it is 0 or
    its growth is.
    """
    s2, a, e = (float(value) for value in system.numbers)
    q = 1 + s2
    rest: dict[str, Any] = {"color": BLUE, "lw": 1.0, "ls": "--"}
    encoder: dict[str, Any] = {"color": PINK, "lw": 1.0, "ls": "-."}
    if a > 0 and e == 0:
        axes.axvline(1 / q, **rest)
        axes.axhline(0.0, **rest)
    elif a > 0:
        phi = np.linspace(0, min(1 / q, limits[1]), 2001)[:-1]
        theta = np.sqrt(e * phi / (a * (1 - q * phi)))
        axes.plot(np.concatenate([phi[::-1], phi]), np.concatenate([-theta[::-1], theta]), **rest)
    axes.axhline(0.0, **encoder)
    for phi_at_rest in growth_roots(system):
        axes.axvline(phi_at_rest, **encoder)
    axes.plot([], [], label="dφ/dt = 0", **rest)
    axes.plot([], [], label="dθ/dt = 0", **encoder)


def edge(axes: Axes, system: Scalar, limits: tuple[float, float]) -> None:
    """The exact boundary of the basin of collapse, on both sides of theta = 0."""
    if np.asarray(system.rate) == 0:
        return
    phi = np.linspace(*limits, 1001)
    height = boundary(system, phi)
    shown = np.where(np.isfinite(height), height, np.nan)
    for sign, label in ((1, "boundary of collapse"), (-1, None)):
        axes.plot(phi, sign * shown, color="black", lw=1.3, label=label if np.isfinite(height).any() else None)


def path(axes: Axes, table: pd.DataFrame, **line: Any) -> None:
    """A trajectory in the phase plane with its start and its end marked."""
    given: dict[str, Any] = {"color": ORANGE, "lw": 2.0, "label": "trajectory", **line}
    axes.plot(table["phi"], table["theta"], **given)
    axes.plot(table["phi"].iloc[0], table["theta"].iloc[0], "o", ms=6, mfc="white", mec=given["color"], mew=1.5)
    axes.plot(table["phi"].iloc[-1], table["theta"].iloc[-1], "o", ms=5, color=given["color"])


def basin(table: pd.DataFrame, system: Scalar) -> Figure:
    """The map of fates over the plane of starts (phi, theta, fate), the exact boundary over it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((4.6, 3.8), layout="constrained")
        axes = figure.subplots()
        fate_map(axes, table, system)
        axes.set_title(f"{system.variant}: {(table['fate'] == 1).mean():.1%} collapses\n{described(system)}")
        fate_legend(figure, axes)
    return figure


def fate_map(axes: Axes, table: pd.DataFrame, system: Scalar) -> None:
    """One colour a fate, from a table with one row a start of a rectangular grid, and the exact boundary."""
    grid = table.pivot(index="theta", columns="phi", values="fate")
    phi, theta = grid.columns.to_numpy(dtype=float), grid.index.to_numpy(dtype=float)
    colours = ListedColormap(list(FATE_COLOURS))
    axes.pcolormesh(phi, theta, grid.to_numpy(), cmap=colours, vmin=-0.5, vmax=3.5, rasterized=True, shading="nearest")
    edge(axes, system, (float(phi[0]), float(phi[-1])))
    axes.set_xlim(phi[0], phi[-1])
    axes.set_ylim(theta[0], theta[-1])
    axes.set_xlabel("φ at the start")
    axes.set_ylabel("θ at the start")
    axes.grid(False)


def fate_legend(figure: Figure, axes: Axes) -> None:
    """Below the maps a patch for each fate but divergence, which starts with a live predictor do not know."""
    for name, colour in list(zip(FATES, FATE_COLOURS, strict=True))[:3]:
        axes.plot([], [], "s", color=colour, mec=GREY, ms=7, label=name)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7)
