"""The time to collapse against 1 / (1 - m), m the momentum of eta: a mark a run, a line a seed, the interval of their slopes.

    python figures/momentum_time.py --out figures/gallery/momentum_time.png

Reads the committed summary of the study experiments/momentum_time.py, or that of --summary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from collapse_lab.collapse_time import Line, momentum_line
from collapse_lab.paired import Interval, interval
from collapse_lab.style import COLOURS, STYLE, save

SUMMARY = Path(__file__).resolve().parent.parent / "experiments" / "results" / "momentum_time" / "summary.json"
MEASURE = "collapse_step"
Times = dict[float, float | None]


def times(summary: Mapping[str, Any]) -> dict[int, Times]:
    """Steps to collapse by seed and momentum, None where the run did not collapse."""
    found: dict[int, Times] = {}
    for arm in summary["arms"].values():
        if "target.eta_momentum" not in arm["overrides"]:
            continue
        measured = arm["measures"].get(MEASURE, {"values": [None] * len(arm["seeds"])})
        for seed, steps in zip(arm["seeds"], measured["values"], strict=True):
            found.setdefault(seed, {})[arm["overrides"]["target.eta_momentum"]] = steps
    return found


def lines(found: Mapping[int, Times]) -> dict[int, Line]:
    """The line of every seed; raises ``ValueError`` for one with fewer than 3 collapses."""
    return {seed: momentum_line(list(of_seed), list(of_seed.values())) for seed, of_seed in found.items()}


def words(fitted: Mapping[int, Line], slopes: Interval) -> str:
    """What the slopes say, with the runs that are not in them."""
    never = sum(line.never for line in fitted.values())
    span = "" if slopes.low is None else f", 95 % t-interval {slopes.low:.1f} to {slopes.high:.1f}"
    return f"{slopes.mean:.1f} steps for 1 in 1/(1 - m){span}, n = {slopes.n} seeds; {never} runs without a collapse left out"


def draw(found: Mapping[int, Times], fitted: Mapping[int, Line], title: str) -> Figure:
    """A mark a run and the line of every seed."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure((6.4, 4.0), layout="constrained")
        axes = drawn.subplots()
        for seed, of_seed in found.items():
            fallen = {1 / (1 - m): steps for m, steps in of_seed.items() if steps is not None}
            ends = np.array([min(fallen), max(fallen)])
            axes.plot(ends, fitted[seed].intercept + fitted[seed].slope * ends, color=COLOURS[0], lw=0.8, alpha=0.5)
            axes.plot(list(fallen), list(fallen.values()), "o", color=COLOURS[0], ms=4, mew=0)
        axes.set(xlabel="1 / (1 - m)", ylabel="steps from the second visit to collapse")
        axes.set_title(title, fontsize=8)
    return drawn


@click.command()
@click.option("--summary", type=click.Path(path_type=Path, exists=True), default=SUMMARY)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the PNG; a PDF is written beside it")
def main(summary: Path, out: Path) -> None:
    """Draw the figure and print the interval of the slopes."""
    found = times(json.loads(summary.read_text(encoding="utf-8")))
    fitted = lines(found)
    told = words(fitted, interval([line.slope for line in fitted.values()]))
    click.echo(told)
    for path in save(draw(found, fitted, told), out.with_suffix("")):
        click.echo(path)


if __name__ == "__main__":
    main()
