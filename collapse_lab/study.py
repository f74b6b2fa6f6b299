"""Arms x seeds: what is to be run, and the summary of what was recorded."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from collapse_lab import config as configuration
from collapse_lab import data
from collapse_lab.config import Config
from collapse_lab.data import Images
from collapse_lab.environment import device_name, environment
from collapse_lab.errors import InputError
from collapse_lab.evaluate import pixel_baselines
from collapse_lab.methods import METHODS
from collapse_lab.runs import (
    ENDED,
    Run,
    final_values,
    read_config,
    read_status,
    require_free,
    training_seconds,
)
from collapse_lab.trainer import check, pick_device, threads
from collapse_lab.whole import write_whole
from collapse_lab.workers import Listener, News, run_name, train_all

SUMMARISED = ("loss", "std_ratio", "rankme", "knn", "knn_start", "linear", "linear_start")


def study_name(shared: Config) -> str:
    """The study's part of a path: the data set and a digest of what its runs share, which leaves out the seed.

    >>> study_name(configuration.build("")) == study_name(configuration.build("", {"train.seed": 7}))
    True
    """
    text = configuration.to_json(replace(shared, train=replace(shared.train, seed=0)))
    return f"{shared.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def arms(configs: Sequence[Config], seeds: Iterable[int]) -> dict[str, Config]:
    """The configuration of every run by its path within the study, ``<method>/seed<k>``, seed after seed.

    Raises ``InputError`` where two arms differ in name only.
    """
    for position, one in enumerate(configs):
        for other in configs[:position]:
            if not configuration.differences(replace(one, method=other.method), other):
                raise InputError(f"arms '{other.method}' and '{one.method}' are the same run; name it once")
    return {
        f"{config.method}/seed{seed}": replace(config, train=replace(config.train, seed=seed))
        for seed in seeds
        for config in configs
    }


def run_study(
    study: Path, shared: Config, runs: Mapping[str, Config], *, overwrite: bool, listen: Listener
) -> dict[str, Any]:
    """Train what is not finished, then write and return the summary of the study's directory.

    Runs go side by side on a CPU, one after the other on a GPU. Data and configurations are checked before any training.
    An interrupt lets every run stop at its next reading, resumable, and is raised again. An unexpected error in one run
    leaves the others to finish; the summary of those that did is written before ``RunStopped`` is raised.
    """
    images = data.load(shared.data)
    _check(study, shared, runs, images, overwrite)
    pending = {path: config for path, config in runs.items() if overwrite or not _ended(study / path)}
    for path in runs.keys() - pending.keys():
        status = read_status(study / path)
        listen(
            News(
                run_name(runs[path]), f"{status['state']} before" + (f", {status['error']}" if status["error"] else "")
            )
        )
    errors = train_all(study, pending, overwrite, listen) if pending else []
    protocol = {
        "data": images.name,
        "config": configuration.to_dict(replace(shared, train=replace(shared.train, seed=0))),
        "pixels": _pixels(study, images, shared),
        "device": device_name(pick_device(shared.train)),
        "training_seconds": sum(training_seconds(study / path) for path in runs),
        **environment(),
    }
    summary = summarise(study, protocol)
    for error in errors:
        if error is not None:
            raise error
    return summary


def _check(study: Path, shared: Config, runs: Mapping[str, Config], images: Images, overwrite: bool) -> None:
    """Refuse what does not fit the data, cannot be written, or was made with other settings, before any training."""
    for path, config in runs.items():
        check(config, images)
        require_free(study / path)
        if not overwrite:
            with Run(study / path, config):
                pass
    for directory in _recorded(study):
        found = read_config(directory)
        # Those that are to be trained were compared above, or are overwritten.
        if str(directory.relative_to(study)) in runs:
            continue
        row = METHODS[found.method].overrides if found.method in METHODS else {}
        expected = configuration.build(found.method, configuration.flat(shared), row, {"train.seed": found.train.seed})
        differing = configuration.differences(found, expected)
        if differing:
            raise InputError(
                f"study '{study}' holds '{directory.relative_to(study)}', made with other settings "
                f"({'; '.join(differing[:3])}); choose another --name"
            )


def _pixels(study: Path, images: Images, shared: Config) -> dict[str, float | None]:
    """The raw-pixel baselines of the study's data, computed once."""
    path = study / f"pixels-k{shared.monitor.k}-T{shared.monitor.temperature:g}.json"
    if not path.exists():
        with threads(shared.train.threads):
            write_whole(path, json.dumps(pixel_baselines(images, shared.monitor)) + "\n")
    baselines: dict[str, float | None] = json.loads(path.read_text(encoding="utf-8"))
    return baselines


def summarise(study: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """Write and return ``summary.json`` over every arm recorded in the study's directory.

    ``mean`` and ``std`` (ddof 1) are over the seeds that finished; a value that cannot be had is null.
    """
    order = list(METHODS)
    names = {directory.parent.name for directory in _recorded(study)}
    arranged = sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
    summary = {"protocol": protocol, "arms": {name: _summarise_arm(study / name) for name in arranged}}
    write_whole(study / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _summarise_arm(arm: Path) -> dict[str, Any]:
    states = {directory: read_status(directory) for directory in _recorded(arm.parent) if directory.parent == arm}
    done = [directory for directory, status in states.items() if status["state"] == "done"]
    values = [final_values(directory) for directory in done]
    return {
        "seeds": [_seed(directory) for directory in done],
        "failed": [
            _seed(directory) for directory, status in states.items() if status["state"] in ("failed", "stopped")
        ],
        **{name: _spread([run.get(name) for run in values]) for name in SUMMARISED},
        "verdicts": [status["verdict"] for status in states.values() if status["state"] in ENDED],
    }


def _recorded(study: Path) -> list[Path]:
    """The run directories of a study, ``<arm>/seed<k>``, in order of seeds."""
    found = [path.parent for path in study.glob("*/seed*/config.json") if path.parent.name[4:].isdecimal()]
    return sorted(found, key=lambda directory: (directory.parent.name, _seed(directory)))


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": values,
    }


def _seed(directory: Path) -> int:
    return int(directory.name.removeprefix("seed"))


def _ended(directory: Path) -> bool:
    return read_status(directory)["state"] in ENDED
