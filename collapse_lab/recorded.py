"""The verdict on a run from its records alone, alone or beside those of a run that went well."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from collapse_lab import config as configuration
from collapse_lab import records
from collapse_lab.arrays import reason
from collapse_lab.errors import InputError
from collapse_lab.monitors.history import History, judge_run
from collapse_lab.monitors.verdict import Verdict, Vote
from collapse_lab.run_records import read_status, runs_within
from collapse_lab.settings import Config
from collapse_lab.trainer import LAYERS

COUNTS = "projector"
NOTHING = Vote("readings", 0, f"at least 1 of the {COUNTS}", "definition")


class Recorded(NamedTuple):
    """What a run directory says: its table and its configuration."""

    table: pd.DataFrame
    config: Config

    @property
    def histories(self) -> dict[str, History]:
        """The train-mode readings of every layer that was read; absolute bounds are for the projector alone."""
        train = self.table[self.table["source"] == "train"]
        loss = train[train["metric"] == "loss"]
        cosine = self.config.objective.loss == "negative-cosine"
        agreement = dict(zip(loss["step"].tolist(), (-loss["value"]).tolist(), strict=True)) if cosine else {}
        found = {}
        for layer in LAYERS:
            spectrum = self.table[(self.table["layer"] == layer) & (self.table["metric"] == "spectrum")]
            readings = train[(train["layer"] == layer) & (train["metric"] != "spectrum")]
            if len(spectrum) and len(readings):
                rows, dimension = self.config.views * self.config.train.batch, int(spectrum["index"].max())
                found[layer] = History(layer, rows, dimension, absolute=layer == COUNTS, agreement=agreement)
                columns = (readings[name].tolist() for name in ("step", "metric", "value"))
                for reading in zip(*columns, strict=True):
                    found[layer].add(*reading)
        return found


def read(directory: Path) -> Recorded:
    """The records of a run; raises ``InputError`` naming the directory and the file that is missing or damaged."""
    path = directory / "metrics.csv"
    if not path.is_file():
        raise InputError(_no_run(directory))
    return Recorded(records.read_metrics(path), _config(directory))


def judge(run: Recorded, directory: Path, reference: Recorded | None) -> tuple[Verdict, tuple[Verdict, ...]]:
    """The verdict that counts, the projector's in train mode, and those of all layers.

    What the run's status adds is in the first: that it diverged, failed or is not at its end.
    """
    verdicts = judge_run(run.histories, None if reference is None else reference.histories)
    counting = verdicts.get(COUNTS, Verdict("insufficient-data", (NOTHING,), tap=COUNTS))
    return _with_status(counting, directory), tuple(verdicts.values())


def _no_run(directory: Path) -> str:
    if not directory.is_dir():
        return f"'{directory}' is no run: a run is a directory with metrics.csv"
    hint = runs_within(directory, "metrics.csv")
    return f"directory '{directory}' is no run: it has no metrics.csv{f'; {hint}' if hint else ''}"


def _config(directory: Path) -> Config:
    try:
        return configuration.from_json((directory / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"run '{directory}': config.json cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"run '{directory}': config.json is damaged: {reason(error)}") from None


def _with_status(verdict: Verdict, directory: Path) -> Verdict:
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
