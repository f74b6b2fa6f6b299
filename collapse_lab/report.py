"""The page that goes with a verdict: what was judged, the evidence in three panels, and every vote with its bound."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from collapse_lab.errors import InputError
from collapse_lab.plots import COLOURS, DASHES, DPI, GREY, MARKED, SMALLEST, STYLE

LAYER = "projector"
SUFFIXES = (".png", ".pdf", ".svg")
GOOD, BAD, OPEN = "#00734F", "#B34700", "#595959"
MEANINGS = {
    "healthy": "rows differ, and in many directions",
    "complete-collapse": "nearly the same output for every input",
    "dimensional-collapse": "outputs differ, but only in a few directions",
    "outlier-collapse": "a few rows or clusters carry the variance; the rest are nearly equal",
    "not-learning": "no collapse, but nothing is learned either",
    "unstable": "values jump from reading to reading",
    "diverged": "values are not finite",
    "insufficient-data": "too few rows to tell how many directions there are",
    "unknown": "no bound decides; compare with a run of your own that went well",
}
COLUMNS = {"measure": 0.0, "value": 0.16, "says": 0.235, "bound": 0.32, "where the bound comes from": 0.61}


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
        Panel("Singular spectrum of u, projector, test images", partial(_draw_recorded_spectra, table, reference)),
    )


def write(out: Path, document: dict[str, Any], panels: tuple[Panel, ...]) -> Path:
    """Draw a diagnosis to the file ``out``, or to ``report.png`` in the directory ``out``; returns the file.

    Raises ``InputError`` where the file cannot be written or has the name of another kind of file.
    """
    if out.suffix and out.suffix.lower() not in SUFFIXES and not out.is_dir():
        raise InputError(f"--out: found '{out}'; expected a directory or a file ending in {', '.join(SUFFIXES)}")
    path = out if out.suffix.lower() in SUFFIXES and not out.is_dir() else out / "report.png"
    drawn = page(document, panels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(STYLE):
            drawn.savefig(path, dpi=DPI)
    except OSError as error:
        raise InputError(f"--out: '{path}' cannot be written: {error.strerror}") from None
    return path


def page(document: dict[str, Any], panels: tuple[Panel, ...]) -> Figure:
    """The page of a diagnosis in plain values, as ``Diagnosis.document`` gives them."""
    notes = [line for note in _notes(document) for line in textwrap.wrap(note, 150)]
    votes = [_cells(vote) for vote in document["votes"]]
    lines = 2 + sum(max(len(text) for text in row) for row in votes) + len(notes)
    with matplotlib.rc_context(STYLE):
        drawn = Figure((10, 4.6 + 0.19 * lines), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
        grid = drawn.add_gridspec(2, len(panels), height_ratios=(3.6, 0.19 * lines))
        for column, panel in enumerate(panels):
            axes = drawn.add_subplot(grid[0, column])
            panel.draw(axes)
            axes.set_title(panel.title)
        _draw_votes(drawn.add_subplot(grid[1, :]), votes, notes, lines)
        _head(drawn, document)
    return drawn


def _notes(document: dict[str, Any]) -> list[str]:
    notes = [f"Note: {note}" for note in document["notes"]]
    if not document["onset"]:
        return notes
    first = f"; {document['first_tap']} fell first" if document["first_tap"] else ""
    return ["It began between steps {} and {}".format(*document["onset"]) + first, *notes]


def _head(drawn: Figure, document: dict[str, Any]) -> None:
    kind = document["verdict"]
    severity = document["severity"]
    told = "" if severity is None else f", severity {severity:.2f}"
    drawn.suptitle(f"{kind}{told}: {MEANINGS[kind]}\n ", fontsize=13, color=_colour(kind), ha="left", x=0.01)
    drawn.text(0.01, 0.99 - 0.3 / drawn.get_figheight(), document["what"], fontsize=9, color=GREY, va="top")


def _colour(kind: str) -> str:
    return {"healthy": GOOD, "insufficient-data": OPEN, "unknown": OPEN}.get(kind, BAD)


def _cells(vote: dict[str, Any]) -> list[list[str]]:
    """The lines of each cell of one vote's row."""
    value = "not finite" if vote["value"] is None else f"{vote['value']:.4g}"
    says = {"between": "-"}.get(vote["says"], vote["says"])
    return [[vote["measure"]], [value], [says], textwrap.wrap(vote["bound"], 48), textwrap.wrap(vote["origin"], 52)]


def _draw_votes(axes: Axes, votes: list[list[list[str]]], notes: list[str], lines: int) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(lines, 0))
    for title, left in COLUMNS.items():
        axes.text(left, 0.5, title, color=GREY, va="center")
    axes.axhline(1, color=GREY, lw=0.6)
    line = 1
    for row in votes:
        for left, texts in zip(COLUMNS.values(), row, strict=True):
            colour = {"collapse": BAD, "healthy": GOOD}.get(texts[0] if texts else "", "black")
            for offset, text in enumerate(texts):
                axes.text(left, line + offset + 0.5, text, color=colour, va="center")
        line += max(len(texts) for texts in row)
    for offset, note in enumerate(notes):
        axes.text(0, line + offset + 0.8, note, va="center")


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
        axes.axvspan(*onset, color=BAD, alpha=0.2, lw=0, label="onset")
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
