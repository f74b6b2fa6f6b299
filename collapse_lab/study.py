"""Arms x seeds: runs in parallel on the cores there are, and the summary of what they recorded."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import signal
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from collapse_lab import config as configuration
from collapse_lab import data
from collapse_lab.config import Config, MonitorConfig
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.evaluate import pixel_baselines
from collapse_lab.methods import METHODS
from collapse_lab.runs import (
    ENDED,
    Run,
    device_name,
    environment,
    final_values,
    read_status,
    training_seconds,
    write_whole,
)
from collapse_lab.trainer import Progress, check, pick_device, train

SUMMARISED = ("loss", "std_ratio", "rankme", "knn", "knn_start", "linear", "linear_start")


class News(NamedTuple):
    """What a run says of itself: how far it is, or the state it has reached."""

    run: str
    state: str
    progress: Progress | None = None


Listener = Callable[[News], None]


def study_name(config: Config) -> str:
    """The study's part of a path: the data set and a digest of everything but method and seed.

    >>> study_name(configuration.build("a")) == study_name(configuration.build("a", {"train.seed": 7}))
    True
    """
    shared = replace(config, method="", train=replace(config.train, seed=0))
    return f"{config.data.name}-{hashlib.sha256(configuration.to_json(shared).encode()).hexdigest()[:8]}"


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


def run_study(study: Path, runs: Mapping[str, Config], *, overwrite: bool, listen: Listener) -> dict[str, Any]:
    """Train what is not finished, then write and return the summary of the study's directory.

    Runs go side by side on a CPU, one after the other on a GPU. Data and configurations are checked before any training.
    An interrupt lets every run stop at its next reading, resumable, and is raised again. An unexpected error in one run
    leaves the others to finish and is raised then.
    """
    first = next(iter(runs.values()))
    images = data.load(first.data)
    _check(study, runs, images, overwrite)
    open_runs = {path: config for path, config in runs.items() if not _ended(study / path)}
    for path in runs.keys() - open_runs.keys():
        listen(News(_name(runs[path]), f"{read_status(study / path)['state']} before"))
    if open_runs:
        _train_all(study, open_runs, listen)
    protocol = {
        "data": images.name,
        "config": configuration.to_dict(replace(first, method="", train=replace(first.train, seed=0))),
        "pixels": _pixels(study, images, first.monitor),
        "device": device_name(pick_device(first.train)),
        "training_seconds": sum(training_seconds(study / path) for path in runs),
        **environment(),
    }
    return summarise(study, protocol)


def _check(study: Path, runs: Mapping[str, Config], images: Images, overwrite: bool) -> None:
    """Refuse what does not fit the data, cannot be written, or was made with other settings, before any training."""
    for path, config in runs.items():
        check(config, images)
        with Run(study / path, config, overwrite=overwrite):
            pass
    for recorded in study.glob("*/seed*/config.json"):
        found = configuration.from_json(recorded.read_text(encoding="utf-8"))
        differing = configuration.differences(replace(config, data=found.data), config)
        if differing:
            raise InputError(
                f"study '{study}' holds runs on other data ({'; '.join(differing)}); choose another --name"
            )


def _train_all(study: Path, runs: Mapping[str, Config], listen: Listener) -> None:
    first = next(iter(runs.values()))
    workers = max(1, _cores() // first.train.threads) if pick_device(first.train).type == "cpu" else 1
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(min(workers, len(runs)), context, _leave_interrupts_to_the_parent) as pool,
    ):
        news, stop = manager.Queue(), manager.Event()
        futures = [pool.submit(_work, config, study / path, news, stop) for path, config in runs.items()]
        try:
            _listen(futures, news, listen)
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        for future in futures:
            future.result()


def _pixels(study: Path, images: Images, protocol: MonitorConfig) -> dict[str, float]:
    """The raw-pixel baselines of the study's data, computed once."""
    path = study / f"pixels-k{protocol.k}-T{protocol.temperature:g}.json"
    if not path.exists():
        write_whole(path, json.dumps(pixel_baselines(images, protocol)) + "\n")
    baselines: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return baselines


def summarise(study: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """Write and return ``summary.json`` over every arm recorded in the study's directory.

    ``mean`` and ``std`` (ddof 1) are over the seeds that finished; a value that cannot be had is null.
    """
    order = list(METHODS)
    recorded = [arm for arm in study.iterdir() if any(arm.glob("seed*/config.json"))]
    recorded.sort(key=lambda arm: (order.index(arm.name) if arm.name in order else len(order), arm.name))
    summary = {"protocol": protocol, "arms": {arm.name: _summarise_arm(arm) for arm in recorded}}
    write_whole(study / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _summarise_arm(arm: Path) -> dict[str, Any]:
    directories = sorted(arm.glob("seed*"), key=lambda directory: int(directory.name.removeprefix("seed")))
    states = {directory: read_status(directory) for directory in directories}
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


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": values,
    }


def _seed(directory: Path) -> int:
    return int(directory.name.removeprefix("seed"))


def _name(config: Config) -> str:
    return f"{config.method} seed {config.train.seed}"


def _ended(directory: Path) -> bool:
    return read_status(directory)["state"] in ("done", "failed")


def _cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listen(futures: Sequence[Future[None]], news: Any, listen: Listener) -> None:
    while True:
        finished = all(future.done() for future in futures)
        try:
            while True:
                listen(news.get(timeout=0.1))
        except queue.Empty:
            if finished:
                return


def run_one(
    config: Config, directory: Path, *, overwrite: bool, listen: Listener, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train one run in this process and return its status; ``stop`` is asked at every reading."""
    name = _name(config)

    def report(progress: Progress) -> None:
        listen(News(name, "running", progress))
        if stop():
            raise KeyboardInterrupt

    images = data.load(config.data)
    check(config, images)
    with Run(directory, config, overwrite=overwrite) as run:
        state = run.status()["state"]
        if state in ENDED:
            listen(News(name, f"{state} before"))
            return run.status()
        listen(News(name, "started"))
        try:
            status = train(config, run, images, report)
        finally:
            listen(News(name, run.status()["state"]))
    return status


def _work(config: Config, directory: Path, news: Any, stop: Any) -> None:
    try:
        run_one(config, directory, overwrite=False, listen=news.put, stop=stop.is_set)
    except KeyboardInterrupt:
        # The parent asked for it and raises its own; the run's status says that it can be resumed.
        return


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
