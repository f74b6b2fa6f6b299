"""What a study measures on finished runs: computed side by side in processes, kept in the run's directory."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

from collapse_lab import data
from collapse_lab.data import Images
from collapse_lab.errors import InputError, RunStopped
from collapse_lab.lifetime import end_with_the_parent
from collapse_lab.machine import threads
from collapse_lab.run_records import read_config
from collapse_lab.settings import DataConfig
from collapse_lab.study import Measure
from collapse_lab.whole import write_whole
from collapse_lab.workers import side_by_side

NAME = "measures.json"
Function = Callable[..., dict[str, float]]


def resolve(measure: Measure) -> Function:
    """The function that a measure names; raises ``InputError`` where there is none, or it does not take the parameters."""
    module, name = measure.function.split(":")
    try:
        found: Function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"measure '{measure.function}' cannot be found: {error}") from None
    try:
        inspect.signature(found).bind("directory", "images", **measure.parameters)
    except (TypeError, ValueError) as error:
        raise InputError(f"measure '{measure.function}' cannot be called so: {error}") from None
    return found


def kept(run: Path, measure: Measure) -> dict[str, float | None] | None:
    """The values that a run's directory holds of a measure with its parameters; None where it was not measured.

    Values of an earlier run in the same directory do not count: the table of readings that they belong to is recorded.
    """
    for record in _records(run):
        if _key(record) == _key(_record(run, measure, {})):
            values: dict[str, float | None] = record["values"]
            return values
    return None


def measure_all(runs: Mapping[Path, Sequence[Measure]], tell: Callable[[str], None]) -> list[Exception]:
    """Measure every finished run where that was not done before; the errors of those that could not be."""
    missing = {run: [measure for measure in measures if kept(run, measure) is None] for run, measures in runs.items()}
    jobs = {run: measures for run, measures in missing.items() if measures}
    if not jobs:
        return []
    first = read_config(next(iter(jobs))).train
    context = multiprocessing.get_context("spawn")
    errors: list[Exception] = []
    with ProcessPoolExecutor(min(side_by_side(first), len(jobs)), context, _prepare, (os.getpid(),)) as pool:
        futures = {pool.submit(_measure, run, measures): run for run, measures in jobs.items()}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                run = futures[future]
                error = future.exception()
                tell(f"{run.parent.name} {run.name}: {'not ' if error else ''}measured, {len(futures) - count} to go")
                errors += [error] if isinstance(error, Exception) else []
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return errors


def _measure(run: Path, measures: Sequence[Measure]) -> None:
    config = read_config(run)
    for measure in measures:
        try:
            with threads(config.train.threads):
                values = resolve(measure)(run, _images(config.data), **measure.parameters)
        except Exception as error:
            write_whole(run / "traceback.txt", traceback.format_exc())
            reason = f"{type(error).__name__}: {error}; its traceback.txt says where"
            raise RunStopped(f"measure '{measure.function}' of run '{run}' was stopped by {reason}") from error
        record = _record(run, measure, values)
        others = [other for other in _records(run) if _key(other)[:2] != _key(record)[:2]]
        write_whole(run / NAME, json.dumps([*others, record], indent=2) + "\n")


@lru_cache(maxsize=1)
def _images(config: DataConfig) -> Images:
    return data.load(config)


def _records(run: Path) -> list[dict[str, Any]]:
    path = run / NAME
    if not path.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"record '{path}' is damaged ({error}); remove it to measure again") from None
    return records


def _record(run: Path, measure: Measure, values: Mapping[str, float]) -> dict[str, Any]:
    return {
        "function": measure.function,
        "parameters": dict(measure.parameters),
        "metrics_sha256": hashlib.sha256((run / "metrics.csv").read_bytes()).hexdigest(),
        "values": {name: float(value) if math.isfinite(value) else None for name, value in values.items()},
    }


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    # As JSON, which has no tuples.
    return record["function"], json.dumps(record["parameters"], sort_keys=True), record["metrics_sha256"]


def _prepare(parent: int) -> None:
    """Leave interrupts to the parent, which lets every measurement that has begun come to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_parent(parent)
