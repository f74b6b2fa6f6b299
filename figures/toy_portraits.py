"""Phase portraits of the three variants: nullclines, conserved curves, the boundary of collapse, six starts.

python figures/toy_portraits.py
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_lab.style import COLOURS, STYLE
from collapse_lab.toy import draw
from collapse_lab.toy.report import publish
from collapse_lab.toy.rule import VARIANTS
from collapse_lab.toy.scalar import Scalar, flow

STARTS = ((0.6, 0.1), (1.4, 0.1), (1.05, 0.5), (-0.5, 0.1), (-0.1, 0.5), (0.6, 0.5))
LIMITS = ((-0.75, 1.75), (-0.1, 1.25))


def record() -> pd.DataFrame:
    """variant, start, time, phi, theta."""
    times = np.concatenate([np.linspace(0, 20, 201), np.geomspace(21, 500, 60)])
    phi, theta = np.array(STARTS).T
    parts = []
    for name in VARIANTS:
        states = flow(Scalar(name), phi, theta, times).states
        for start in range(len(STARTS)):
            columns = {"time": times, "phi": states[:, 0, start], "theta": states[:, 1, start]}
            parts.append(pd.DataFrame({"variant": name, "start": start, **columns}))
    return pd.concat(parts, ignore_index=True)


def figure(table: pd.DataFrame) -> Figure:
    """A panel a variant; the blog's start in orange, the others in purple."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure((9.6, 3.9), layout="constrained")
        for axes, name in zip(drawn.subplots(1, 3, sharey=True), VARIANTS, strict=True):
            draw.portrait(axes, Scalar(name), LIMITS)
            for start, rows in table[table["variant"] == name].groupby("start"):
                blog = start == 0
                look = {"color": COLOURS[1] if blog else "#6A3D9A", "lw": 2.2 if blog else 1.4}
                draw.path(axes, rows, **look, label="from the blog's start" if blog else None)
            axes.set_title(name)
            axes.label_outer()
        handles, labels = axes.get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return drawn


if __name__ == "__main__":
    publish("toy_portraits", record, figure)
