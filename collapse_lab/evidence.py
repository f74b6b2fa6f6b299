"""Evidence for a verdict, a panel each: spectra, cosines and directions of features; curves and spectra of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from collapse_lab.plots import MARKED, SMALLEST
from collapse_lab.style import COLOURS, DASHES, GREY

LAYER = "projector"
ONSET = "#B34700"


class Panel(NamedTuple):
    """One picture: its title and the function that draws it."""

    title: str
    draw: Callable[[Axes], None]


class Cloud(NamedTuple):
    """What is drawn of features.

    Singular values (D,) of the unit rows over sqrt(N); some of the unit rows (n, D); and, of some rows and the farthest
    ones, the places (m, 2) along the two directions of most variance, with the shares that these hold.
    """

    spectrum: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    shares: list[float]


def cloud_panels(cloud: Cloud, reference: Cloud | None = None) -> tuple[Panel, ...]:
    """Spectrum, cosines between rows, and the two directions that vary most; the reference is drawn in grey."""
    return (
        Panel("Singular spectrum of u = z/‖z‖", partial(_draw_spectra, cloud, reference)),
        Panel("Cosine between two rows", partial(_draw_cosines, cloud, reference)),
        Panel("Rows along the two main directions", partial(_draw_directions, cloud)),
    )


def run_panels(table: pd.DataFrame, onset: tuple[int, int] | None, reference: pd.DataFrame | None) -> tuple[Panel, ...]:
    """Std ratio and RankMe of every layer against steps, train mode, and the projector's spectra; from ``metrics.csv``."""
    return (
        Panel("std of u times √d, train mode", partial(_draw_curves, table, "std_ratio", onset, reference)),
        Panel("RankMe of u, train mode", partial(_draw_curves, table, "rankme", onset, reference)),
        Panel("Spectrum of u, projector, test images", partial(_draw_recorded_spectra, table, reference)),
    )


def _draw_spectra(cloud: Cloud, reference: Cloud | None, axes: Axes) -> None:
    _power_laws(axes, len(cloud.spectrum))
    if reference is not None:
        _spectrum(axes, np.arange(1, len(reference.spectrum) + 1), reference.spectrum, GREY, "--", "reference")
    _spectrum(axes, np.arange(1, len(cloud.spectrum) + 1), cloud.spectrum, COLOURS[0], "-", "these features")
    if reference is not None:
        axes.legend()


def _spectrum(axes: Axes, ranks: np.ndarray, values: np.ndarray, colour: str, dashes: Any, label: str) -> None:
    marker = "o" if len(ranks) <= MARKED else ""
    axes.loglog(ranks, values.clip(SMALLEST), color=colour, ls=dashes, lw=1.8, marker=marker, ms=3, label=label)
    axes.set(xlabel="rank", ylabel="singular value / √N")
    if (values < SMALLEST).any():
        place = axes.get_yaxis_transform()
        axes.annotate("rounding, or 0", (1, SMALLEST), (0, 3), place, "offset points", ha="right", color=GREY, size=7)


def _power_laws(axes: Axes, dimension: int) -> None:
    """Spectra of unit rows whose second moment falls as rank^-alpha: what the bounds on RankMe are made of."""
    ranks = np.arange(1, dimension + 1.0)
    for alpha in (0, 1, 2, 3):
        values = np.sqrt(ranks**-alpha / (ranks**-alpha).sum())
        axes.loglog(ranks, values, color="#B0B0B0", ls=":", lw=1)
        axes.annotate(f"alpha {alpha}", (dimension, values[-1]), (2, 0), textcoords="offset points", color=GREY, size=7)


