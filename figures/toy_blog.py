"""Su Jianlin's two plots (2020, archives/7980) and the third variant: phi, theta and the loss from (0.6, 0.1).

python figures/toy_blog.py
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_lab.style import GREY, STYLE
from collapse_lab.toy import draw
from collapse_lab.toy.closed import end_state
from collapse_lab.toy.report import publish
from collapse_lab.toy.reports import scalar_table
from collapse_lab.toy.rule import VARIANTS
from collapse_lab.toy.scalar import Scalar, flow

TITLES = {
    "stop-gradient": "stop-gradient",
    "both-terms": "both terms: no stop-gradient",
    "second-term-only": "second term only",
}


def record() -> pd.DataFrame:
    """variant, time, phi, theta, loss, conserved."""
    times = np.linspace(0, 30, 301)
    parts = [scalar_table(Scalar(name), flow(Scalar(name), 0.6, 0.1, times)).assign(variant=name) for name in VARIANTS]
    return pd.concat(parts, ignore_index=True)


def figure(table: pd.DataFrame) -> Figure:
    """A column a variant; above phi and theta with their limits, below the loss."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure((8.4, 4.4), layout="constrained")
        grid = drawn.subplots(2, 3, sharex=True, sharey="row", height_ratios=(3, 2))
        for (upper, lower), name in zip(grid.T, TITLES, strict=True):
            rows = table[table["variant"] == name]
            draw.courses(upper, rows)
            upper.set_title(TITLES[name])
            upper.set_xlabel("")
            for limit in end_state(name, 0.6, 0.1):
                upper.axhline(limit, color=GREY, ls=":", lw=0.8)
            lower.plot(rows["time"], 1000 * rows["loss"], color="black", lw=1.5)
            lower.set_xlabel("time, 1 / learning rate")
            upper.get_legend().remove()
        grid[0][0].legend(loc="lower right")
        grid[1][0].set_ylabel("1000 loss")
    return drawn


if __name__ == "__main__":
    publish("toy_blog", record, figure)
