"""Sinks: functions that are given the readings of a step, to put them where a researcher looks.

Any function of a sequence of readings is a sink. Values with an index, such as a spectrum, go to the table only.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collapse_lab.monitors.watch import Reading, Sink

COLUMNS = ("step", "epoch", "source", "layer", "metric", "index", "value")


def table(path: str | Path, *, steps_per_epoch: int | None = None) -> Sink:
    """Append readings to a CSV file with the columns of a run's ``metrics.csv``, which every figure reads.

    ``source`` is "train"; ``epoch`` counts from 1, and is 0 where ``steps_per_epoch`` is not given. Values keep nine
    significant digits. Raises ``FileExistsError`` at once where there is such a file: two runs in one table are neither.
    """
    path = Path(path)
    with path.open("x", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(COLUMNS)

    def append(readings: Sequence[Reading]) -> None:
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            for reading in readings:
                epoch = 0 if steps_per_epoch is None else -(-reading.step // steps_per_epoch)
                writer.writerow((reading.step, epoch, "train", *reading[1:-1], f"{reading.value:.9g}"))

    return append


def tensorboard(writer: Any) -> Sink:
    """Scalars ``layer/metric`` of a ``torch.utils.tensorboard.SummaryWriter``."""

    def add(readings: Sequence[Reading]) -> None:
        for reading in readings:
            if reading.index == 0:
                writer.add_scalar(f"{reading.layer}/{reading.metric}", reading.value, reading.step)

    return add


def wandb(run: Any) -> Sink:
    """Values ``layer/metric`` of a Weights & Biases run, against ``watch/step``, so that its own step stays yours."""
    run.define_metric("watch/step")

    def log(readings: Sequence[Reading]) -> None:
        values = scalars(readings)
        for name in values:
            run.define_metric(name, step_metric="watch/step")
        run.log({**values, "watch/step": readings[0].step})

    return log


def scalars(readings: Sequence[Reading]) -> dict[str, float]:
    """The values without an index as ``{"layer/metric": value}``, as loggers want them.

    >>> scalars([Reading(8, "projector", "std_ratio", 0, 0.83), Reading(8, "projector", "spectrum", 1, 0.5)])
    {'projector/std_ratio': 0.83}
    """
    return {f"{reading.layer}/{reading.metric}": reading.value for reading in readings if reading.index == 0}
