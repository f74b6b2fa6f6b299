"""What a run's directory says, read back: configuration, status, and the numbers in its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from collapse_lab import config as configuration
from collapse_lab.errors import InputError
from collapse_lab.records import read_metrics
from collapse_lab.settings import Config

METRICS = "metrics.csv"
TIMING = "timing.csv"
STATUS = ("state", "step", "verdict", "error")
ENDED = ("done", "failed", "stopped")


def read_status(directory: Path) -> dict[str, Any]:
    """The status of a run directory; state ``new`` where there is none."""
    path = directory / "status.json"
    if not path.exists():
        return {"state": "new", "step": 0, "verdict": None, "error": None}
    return read_json(path, STATUS)


def read_config(directory: Path) -> Config:
    """The configuration that a run directory was made with."""
    path = directory / "config.json"
    tree = read_json(path)
    try:
        return configuration.validate(tree)
    except (InputError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"record '{path}' is damaged ({reason}); --overwrite starts the run afresh") from None


def runs_within(directory: Path, record: str) -> str:
    """What a directory without that record is instead, where runs with one lie in it: an arm or a study; else empty."""
    for what, depth in (("an arm", "*"), ("a study", "*/*")):
        runs = [str(path.parent.relative_to(directory)) for path in sorted(directory.glob(f"{depth}/{record}"))]
        if runs:
            return f"it is {what}, its runs are {', '.join(runs[:4])}"
    return ""


def read_json(path: Path, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The object in a record of a run's directory; ``InputError`` where it is damaged or lacks one of these names."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or any(name not in content for name in names):
            raise ValueError(f"expected an object with {', '.join(names) or 'sections'}")
    # Brackets that nest too deep exhaust the reader's stack.
    except (ValueError, RecursionError) as error:
        raise InputError(f"record '{path}' is damaged ({error}); --overwrite starts the run afresh") from None
    return content


def final_values(directory: Path) -> dict[str, float]:
    """What a summary says of one run, by name; a value that was not recorded is left out.

    ``loss``, ``std_ratio``, ``mean_energy`` and ``rankme`` are means over the train-mode readings of the last epoch, the
    last three at the projector; ``knn`` and ``linear`` are of backbone features at the end, ``..._start`` at the start.
    """
    path = directory / METRICS
    if not path.exists() or not path.stat().st_size:
        return {}
    table = read_metrics(path)
    train = table[(table["source"] == "train") & (table["epoch"] == table["epoch"].max())]
    values = {"loss": train[train["metric"] == "loss"]["value"].mean()}
    projector = train[train["layer"] == "projector"]
    for metric in ("std_ratio", "mean_energy", "rankme"):
        values[metric] = projector[projector["metric"] == metric]["value"].mean()
    probes = table[(table["source"] == "probe") & (table["layer"] == "backbone")]
    for metric in ("knn", "linear"):
        curve = probes[probes["metric"] == metric].set_index("step")["value"]
        if len(curve):
            values |= {metric: curve[curve.index.max()], f"{metric}_start": curve[curve.index.min()]}
    return {name: float(value) for name, value in values.items() if pd.notna(value)}


def train_readings(directory: Path) -> list[tuple[int, str, str, int, float]]:
    """(step, layer, metric, index, value) of every train-mode scalar in the order of recording; the loss has layer ""."""
    table = read_metrics(directory / METRICS)
    train = table[(table["source"] == "train") & (table["metric"] != "spectrum")]
    rows: list[tuple[int, str, str, int, float]] = list(
        train[["step", "layer", "metric", "index", "value"]].itertuples(index=False, name=None)
    )
    return rows


def training_seconds(directory: Path) -> float:
    """Seconds that the recorded epochs took, evaluations apart; 0 where none was recorded."""
    path = directory / TIMING
    return float(pd.read_csv(path)["seconds"].sum()) if path.exists() else 0.0
