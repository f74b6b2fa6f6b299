"""Rounds of the alternation between encoder and eta on the scalar toy, and how fast they contract.

python figures/toy_alternation.py
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_lab.style import GREY, STYLE
from collapse_lab.toy import draw_linear
from collapse_lab.toy.alternation import contraction, exact_rounds, k_step_rounds, round_factor
from collapse_lab.toy.closed import end_state
from collapse_lab.toy.report import publish

ROUNDS, STEP_SIZE = 40, 0.1
PERIODS = (1, 10, 100)
NOISE2 = 0.5


def record() -> pd.DataFrame:
    """scheme, round, theta, distance from its limit: noise 0 with the predictor, noise 0.5 without."""
    parts = [frame("exact", exact_rounds(0.6, 0.1, ROUNDS), end_state("stop-gradient", 0.6, 0.1)[1])]
    for k in PERIODS:
        theta = k_step_rounds(0.6, 0.1, k, STEP_SIZE, 20000)[1]
        parts.append(frame(f"k = {k}", theta[::k][: ROUNDS + 1], theta[-1]))
    for k in (*PERIODS, None):
        name = "exact, no predictor" if k is None else f"k = {k}, no predictor"
        parts.append(frame(name, 0.1 * round_factor(NOISE2, STEP_SIZE, k) ** np.arange(ROUNDS + 1.0), 0.0))
    return pd.concat(parts, ignore_index=True)


def frame(scheme: str, theta: object, limit: float) -> pd.DataFrame:
    """Rows of one scheme."""
    table = pd.DataFrame({"scheme": scheme, "theta": theta, "distance": np.abs(np.asarray(theta) - limit)})
    return table.assign(round=range(len(table)))


def figure(table: pd.DataFrame) -> Figure:
    """theta, its distance from the limit with the predictor, and theta without."""
    plain = table["scheme"].str.contains("no predictor")
    factor, at_exact = contraction(end_state("stop-gradient", 0.6, 0.1)), np.arange(8, 41)
    with matplotlib.rc_context(STYLE):
        drawn = Figure((9.6, 3.4), layout="constrained")
        left, middle, right = drawn.subplots(1, 3)
        for position, (name, rows) in enumerate(table[~plain].groupby("scheme", sort=False)):
            left.plot(rows["round"], rows["theta"], label=name, **draw_linear.line(position))
            middle.semilogy(rows["round"], rows["distance"], **draw_linear.line(position))
        middle.semilogy(at_exact, 0.3 * factor ** (at_exact - 3.0), color=GREY, ls=":")
        middle.text(2, 1e-7, f"slope of {factor:.6f}\na round", color=GREY, fontsize=8)
        for position, (name, rows) in enumerate(table[plain].groupby("scheme", sort=False)):
            label = str(name).removesuffix(", no predictor")
            right.semilogy(rows["round"], rows["theta"], label=label, **draw_linear.line((position + 1) % 4))
        left.set_title("θ, with predictor, no noise")
        middle.set_title("distance from its limit")
        right.set_title(f"θ, without predictor, s² = {NOISE2:g}")
        for axes in (left, middle, right):
            axes.set_xlabel("round")
        left.legend(fontsize=8)
        right.legend(fontsize=8)
    return drawn


if __name__ == "__main__":
    publish("toy_alternation", record, figure)
