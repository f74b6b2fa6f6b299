"""Figures of a study, drawn from its recorded tables alone: no live object, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from collapse_lab.errors import InputError
from collapse_lab.records import Arm, Records, read
from collapse_lab.style import COLOURS, DASHES, GREY, STYLE, THICK, save

# Curves of no more readings show each of them.
MARKED = 30
# Letters that fit side by side in a legend.
FULL = 84
# Smaller singular values are the rounding of float32 features.
SMALLEST = 1e-7
NOTE = "Thick lines: mean over seeds. Thin lines: every seed. Bands: lowest to highest seed."


class Panel(NamedTuple):
    """One metric against steps: its title, which rows, and what is drawn beside the curves."""

    title: Callable[[Records], str]
    source: str
    layer: str
    metric: str
    finish: Callable[[Axes, Records], None]


def figure(study: Path) -> Figure:
    """Loss, std ratio, RankMe and kNN accuracy against steps: every arm and every seed of a study directory.

    Raises ``InputError`` as ``records.read`` does.
    """
    records = read(study)
    return curves(records, title(records))


def curves(records: Records, heading: str) -> Figure:
    """The same four panels for records that are at hand, under a heading."""
    labels = {name: f"{name}, {arm.number}" for name, arm in records.arms.items()}
    rows = -(-len(labels) // _columns(labels.values()))
    with matplotlib.rc_context(STYLE):
        drawn = Figure((7.2, 5.8 + 0.2 * max(0, rows - 2)), layout="constrained")
        for axes, panel in zip(drawn.subplots(2, 2, sharex=True).flat, PANELS, strict=True):
            draw_panel(axes, records, panel)
            axes.set_title(panel.title(records))
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("training step")
        frame(drawn, heading, labels)
    return drawn


def spectra(study: Path) -> Figure:
    """Singular spectrum of z at the start and at the end, an arm a panel: eval mode, test images.

    Means over seeds are geometric. Raises ``InputError`` as ``records.read`` does, and where no spectrum was recorded.
    """
    records = read(study)
    if records.dimension is None:
        raise InputError(f"study '{study}' has no spectra of the projector in its tables; run compare again")
    columns = min(len(records.arms), 3)
    rows = -(-len(records.arms) // columns)
    with matplotlib.rc_context(STYLE):
        drawn = Figure((max(3.2 * columns, 5.2), 2.6 * rows + 1.0), layout="constrained")
        grid = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(records.arms) :]:
            axes.remove()
        for axes, (name, arm) in zip(grid.flat, records.arms.items(), strict=False):
            _draw_spectra(axes, arm, *_line(records.arms, name))
            axes.set_title(f"{name}, {arm.number}")
            axes.set_xlabel("rank")
            axes.tick_params(labelbottom=True)
        what = "singular values of z/‖z‖ over √N, test images, eval mode"
        drawn.suptitle(f"{title(records)}\n{what}", fontsize=10)
        note = f"{NOTE}\nMeans are geometric. Values below 10⁻⁷, which are rounding, are drawn at 10⁻⁷."
        drawn.supxlabel(note, fontsize=8, color=GREY)
    return drawn


def draw(study: Path, out: Path) -> list[Path]:
    """Write ``figure`` and ``spectra`` of a study as PNG and PDF into a directory; equal records give equal bytes.

    Raises ``InputError`` where the records cannot be read or the directory cannot be written.
    """
    figures = {"figure": figure(study), "spectra": spectra(study)}
    return [path for name, drawn in figures.items() for path in save(drawn, out / name)]


def draw_panel(axes: Axes, records: Records, panel: Panel) -> None:
    """The curves of every arm: mean over the finished seeds that have the step, every seed, range over seeds."""
    for name, arm in records.arms.items():
        curves = arm.curves(panel.source, panel.layer, panel.metric)
        if curves.empty:
            continue
        colour, dashes = _line(records.arms, name)
        marker = "o" if len(curves) <= MARKED else ""
        _draw_seeds(axes, curves, arm.finished(curves).mean(axis=1), colour, ls=dashes, marker=marker, ms=3)
    if not axes.lines:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)
    panel.finish(axes, records)


def frame(drawn: Figure, heading: str, labels: dict[str, str]) -> None:
    """The heading of a figure of curves, its legend with a label for each arm, and how means and bands were made."""
    handles = []
    for name, label in labels.items():
        colour, dashes = _line(labels, name)
        handles.append(Line2D([], [], color=colour, ls=dashes, lw=THICK, label=label))
    # As the title of the legend, since a title of the figure would be laid out over it.
    drawn.legend(handles=handles, loc="outside upper center", ncols=_columns(labels.values()), title=heading)
    drawn.supxlabel(NOTE, fontsize=8, color=GREY)


def _columns(labels: Iterable[str]) -> int:
    """Columns of a legend that are not wider than the figure."""
    lengths = [len(label) for label in labels]
    return min(len(lengths), max(1, FULL // max(lengths)))


def title(records: Records) -> str:
    """The data set and the head, for a heading."""
    return "; ".join(filter(None, (records.data, records.head)))


def _line(arms: Iterable[str], name: str) -> tuple[str, Any]:
    """Colour and dashes of an arm, by its place among all."""
    position = list(arms).index(name)
    return COLOURS[position % len(COLOURS)], DASHES[position % len(DASHES)]


def _draw_spectra(axes: Axes, arm: Arm, colour: str, dashes: Any) -> None:
    rows = arm.rows("eval", "projector", "spectrum")
    steps = rows.groupby("seed")["step"]
    ends = (("start", steps.transform("min"), GREY, ":"), ("end", steps.transform("max"), colour, dashes))
    for label, step, shade, style in ends:
        at = rows[rows["step"] == step]
        values = at.pivot(index="index", columns="seed", values="value").clip(lower=SMALLEST)
        mean = np.exp(np.log(arm.finished(values)).mean(axis=1))
        _draw_seeds(axes, values, mean, shade, ls=style, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis)
    axes.legend(loc="lower left")


def _draw_seeds(axes: Axes, by_seed: pd.DataFrame, mean: pd.Series[float], colour: str, **line: Any) -> None:
    if by_seed.shape[1] > 1 or mean.isna().all():
        low, high = by_seed.min(axis=1), by_seed.max(axis=1)
        axes.fill_between(by_seed.index.to_numpy(), low, high, color=colour, alpha=0.18, lw=0)
        for seed in by_seed:
            axes.plot(by_seed[seed].dropna(), color=colour, lw=0.5, alpha=0.7)
    axes.plot(mean.dropna(), color=colour, lw=THICK, **line)


def _finish_loss(axes: Axes, records: Records) -> None:
    if records.setting("objective", "loss") == "negative-cosine":
        axes.set_ylim(bottom=-1.03)


def _finish_std_ratio(axes: Axes, records: Records) -> None:
    axes.set_ylim(0, 1.13)
    _reference(axes, 1, "std = 1/√d")


def _finish_rankme(axes: Axes, records: Records) -> None:
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis)
    if records.dimension is not None:
        axes.set_ylim(0.93, 1.5 * records.dimension)
        _reference(axes, records.dimension, f"d = {records.dimension}")


def _finish_knn(axes: Axes, records: Records) -> None:
    pixels = (records.protocol.get("pixels") or {}).get("knn")
    if pixels is not None:
        _reference(axes, pixels, "raw pixels")
        axes.margins(y=0.1)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")


def _plain_ticks(axis: Axis) -> None:
    """Ticks 1, 2, 5, 10 ... in plain numbers on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _reference(axes: Axes, value: float, text: str) -> None:
    """A dotted line at a value, its name at the right end, on the side that the curves leave free."""
    axes.axhline(value, color=GREY, ls=":", lw=1.2)
    low, high = axes.get_ylim()
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines[:-1]]
    ends = [values[-1] for values in drawn if values.size]
    above = not any(value <= end < value + 0.1 * (high - low) for end in ends)
    axes.annotate(
        text,
        (1, value),
        (0, 2 if above else -2),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=GREY,
    )


def _loss_title(records: Records) -> str:
    return f"Loss, {str(records.setting('objective', 'loss') or 'train mode').replace('-', ' ')}"


def _knn_title(records: Records) -> str:
    k, temperature = records.setting("monitor", "k"), records.setting("monitor", "temperature")
    return "kNN accuracy, backbone" + (f", k = {k}, T = {temperature:g}" if k else "")


PANELS = (
    Panel(_loss_title, "train", "", "loss", _finish_loss),
    Panel(lambda _: "std of z/‖z‖, times √d, train mode", "train", "projector", "std_ratio", _finish_std_ratio),
    Panel(lambda _: "RankMe of z, train mode", "train", "projector", "rankme", _finish_rankme),
    Panel(_knn_title, "probe", "backbone", "knn", _finish_knn),
)
