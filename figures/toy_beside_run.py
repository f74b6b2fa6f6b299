"""A real run beside the toy that it shares its measures with: the linear model under the cosine loss, d = 128.

    collapse-lab compare simsiam no-stop-gradient no-predictor --name digits-toy
    python figures/toy_beside_run.py runs/digits-toy

Above: a study of real images, train mode at the projector, every seed. Below: the linear model with the same width, whose
agreements fall evenly from 1 (the constant mode) to 0.3: a choice, not a fit, and its time is not a number of steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapse_lab.errors import InputError
from collapse_lab.style import STYLE
from collapse_lab.toy import cosine
from collapse_lab.toy.draw_linear import line
from collapse_lab.toy.report import publish
from collapse_lab.toy.reports_cosine import agreements, drawn

MODES, LEAST = 128, 0.3
ARMS = {
    "simsiam": {"variant": "stop-gradient"},
    "no-stop-gradient": {"variant": "both-terms"},
    "no-predictor": {"rate": 0.0},
    "wrong-branch": {"variant": "second-term-only"},
}
MEASURES = {
    "loss": "loss, negative cosine",
    "std_ratio": "std of z/‖z‖, times √d",
    "mean_energy": "mean energy ‖E z/‖z‖‖²",
    "rankme": "RankMe of z",
}


def real(study: Path) -> pd.DataFrame:
    """arm, seed, at (the step) and the four measures from the run directories of a study."""
    parts = []
    for path in sorted(study.glob("*/seed*/metrics.csv")):
        rows = pd.read_csv(path).query("source == 'train' and metric in @MEASURES")
        rows = rows[rows["layer"].isin(["projector"]) | rows["metric"].eq("loss")]
        wide = rows.pivot_table(index="step", columns="metric", values="value").reset_index()
        parts.append(wide.rename(columns={"step": "at"}).assign(arm=path.parts[-3], seed=path.parts[-2], source="real"))
    if not parts:
        raise InputError(f"study '{study}': no run with a metrics.csv; `collapse-lab compare` makes one")
    return pd.concat(parts, ignore_index=True)


def toy(arm: str) -> pd.DataFrame:
    """The same columns for the linear model; its modes are rotated at random, as a network's are not axis-aligned."""
    agreement, times = agreements(MODES, LEAST), np.concatenate([[0.0], np.geomspace(1, 3000, 120)])
    system = cosine.Cosine(tuple(agreement.tolist()), **ARMS[arm])
    states = cosine.flow(system, *drawn(MODES, 0, system.rate), times).states
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((MODES, MODES)))[0]
    energy = cosine.energy(states[:, 1])
    return pd.DataFrame(
        {
            "at": times,
            "loss": [cosine.slot_loss(agreement, head, modes, modes) for head, modes in states],
            "std_ratio": np.sqrt(energy[:, 1:] @ rotation[:, 1:].T ** 2).mean(axis=1) * np.sqrt(MODES),
            "mean_energy": energy[:, 0],
            "rankme": cosine.rankme(states[:, 1]),
        }
    ).assign(arm=arm, seed="seed0", source="toy")


def figure(table: pd.DataFrame) -> Figure:
    """A column a measure, the real study above, the toy below."""
    with matplotlib.rc_context(STYLE):
        canvas = Figure((11.0, 5.2), layout="constrained")
        grid = canvas.subplots(2, len(MEASURES), sharey="col")
        for row, source in zip(grid, ("real", "toy"), strict=True):
            for axes, (measure, title) in zip(row, MEASURES.items(), strict=True):
                curves(axes, table[table["source"] == source], measure)
                axes.set_title(title)
                axes.set_xlabel("training step" if source == "real" else "time, 1 / learning rate")
            row[1].set_ylim(0, 1.08)
            row[2].set_ylim(-0.02, 1.02)
            row[3].set_yscale("log")
        for axes in grid[1]:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=0)
        grid[0][0].set_ylabel("real images")
        grid[1][0].set_ylabel("linear model")
        handles, labels = grid[0][0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return canvas


def curves(axes: Axes, table: pd.DataFrame, measure: str) -> None:
    """A colour an arm, the mean over seeds thick, every seed thin."""
    for position, (arm, rows) in enumerate((arm, table[table["arm"] == arm]) for arm in ARMS):
        if len(rows):
            by_seed = rows.pivot(index="at", columns="seed", values=measure)
            axes.plot(by_seed, **line(position) | {"lw": 0.4, "alpha": 0.5, "ls": "-"})
            axes.plot(by_seed.mean(axis=1), label=arm, **line(position))


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
def main(study: Path) -> None:
    """Draw STUDY, a directory made by `collapse-lab compare`, above the linear model."""
    try:
        found = real(study)
        arms = [arm for arm in ARMS if arm in set(found["arm"])]
        publish("toy_beside_run", lambda: pd.concat([found, *map(toy, arms)], ignore_index=True), figure)
    except InputError as error:
        click.echo(f"toy_beside_run: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