def _draw_cosines(cloud: Cloud, reference: Cloud | None, axes: Axes) -> None:
    shares, edges = _cosines(cloud.rows)
    axes.stairs(shares, edges, color=COLOURS[0], fill=True, label="these features")
    if reference is not None:
        axes.stairs(*_cosines(reference.rows), color="black", ls="--", label="reference")
    # Rows independent and uniform on the sphere: density (1 - t^2)^((d - 3) / 2).
    isotropic = (1 - ((edges[1:] + edges[:-1]) / 2) ** 2) ** ((cloud.rows.shape[1] - 3) / 2)
    axes.stairs(isotropic / isotropic.sum(), edges, color=GREY, ls=":", lw=1.4, label="isotropic")
    # Room for the legend above the bars, which can stand at either end.
    axes.set(xlabel="cosine", ylabel="share of pairs", xlim=(-1.05, 1.05), ylim=(0, 1.35 * axes.dataLim.ymax))
    axes.legend(loc="upper left", handlelength=1.5)


def _cosines(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the pairs of different rows, each pair once, in 80 bins, and the bins' edges."""
    first, second = np.triu_indices(len(rows), 1)
    counts, edges = np.histogram((rows @ rows.T)[first, second].clip(-1, 1), 80, (-1, 1))
    return counts / max(len(first), 1), edges


def _draw_directions(cloud: Cloud, axes: Axes) -> None:
    # One channel has no second direction.
    places, (first, second) = np.pad(cloud.places, ((0, 0), (0, 1)))[:, :2], (*cloud.shares, 0.0)[:2]
    axes.plot(*places.T, ".", color=COLOURS[0], ms=5, alpha=0.6, mew=0)
    reach = 1.08 * max(float(np.abs(places).max()), 1e-6)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel=f"first, {first:.1%} of the variance")
    axes.set_ylabel(f"second, {second:.1%}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(StrMethodFormatter("{x:.2g}"))


def _draw_curves(
    table: pd.DataFrame, metric: str, onset: tuple[int, int] | None, reference: pd.DataFrame | None, axes: Axes
) -> None:
    for number, (layer, curve) in enumerate(_rows(table, "train", metric).groupby("layer", sort=False)):
        marker = "o" if len(curve) <= MARKED else ""
        colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        axes.plot(curve["step"], curve["value"], color=colour, ls=dashes, marker=marker, ms=3, label=str(layer))
    if reference is not None:
        good = _rows(reference, "train", metric, LAYER)
        axes.plot(good["step"], good["value"], color=GREY, ls=":", lw=2, label=f"reference, {LAYER}")
    if onset is not None:
        axes.axvspan(*onset, color=ONSET, alpha=0.2, lw=0, label="onset")
    axes.set_xlabel("training step")
    if axes.lines:
        values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
        # Room for the legend above the curves; a run that diverged recorded NaN.
        axes.set_ylim(0, 1.4 * values[np.isfinite(values)].max(initial=1e-6))
        axes.legend(loc="upper left", ncols=2, handlelength=2, columnspacing=1.2, fontsize=8)


def _draw_recorded_spectra(table: pd.DataFrame, reference: pd.DataFrame | None, axes: Axes) -> None:
    rows = _rows(table, "eval", "spectrum", LAYER)
    if rows.empty:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)
        return
    _power_laws(axes, int(rows["index"].max()))
    if reference is not None and not (good := _rows(reference, "eval", "spectrum", LAYER)).empty:
        _draw_step(axes, good, good["step"].max(), GREY, ":", "reference, ")
    _draw_step(axes, rows, rows["step"].min(), COLOURS[4], "-.")
    _draw_step(axes, rows, rows["step"].max(), COLOURS[0], "-")
    axes.legend()


def _draw_step(axes: Axes, rows: pd.DataFrame, step: int, colour: str, dashes: str, prefix: str = "") -> None:
    one = rows[rows["step"] == step]
    _spectrum(axes, one["index"].to_numpy(), one["value"].to_numpy(), colour, dashes, f"{prefix}step {step}")


def _rows(table: pd.DataFrame, source: str, metric: str, layer: str | None = None) -> pd.DataFrame:
    found = table[(table["source"] == source) & (table["metric"] == metric)]
    return found if layer is None else found[found["layer"] == layer]
