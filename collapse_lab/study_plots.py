"""The figure of one study: arms down the side, a panel a measure, a dot a seed; drawn from the summary, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from collapse_lab.plots import curves
from collapse_lab.records import Records, arm
from collapse_lab.style import COLOURS, GREY, STYLE, save

# Colour and marker of a seed's verdict, told apart in black and white too.
LOOKS = {
    "healthy": (COLOURS[0], "o"),
    "complete-collapse": (COLOURS[1], "v"),
    "dimensional-collapse": (COLOURS[5], "D"),
    "outlier-collapse": (COLOURS[3], "s"),
}
OTHER = ("black", "X")
# A measure whose largest value is so many times its smallest is drawn on a logarithmic axis.
SPREAD = 20.0
# Seeds of an arm stand one above the other in this share of its row.
SHARE = 0.5
# Inches: the width, the height of an arm's row, and what heading, axes and legend take.
WIDTH, ROW, AROUND = 9.0, 0.27, 1.5
SMALL = 8


class Panel(NamedTuple):
    """One measure: its title, its name in the summary, that of its start, its factor; whether its axis starts at 0."""

    title: str
    name: str
    start: str = ""
    scale: float = 1.0
    from_zero: bool = False


PANELS = (
    Panel("std ratio of z", "std_ratio", from_zero=True),
    Panel("RankMe of z", "rankme", from_zero=True),
    Panel("linear probe, %", "linear", "linear_start", 100.0),
    Panel("kNN, %", "knn", "knn_start", 100.0),
)


def figure(summary: dict[str, Any]) -> Figure:
    """Std ratio, RankMe, linear probe and kNN of every arm of a study: a mark a seed, a bar the mean, a tick each start."""
    arms = summary["arms"]
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x", "ytick.left": False, "axes.xmargin": 0.06}):
        drawn = Figure((WIDTH, AROUND + ROW * len(arms)), layout="constrained")
        panels = drawn.subplots(1, len(PANELS), sharey=True)
        for axes, panel in zip(panels, PANELS, strict=True):
            _draw(axes, panel, list(arms.values()))
            _baseline(axes, panel, summary["protocol"]["pixels"])
        panels[0].set_yticks(range(len(arms)), [_label(label, found) for label, found in arms.items()], fontsize=SMALL)
        panels[0].set_ylim(len(arms) - 0.5, -0.5)
        drawn.legend(handles=_legend(arms.values()), loc="outside lower center", ncols=4, fontsize=SMALL)
        drawn.suptitle(heading(summary), fontsize=10)
    return drawn


def heading(summary: dict[str, Any]) -> str:
    """The study, its data and the number of seeds."""
    seeds = max(len(found["runs"]) for found in summary["arms"].values())
    return f"{summary['study']}: {summary['protocol']['data']}, {seeds} seed{'s' * (seeds > 1)} an arm"


def draw(summary: dict[str, Any], runs: Path, out: Path, *, course: bool = False) -> list[Path]:
    """Write ``figure`` of a summary as PNG and PDF into a directory; with ``course`` also the curves of its ``runs``.

    Equal records give equal bytes. Raises ``InputError`` where the directory cannot be written or a table is damaged.
    """
    written = save(figure(summary), out / "figure")
    if course:
        arms = {
            label: arm(runs / found["directory"], found["seeds"], found["failed"])
            for label, found in summary["arms"].items()
            if found["seeds"]
        }
        written += (
            save(curves(Records(out, summary["protocol"], arms), heading(summary)), out / "curves") if arms else []
        )
    return written


def _draw(axes: Axes, panel: Panel, arms: Sequence[dict[str, Any]]) -> None:
    for row, found in enumerate(arms):
        if row % 2 == 0:
            axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", lw=0, zorder=0)
        verdicts = {run["seed"]: run["verdict"] for run in found["runs"]}
        offsets = _offsets(len(found["seeds"]))
        starts = found[panel.start]["values"] if panel.start else [None] * len(offsets)
        for seed, offset, value, start in zip(
            found["seeds"], offsets, found[panel.name]["values"], starts, strict=True
        ):
            colour, marker = LOOKS.get(verdicts[seed], OTHER)
            if start is not None:
                axes.plot(panel.scale * start, row + offset, "|", color=GREY, ms=5, mew=1.0)
            if value is not None:
                axes.plot(panel.scale * value, row + offset, marker, color=colour, ms=3.6, mew=0, zorder=3)
        mean = found[panel.name]["mean"]
        if mean is not None:
            axes.plot([panel.scale * mean] * 2, [row - 0.38, row + 0.38], color="black", lw=1.1, zorder=2)
    _scale(
        axes, [value for found in arms for value in found[panel.name]["values"] if value is not None], panel.from_zero
    )
    axes.set_title(panel.title)
    axes.tick_params(labelsize=SMALL)


def _scale(axes: Axes, values: Sequence[float], from_zero: bool) -> None:
    """A logarithmic axis where the values spread that far."""
    if values and min(values) > 0 and max(values) / min(values) > SPREAD:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if from_zero:
            axes.set_xlim(0, 1.06 * max(values, default=1.0))


def _offsets(count: int) -> list[float]:
    """Places of the seeds within a row of height 1 around 0.

    >>> _offsets(1), _offsets(3)
    ([0.0], [-0.25, 0.0, 0.25])
    """
    return [SHARE * (place / (count - 1) - 0.5) if count > 1 else 0.0 for place in range(count)]


def _baseline(axes: Axes, panel: Panel, pixels: dict[str, float | None]) -> None:
    value = pixels.get(panel.name)
    if value is not None:
        axes.axvline(panel.scale * value, color=GREY, ls=":", lw=1.1)


def _label(label: str, found: dict[str, Any]) -> str:
    """The arm with how many of its seeds did not finish."""
    short = len(found["runs"]) - len(found["seeds"])
    states = {run["verdict"] or run["state"] for run in found["runs"] if run["state"] != "done"}
    return f"{label} ({short} {', '.join(sorted(states))})" if short else label


def _legend(arms: Iterable[dict[str, Any]]) -> list[Line2D]:
    """Marks of the verdicts that were given, then those of means, starts and raw pixels."""
    given = {run["verdict"] for found in arms for run in found["runs"] if run["seed"] in found["seeds"]}
    looks = {kind: LOOKS[kind] for kind in LOOKS if kind in given}
    looks |= {str(kind): OTHER for kind in sorted(given - LOOKS.keys(), key=str)}
    marks = [
        Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=kind) for kind, (colour, marker) in looks.items()
    ]
    return [
        *marks,
        Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.1, label="mean"),
        Line2D([], [], color=GREY, marker="|", ls="", ms=5, mew=1.0, label="start, BatchNorm calibrated"),
        Line2D([], [], color=GREY, ls=":", label="raw pixels"),
    ]
