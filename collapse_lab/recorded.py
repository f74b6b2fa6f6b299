"""The verdict on a run from its records alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from collapse_lab import config as configuration
from collapse_lab import records
from collapse_lab.arrays import reason
from collapse_lab.config import Config
from collapse_lab.errors import InputError
from collapse_lab.monitors.alarm import Alarm, Alert
from collapse_lab.monitors.verdict import Verdict, Vote, judge
from collapse_lab.monitors.watch import Reading
from collapse_lab.runs import read_status
from collapse_lab.trainer import VIEWS

COUNTS = "projector"


class Recorded(NamedTuple):
    """What a run directory says: its table, its configuration and the verdict on the projector in train mode."""

    table: pd.DataFrame
    config: Config
    verdict: Verdict


def read(directory: Path) -> Recorded:
    """The records of a run, judged by the means of the projector's train-mode values over the last epoch.

    Other layers have no bounds; every layer is held against its own history, and what the alarm says of them, replayed
    over the table, gives the onset, the layer that fell first, and notes. Raises ``InputError`` naming the directory and
    the file that is missing or damaged.
    """
    table, config = read_table(directory), _config(directory)
    verdict = _judge(table, len(VIEWS) * config.train.batch, config.network.projector_dim)
    verdict = _with_alerts(_with_status(verdict, directory), _alerts(table))
    return Recorded(table, config, verdict)


def read_table(directory: Path) -> pd.DataFrame:
    """The table of a run directory; raises ``InputError`` where the directory is none."""
    path = directory / "metrics.csv"
    if path.is_file():
        return records.read_table(path)
    runs = [str(found.parent.relative_to(directory)) for found in sorted(directory.glob("*/*/metrics.csv"))]
    if not directory.is_dir():
        raise InputError(f"'{directory}' is no run: a run is a directory with metrics.csv")
    hint = f"; it is a study, its runs are {', '.join(runs[:4])}" if runs else ""
    raise InputError(f"directory '{directory}' is no run: it has no metrics.csv{hint}")


def _config(directory: Path) -> Config:
    try:
        return configuration.from_json((directory / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"run '{directory}': config.json cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"run '{directory}': config.json is damaged: {reason(error)}") from None


def _judge(table: pd.DataFrame, rows: int, dimension: int) -> Verdict:
    here = table[(table["source"] == "train") & (table["layer"] == COUNTS)]
    means = here[here["epoch"] == table["epoch"].max()].groupby("metric")["value"].mean()
    if not {"std_ratio", "mean_energy", "rankme"} <= set(means.index):
        vote = Vote("readings", 0, f"at least 1 of the {COUNTS} in the last epoch", "definition")
        return Verdict("insufficient-data", (vote,), tap=COUNTS)
    return judge(
        std_ratio=float(means["std_ratio"]),
        mean_energy=float(means["mean_energy"]),
        rankme=float(means["rankme"]),
        rows=rows,
        dimension=dimension,
        tap=COUNTS,
    )


def _alerts(table: pd.DataFrame) -> list[Alert]:
    train = table[(table["source"] == "train") & (table["layer"] != "") & (table["metric"] != "spectrum")]
    columns = train[["step", "layer", "metric", "index", "value"]]
    return Alarm().update(Reading(*row) for row in columns.itertuples(index=False, name=None))


def _with_alerts(verdict: Verdict, alerts: list[Alert]) -> Verdict:
    if not alerts:
        return verdict
    notes = (*verdict.notes, *map(str, alerts))
    if verdict.kind == "healthy":
        return verdict._replace(notes=notes)
    onset = next((alert.onset for alert in alerts if alert.layer == verdict.tap), None)
    first = min(alerts, key=lambda alert: (alert.onset[1], alert.step))
    return verdict._replace(notes=notes, onset=onset, first_tap=first.layer)


def _with_status(verdict: Verdict, directory: Path) -> Verdict:
    """A verdict with what the run's status adds: that it diverged, failed or is not at its end."""
    try:
        status = read_status(directory)
        state, step, error, told = (status[name] for name in ("state", "step", "error", "verdict"))
    except (OSError, ValueError, LookupError, TypeError) as cause:
        raise InputError(f"run '{directory}': status.json is damaged: {reason(cause)}") from None
    if told == "diverged":
        return verdict._replace(kind="diverged", severity=1.0, notes=(*verdict.notes, str(error)))
    if state == "done":
        return verdict
    ended = f"the run is {state} at step {step}{f': {error}' if error else ''}; judged as far as it went"
    return verdict._replace(notes=(*verdict.notes, ended))
