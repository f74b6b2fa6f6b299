"""What output BatchNorm hides: std ratio, RankMe and kNN accuracy of studies that differ in the head only, side by side.

python figures/heads.py RUNS/none RUNS/affine RUNS/non-affine --out figures/gallery/heads.png
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import click
import matplotlib
from matplotlib.figure import Figure

from collapse_lab.errors import InputError
from collapse_lab.plots import PANELS, draw_panel, frame
from collapse_lab.records import read
from collapse_lab.style import STYLE, save

METRICS = ("std_ratio", "rankme", "knn")


def heads(studies: list[Path]) -> Figure:
    """A column a study, a row a metric; every seed of every arm."""
    columns = [read(study) for study in studies]
    panels = [panel for panel in PANELS if panel.metric in METRICS]
    for records in columns:
        if list(records.arms) != list(columns[0].arms):
            raise InputError(
                f"study '{records.path}' has other arms than '{columns[0].path}': {', '.join(records.arms)}"
            )
    with matplotlib.rc_context(STYLE):
        drawn = Figure((2.9 * len(columns) + 0.4, 7.6), layout="constrained")
        grid = drawn.subplots(len(panels), len(columns), sharex="col", sharey="row", squeeze=False)
        for row, panel in zip(grid, panels, strict=True):
            for axes, records in zip(row, columns, strict=True):
                draw_panel(axes, records, panel)
            row[0].set_ylabel(textwrap.fill(panel.title(columns[0]), 24))
        for axes, records in zip(grid[0], columns, strict=True):
            seeds = ", ".join(dict.fromkeys(arm.number for arm in records.arms.values()))
            axes.set_title(f"{records.head or records.path.name}: {seeds}")
        for axes in grid[-1]:
            axes.set_xlabel("training step")
        frame(drawn, columns[0].data, {name: name for name in columns[0].arms})
    return drawn


@click.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the PNG; a PDF is written beside it")
def main(studies: tuple[Path, ...], out: Path) -> None:
    """Draw the studies, directories made by `collapse-lab compare`, side by side."""
    try:
        for path in save(heads(list(studies)), out.with_suffix("")):
            click.echo(path)
    except InputError as error:
        click.echo(f"heads: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
