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
from collapse_lab.monitors.verdict import Verdict, Vote, judge
from collapse_lab.runs import read_status
from collapse_lab.trainer import LAYERS, VIEWS

COUNTS = "projector"


class Recorded(NamedTuple):
    """What a run directory says: its table, its configuration, the verdict on every layer and the one that counts."""

    table: pd.DataFrame
    config: Config
    taps: tuple[Verdict, ...]
    verdict: Verdict


def read(directory: Path) -> Recorded:
    """The records of a run, every layer judged by the means of its train-mode values over the last epoch.

    The projector's verdict counts, with what the run's status adds. Raises ``InputError`` naming the directory and the file
    that is missing or damaged.
    """
    table, config = read_table(directory), _config(directory)
    rows = len(VIEWS) * config.train.batch
    judged = [_judge(table, layer, rows) for layer in LAYERS]
    taps = tuple(verdict for verdict in judged if verdict is not None)
    counting = next((verdict for verdict in taps if verdict.tap == COUNTS), _nothing_recorded())
    return Recorded(table, config, taps, _with_status(counting, directory))


def read_table(directory: Path) -> pd.DataFrame:
    """The table of a run directory; raises ``InputError`` where the directory is none."""
    path = directory / "metrics.csv"
    if path.is_file():
        return records.read_table(path)
    runs = [str(found.parent.relative_to(directory)) for found in sorted(directory.glob("*/*/metrics.csv"))]
    hint = f"; it is a study, its runs are {', '.join(runs[:4])}" if runs else ""
    raise InputError(f"directory '{directory}' is no run: it has no metrics.csv{hint}")


def _config(directory: Path) -> Config:
    try:
        return configuration.from_json((directory / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"run '{directory}': config.json cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"run '{directory}': config.json is damaged: {reason(error)}") from None


def _judge(table: pd.DataFrame, layer: str, rows: int) -> Verdict | None:
    """None where the last epoch holds no reading of the layer."""
    here = table[table["layer"] == layer]
    train = here[(here["source"] == "train") & (here["epoch"] == table["epoch"].max())]
    means = train.groupby("metric")["value"].mean()
    ranks = here[here["metric"] == "spectrum"]["index"]
    if ranks.empty or not {"std_ratio", "mean_energy", "rankme"} <= set(means.index):
        return None
    return judge(
        std_ratio=float(means["std_ratio"]),
        mean_energy=float(means["mean_energy"]),
        rankme=float(means["rankme"]),
        rows=rows,
        dimension=int(ranks.max()),
        tap=layer,
    )


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


def _nothing_recorded() -> Verdict:
    vote = Vote("readings", 0, f"at least 1 of the {COUNTS} in the last epoch", "definition")
    return Verdict("insufficient-data", (vote,), tap=COUNTS)
