"""What the benchmarks of the monitors share: taking turns, summaries, and what the numbers depend on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
Measured = dict[str, Any]


class Spent(NamedTuple):
    """Seconds of the clock, and of the processor: of this process and of its children that have ended."""

    seconds: float
    processor_seconds: float

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(self.seconds - earlier.seconds, self.processor_seconds - earlier.processor_seconds)


def spent(device: torch.device | None = None) -> Spent:
    """The time so far, when all that was asked of a GPU is done."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Spent(time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used))


def timed(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each contender by round, in turns, and what each returned."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    values: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            values[name] = run()
            seconds[name].append(time.process_time() - start)
    return seconds, values


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, mean, standard deviation (ddof 1) and number."""
    spread = stdev(values) if len(values) > 1 else 0.0
    figures = {"median": median(values), "mean": mean(values), "std": spread}
    return {**{name: round(value, 5) for name, value in figures.items()}, "n": len(values)}


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **versions("torch", "torchvision", "faiss-cpu", "lightly"),
    }


def commit() -> str:
    """The commit of the code, with ``-dirty`` where files other than results differ from it."""

    def told(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = told("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return told("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages, "absent" where one is not installed."""

    def found(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "absent"

    return {package: found(package) for package in packages}
