"""What was recorded of arms over seeds, as one document: of the methods of a comparison, and of the arms of a study."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from collapse_lab import config as configuration
from collapse_lab.data import Images
from collapse_lab.environment import environment
from collapse_lab.evaluate import pixel_baselines
from collapse_lab.machine import threads
from collapse_lab.methods import METHODS
from collapse_lab.run_records import ENDED, final_values, read_status, training_seconds
from collapse_lab.settings import Config
from collapse_lab.study import QUANTITIES
from collapse_lab.whole import write_whole


def comparison(place: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Write and return ``summary.json`` over every method recorded in a directory of runs that share their settings.

    ``mean`` and ``std`` (ddof 1) are over the seeds that finished; a value that cannot be had is null.
    """
    order = list(METHODS)
    names = {directory.parent.name for directory in recorded(place)}
    arranged = sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
    arms = {name: arm([run for run in recorded(place) if run.parent.name == name]) for name in arranged}
    summary = {"protocol": described, "arms": arms}
    write_whole(place / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def arm(runs: Sequence[Path]) -> dict[str, Any]:
    """What the run directories of one arm recorded, by seed: values of those that finished, verdicts of all that ended."""
    states = {directory: read_status(directory) for directory in runs}
    done = [directory for directory, status in states.items() if status["state"] == "done"]
    values = [with_gains(final_values(directory)) for directory in done]
    return {
        "seeds": [seed_of(directory) for directory in done],
        "failed": [
            seed_of(directory) for directory, status in states.items() if status["state"] in ("failed", "stopped")
        ],
        **{name: spread([run.get(name) for run in values]) for name in QUANTITIES},
        "verdicts": [status["verdict"] for status in states.values() if status["state"] in ENDED],
    }


def with_gains(values: dict[str, float]) -> dict[str, float]:
    """The values of a run with ``knn_gain`` and ``linear_gain``, end minus start, where both are known.

    >>> with_gains({"knn": 0.75, "knn_start": 0.5})["knn_gain"]
    0.25
    """
    gains = {
        f"{name}_gain": values[name] - values[f"{name}_start"]
        for name in ("knn", "linear")
        if name in values and f"{name}_start" in values
    }
    return values | gains


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """The values with their mean and their standard deviation (ddof 1), null where they cannot be had."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }


def protocol(place: Path, shared: Config, images: Images, runs: Sequence[Path]) -> dict[str, Any]:
    """What a summary says of its circumstances: data, shared settings, raw-pixel baselines, devices, versions, command."""
    return {
        "data": images.name,
        "config": configuration.to_dict(replace(shared, train=replace(shared.train, seed=0))),
        "pixels": _pixels(place, images, shared),
        "device": "; ".join(sorted({start["device"] for start in starts(runs)})),
        "training_seconds": sum(training_seconds(directory) for directory in runs),
        **environment(),
    }


def starts(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """What the directories of runs hold of every start of theirs: versions, device, commit, command."""
    paths = [path for run in runs if (path := run / "environment.json").exists()]
    return [start for path in paths for start in json.loads(path.read_text(encoding="utf-8"))["starts"]]


def recorded(place: Path) -> list[Path]:
    """The runs of methods, ``<method>/seed<k>``, in order of seeds; not those of arms that override more."""
    found = [path.parent for path in place.glob("*/seed*/config.json") if path.parent.name[4:].isdecimal()]
    plain = [directory for directory in found if not {",", "~"} & set(directory.parent.name)]
    return sorted(plain, key=lambda directory: (directory.parent.name, seed_of(directory)))


def seed_of(directory: Path) -> int:
    """The seed in the name of a run's directory."""
    return int(directory.name.removeprefix("seed"))


def _pixels(place: Path, images: Images, shared: Config) -> dict[str, float | None]:
    """The raw-pixel baselines of the data, computed once for all runs in a place."""
    path = place / f"pixels-k{shared.monitor.k}-T{shared.monitor.temperature:g}.json"
    if not path.exists():
        with threads(shared.train.threads):
            write_whole(path, json.dumps(pixel_baselines(images, shared.monitor)) + "\n")
    baselines: dict[str, float | None] = json.loads(path.read_text(encoding="utf-8"))
    return baselines
