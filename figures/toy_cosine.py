"""The linear model under the cosine loss: who survives, and the prediction for momentum eta.

python figures/toy_cosine.py
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_lab.style import GREY, STYLE
from collapse_lab.toy import cosine
from collapse_lab.toy.draw_linear import line
from collapse_lab.toy.report import publish
from collapse_lab.toy.reports_cosine import agreements, cosine_table, drawn, sweep

MODES, LEAST, EPOCH, SEED = 16, 0.3, 5.0, 0
FLOOR = 1e-12
ARMS = {
    "stop-gradient": {"variant": "stop-gradient"},
    "no stop-gradient": {"variant": "both-terms"},
    "second term only": {"variant": "second-term-only"},
    "no predictor": {"rate": 0.0},
}


def record() -> pd.DataFrame:
    """kind "flow": arm, time, mode, agreement, energy, rankme, largest; kind "sweep": m, time, slow_rate."""
    agreement, times = agreements(MODES, LEAST), np.concatenate([[0.0], np.geomspace(0.1, 3000, 200)])
    parts = []
    for name, settings in ARMS.items():
        system = cosine.Cosine(tuple(agreement.tolist()), **settings)
        start = drawn(MODES, SEED, system.rate)
        parts.append(cosine_table(agreement, cosine.flow(system, *start, times)).assign(kind="flow", arm=name))
    parts.append(pd.DataFrame(sweep(agreement, drawn(MODES, SEED, 1.0)[0], EPOCH)).assign(kind="sweep"))
    return pd.concat(parts, ignore_index=True)


def figure(table: pd.DataFrame) -> Figure:
    """RankMe, the constant mode's energy, the last spectrum, and time to collapse against 1 / (1 - m)."""
    flows, sweeps = table[table["kind"] == "flow"], table[table["kind"] == "sweep"]
    with matplotlib.rc_context(STYLE):
        canvas = Figure((11.0, 3.2), layout="constrained")
        rank, mean, spectrum, delay = canvas.subplots(1, 4)
        for position, (name, rows) in enumerate(flows.groupby("arm", sort=False)):
            course = rows[rows["mode"] == 0].query("time > 0")
            rank.semilogx(course["time"], course["rankme"], label=name, **line(position))
            mean.semilogx(course["time"], course["energy"], **line(position))
            last = rows[rows["time"] == rows["time"].max()]
            spectrum_of(spectrum, last, position)
        rank.set_title("RankMe of z")
        mean.set_title("energy of the constant mode")
        spectrum.set_title("energy of each mode in the end\n(open: below 1e-12, an arm a row)")
        spectrum.set_xlabel("agreement r of two views")
        for axes in (rank, mean):
            axes.set_xlabel("time, 1 / learning rate")
            axes.set_ylim(bottom=0)
        slower = 1 / (1 - sweeps["m"])
        slope, start = np.polyfit(slower, sweeps["time"], 1)
        delay.loglog(slower, start + slope * slower, color=GREY, ls=":", label=f"{start:.0f} + {slope:.1f} / (1 - m)")
        delay.loglog(slower, sweeps["time"], "o", color="black", ms=4)
        delay.set_title("momentum η: time until one\nmode holds 95 % of the energy")
        delay.set_xlabel("1 / (1 - m)")
        delay.legend(fontsize=8)
        handles, labels = rank.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=4)
    return canvas


def spectrum_of(axes: Axes, rows: pd.DataFrame, position: int) -> None:
    """Filled markers for modes that live; open ones for the dead, each arm on a floor of its own below 1e-12."""
    dead, marker, colour = rows["energy"] < FLOOR, "osD^"[position], line(position)["color"]
    # Arms that end alike lie on one point: each is moved a little to the side.
    at = rows["agreement"] + 0.012 * (position - 1.5)
    axes.semilogy(at[~dead], rows["energy"][~dead], marker, color=colour, ms=4)
    axes.semilogy(at[dead], np.full(int(dead.sum()), FLOOR / 10.0**position), marker, color=colour, mfc="none", ms=3)


if __name__ == "__main__":
    publish("toy_cosine", record, figure)
