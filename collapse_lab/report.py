"""The page that goes with a verdict: what was judged, its evidence panel by panel, and every vote with its bound."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from collapse_lab.errors import InputError
from collapse_lab.evidence import Panel
from collapse_lab.style import DPI, GREY, STYLE

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
        grid = drawn.add_gridspec(2, max(len(panels), 1), height_ratios=(3.6, 0.19 * lines))
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
