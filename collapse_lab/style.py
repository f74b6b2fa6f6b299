"""How every figure looks, and how it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from collapse_lab.errors import InputError

# Okabe and Ito (2008), told apart by the colour-blind; with the line styles, in black and white too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
GREY = "#595959"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "legend.title_fontsize": 10,
    "axes.xmargin": 0.02,
    "pdf.fonttype": 42,
}
DPI = 160
THICK = 1.7


def save(drawn: Figure, stem: Path) -> list[Path]:
    """Write one figure as ``stem.png`` and ``stem.pdf``, without a date."""
    metadata = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(STYLE):
            for suffix, entries in metadata.items():
                drawn.savefig(stem.with_name(stem.name + suffix), dpi=DPI, metadata=entries)
    except OSError as error:
        raise InputError(f"output directory '{stem.parent}' cannot be written: {error.strerror}") from None
    return [stem.with_name(stem.name + suffix) for suffix in metadata]
