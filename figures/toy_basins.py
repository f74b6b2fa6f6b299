"""Where each start ends, found by integration alone, under the exact boundaries.

python figures/toy_basins.py
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from collapse_lab.style import STYLE
from collapse_lab.toy import draw
from collapse_lab.toy.basin import Plane, integrated_fates
from collapse_lab.toy.report import publish
from collapse_lab.toy.rule import VARIANTS
from collapse_lab.toy.scalar import Scalar

SYSTEMS = [Scalar(name, noise2) for noise2 in (0.0, 0.3) for name in VARIANTS]
SYSTEMS += [Scalar(weight_decay=decay) for decay in (0.01, 0.1, 0.26)]
SIZE = Plane().size


def record() -> pd.DataFrame:
    """A row a map and value of theta; the fates along phi are one string of digits, 0 undecided to 3 diverged."""
    phi, theta = Plane(size=SIZE).starts
    parts = []
    for number, system in enumerate(SYSTEMS):
        codes = integrated_fates(system, phi.ravel(), theta.ravel())[0].reshape(phi.shape)
        digits = ["f" + "".join(str(code) for code in row) for row in codes]
        parts.append(pd.DataFrame({"map": number, "theta": theta[:, 0], "fates": digits}))
    return pd.concat(parts, ignore_index=True)


def figure(table: pd.DataFrame) -> Figure:
    """A panel a map."""
    phi = np.linspace(*Plane().phi, SIZE)
    with matplotlib.rc_context(STYLE):
        drawn = Figure((9.0, 8.2), layout="constrained")
        grid = drawn.subplots(3, 3, sharex=True, sharey=True)
        for axes, (number, system) in zip(grid.flat, enumerate(SYSTEMS), strict=True):
            rows = table[table["map"] == number]
            codes = np.array([[int(digit) for digit in line[1:]] for line in rows["fates"]])
            columns = {"phi": np.tile(phi, SIZE), "theta": np.repeat(rows["theta"], SIZE), "fate": codes.ravel()}
            draw.fate_map(axes, pd.DataFrame(columns), system)
            s2, _, e = (float(value) for value in system.numbers)
            numbers = f"weight decay {e:g}" if e else f"noise {s2:g}"
            axes.set_title(
                f"{system.variant}, {numbers}\n{(codes == 1).mean():.1%} collapses, {(codes == 0).mean():.2%} undecided"
            )
            axes.label_outer()
        draw.fate_legend(drawn, grid[0][0])
    return drawn


if __name__ == "__main__":
    publish("toy_basins", record, figure)
