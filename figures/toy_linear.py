"""Eigenvalues and alignment of eigenspaces in DirectPred's linear networks, by how the predictor is found.

python figures/toy_linear.py
"""

from __future__ import annotations

from functools import partial

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_lab.style import GREY, STYLE
from collapse_lab.toy import draw_linear
from collapse_lab.toy.linear import Linear, direct_copy, direct_pred, flow
from collapse_lab.toy.modes import fixed_points
from collapse_lab.toy.report import publish
from collapse_lab.toy.reports_linear import drawn, linear_table

DIM, NOISE2, DECAY = 6, 0.2, 0.03
ISOTROPIC = partial(Linear, np.eye(DIM), NOISE2 * np.eye(DIM), weight_decay=DECAY)
SYSTEMS = {
    "trained predictor": ISOTROPIC(),
    "trained, EMA target (b = 0.5)": ISOTROPIC(ema_rate=0.5),
    "DirectPred, ε = 0.1": ISOTROPIC(predictor_of=direct_pred(0.1)),
    "DirectCopy, ε = 0.1": ISOTROPIC(predictor_of=direct_copy(0.1)),
    "trained, no stop-gradient": ISOTROPIC(variant="both-terms"),
}
ROWS = {"p": "p, predictor", "s": "s = uᵀFu, encoder", "alignment": "alignment"}


def record() -> pd.DataFrame:
    """system, time, mode, p, s, alignment, commutator: one start of seed 0 for all."""
    times, start = np.linspace(0, 60, 201), drawn(DIM, 0.7, 0)
    parts = [linear_table(system, flow(system, *start, times)).assign(system=name) for name, system in SYSTEMS.items()]
    return pd.concat(parts, ignore_index=True)


def figure(table: pd.DataFrame) -> Figure:
    """A column a system, a row a measure, a line a mode; dotted: p_+ and p_+^2."""
    high = float(fixed_points(DECAY, NOISE2)[1])
    with matplotlib.rc_context(STYLE):
        canvas = Figure((11.0, 6.0), layout="constrained")
        grid = canvas.subplots(len(ROWS), len(SYSTEMS), sharex=True, sharey="row")
        for column, name in zip(grid.T, SYSTEMS, strict=True):
            rows = table[table["system"] == name]
            # Of a dead mode the alignment is rounding.
            rows = rows.assign(alignment=rows["alignment"].where(rows["s"] > 1e-9))
            for axes, (measure, title), limit in zip(column, ROWS.items(), (high, high**2, None), strict=True):
                draw_linear.by_mode(axes, rows, measure)
                axes.set_ylabel(title)
                axes.label_outer()
                if limit is not None and name != "trained, no stop-gradient":
                    axes.axhline(limit, color=GREY, ls=":", lw=1.0)
            column[0].set_title(name)
            column[-1].set_xlabel("time, 1 / learning rate")
        grid[1][0].set_ylim(-0.02, 1.2)
    return canvas


if __name__ == "__main__":
    publish("toy_linear", record, figure)
