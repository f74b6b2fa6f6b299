"""What watching costs: a training step with and without a watch, and kNN beside what a user would take instead.

    python benchmarks/monitors.py [--only steps knn memory]

Contenders take turns, round by round, so that a busy moment of the machine hits all of them. One thread, and CPU seconds of
that thread, so that other work on the machine counts less. ``lightly`` comes with `pip install -e ".[benchmark]"` and is left
out where it is absent. RankMe has a benchmark of its own, ``rankme.py``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from knn import knn_costs
from measure import Measured, commit, machine, summary
from torch import nn
from trainings import Training, trainings

from collapse_lab.monitors import CHEAP, FULL, STANDARD, Statistic, Tap, Watch
from collapse_lab.monitors.recorder import Recorder
from collapse_lab.monitors.watch import EVERY

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {"backbone": "encoder.backbone", "projector": "encoder.projector", "predictor": "predictor"}
BUNDLES: Mapping[str, Sequence[Statistic]] = {"cheap": CHEAP, "standard": STANDARD, "full": FULL}
# Bundle and schedule; the last is the default of a watch.
SCHEDULES = [("cheap", 1), ("cheap", 10), ("standard", 50), ("full", 500), ("standard", EVERY)]
NEVER = 10**9


def step_costs(training: Training, rounds: int) -> Measured:
    """Milliseconds added to a step: off schedule, and by each bundle on schedule; from that, what schedules add.

    Off schedule that is too little to be seen in a step, so schedules are reckoned with what idle hooks alone take.
    """
    contenders = {"no watch": None, "off schedule": (STANDARD, NEVER), **{name: (b, 1) for name, b in BUNDLES.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(0)
    for turn in range(rounds + 3):
        for name, watched in order.sample(list(contenders.items()), len(contenders)):
            watch = watched and Watch(training.objective, LAYERS, watched[1], statistics=watched[0])
            taken = training.step(watch or None)
            if watch:
                watch.close()
            if turn >= 3:
                seconds[name].append(taken)
    plain = seconds["no watch"]
    added = {
        name: summary([1e3 * (a - b) for a, b in zip(taken, plain, strict=True)])
        for name, taken in seconds.items()
        if name != "no watch"
    }
    base, idle = median(plain) * 1e3, idle_hooks()
    ratios = {
        f"{bundle} every {n}" + (" (default)" if (bundle, n) == SCHEDULES[-1] else ""): round(
            1 + (added[bundle]["median"] + (n - 1) * idle) / n / base, 4
        )
        for bundle, n in SCHEDULES
    }
    return {
        "step_ms": summary([1e3 * s for s in plain]),
        "added_ms": added,
        "idle_hooks_ms": round(idle, 5),
        "step_with_watch_over_step_without": ratios,
        "how": "medians of paired differences on schedule and of idle hooks off it, averaged over the steps of a schedule",
    }


def idle_hooks(calls: int = 2000) -> float:
    """Milliseconds that three layers of two calls and one call of the watch take off schedule, beyond the calls alone."""
    model, nothing = nn.ModuleDict({name: nn.Identity() for name in LAYERS}), torch.zeros(1, 1)

    def run(watch: Watch | None) -> float:
        start = time.process_time()
        for _ in range(calls):
            for module in model.values():
                module(nothing)
                module(nothing)
            if watch:
                watch.step()
        return time.process_time() - start

    differences = []
    for _ in range(10):
        plain = run(None)
        with Watch(model, list(LAYERS), NEVER) as watch:
            differences.append((run(watch) - plain) / calls * 1e3)
    return median(differences)


def default_schedule(training: Training, rounds: int) -> Measured:
    """Ratio of a block of steps with a watch at its default schedule to the block before it without, by block."""
    ratios = []
    for _ in range(rounds):
        plain = sum(training.step(None) for _ in range(EVERY))
        with Watch(training.objective, LAYERS) as watch:
            watched = sum(training.step(watch) for _ in range(EVERY))
        ratios.append(watched / plain)
    return summary(ratios)


def memory(count: int = 512) -> Measured:
    """Bytes that a tap holds between two readings, by bundle and width, after two calls of ``count`` rows."""
    held: dict[str, dict[str, int]] = {}
    for name, bundle in BUNDLES.items():
        for dimension in (128, 512, 2048):
            module = nn.Identity()
            recorder = Recorder("rows", Tap("rows"), module, {statistic.needs for statistic in bundle})
            recorder.start_step(True)
            for seed in (0, 1):
                module(torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed)))
            gathered = recorder.take()
            assert gathered
            clouds = [gathered.moments, *([gathered.raw] if gathered.raw else [])]
            tensors = [tensor for cloud in clouds for tensor in (cloud.total, cloud.second, cloud.rows)]
            tensors += gathered.rows or ()
            held.setdefault(name, {})[f"d = {dimension}"] = sum(
                tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None
            )
    return {"what": f"bytes a tap holds after two calls of {count} rows", "bytes": held}


def parts_of(only: Sequence[str]) -> Iterator[tuple[str, Measured]]:
    """The parts asked for, one after another."""
    if "memory" in only:
        yield "memory", memory()
    for name, (make, rounds, blocks) in trainings().items():
        if "steps" in only:
            training = make()
            yield (
                name,
                {**step_costs(training, rounds), "default_schedule_measured": default_schedule(training, blocks)},
            )
    if "knn" in only:
        yield "knn", knn_costs(3)


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("steps", "knn", "memory")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "monitors.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Parts that are not measured now stay as they were, with the machine and commit they were measured on.
    report: Measured = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    about = {
        "machine": machine(),
        "commit": commit(),
        "command": f"python {' '.join(['benchmarks/monitors.py', *sys.argv[1:]])}",
    }
    for name, measured in parts_of(arguments.only):
        report[name] = {**measured, **about}
        print(name, json.dumps(measured, indent=2), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
