"""One million starts of the basin map in one call, beside what a user would write: a loop over ``solve_ivp``.

    taskset -c 0,1 python benchmarks/basin.py

Every case runs once to warm up and then five times in a process of its own, which gives its peak memory. About five
minutes on two cores.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.integrate import solve_ivp

from collapse_lab.toy.basin import Plane, fates, integrated_fates
from collapse_lab.toy.fate import COLLAPSED, NOT_COLLAPSED, UNDECIDED
from collapse_lab.toy.scalar import Scalar, field

OUT = Path(__file__).parent / "results" / "basin.json"
SIDE, SAMPLE, TIME, REPEATS = 1000, 1000, 50.0, 5
PLAIN, DECAYED = Scalar(), Scalar(noise2=0.5, weight_decay=0.05)


def starts() -> tuple[np.ndarray, np.ndarray]:
    """A million starts, (1,000,000,) each."""
    phi, theta = Plane(size=SIDE).starts
    return phi.ravel(), theta.ravel()


def sample() -> tuple[np.ndarray, np.ndarray]:
    """A thousand of them, drawn once."""
    phi, theta = starts()
    chosen = np.random.default_rng(0).choice(phi.size, SAMPLE, replace=False)
    return phi[chosen], theta[chosen]


def labelled(system: Scalar, end: np.ndarray) -> np.ndarray:
    """The label that a user would read off at the end of the time."""
    return np.where(np.abs(end) < 1e-3, COLLAPSED, NOT_COLLAPSED)


def loop(system: Scalar) -> np.ndarray:
    """One ``solve_ivp`` a start."""
    ends = [
        solve_ivp(lambda t, y: field(system, y[0], y[1]), (0, TIME), start, "DOP853", rtol=1e-9, atol=1e-12).y[1, -1]
        for start in np.stack(sample(), 1)
    ]
    return labelled(system, np.array(ends))


def one_solve(system: Scalar) -> np.ndarray:
    """One ``solve_ivp`` over all starts at once."""
    phi, theta = starts()
    y = np.concatenate([phi, theta])
    half = phi.size

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        return field(system, y[:half], y[half:]).ravel()

    return labelled(system, solve_ivp(rate, (0, TIME), y, rtol=1e-6, atol=1e-9, t_eval=[TIME]).y[half:, -1])


def wrong(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of labels that differ, of the starts that are labelled."""
    known = found != UNDECIDED
    return float((found[known] != truth[known]).mean())


CASES: dict[str, tuple[int, Callable[[], np.ndarray], Callable[[], np.ndarray]]] = {
    "fates, no weight decay": (
        SIDE**2,
        lambda: fates(PLAIN, *starts()),
        lambda: integrated_fates(PLAIN, *starts())[0],
    ),
    "fates, noise 0.5 and weight decay 0.05": (
        SIDE**2,
        lambda: fates(DECAYED, *starts()),
        lambda: integrated_fates(DECAYED, *starts())[0],
    ),
    "integrated_fates, no weight decay": (
        SIDE**2,
        lambda: integrated_fates(PLAIN, *starts())[0],
        lambda: fates(PLAIN, *starts()),
    ),
    "one solve_ivp over all, t = 50": (SIDE**2, lambda: one_solve(PLAIN), lambda: fates(PLAIN, *starts())),
    "loop over solve_ivp, t = 50": (SAMPLE, lambda: loop(PLAIN), lambda: fates(PLAIN, *sample())),
    "fates of the loop's starts": (
        SAMPLE,
        lambda: fates(PLAIN, *sample()),
        lambda: integrated_fates(PLAIN, *sample())[0],
    ),
}


def measured(name: str) -> dict[str, Any]:
    """Seconds of each repeat, peak memory of the process before the comparison, and the share of labels that differ."""
    count, run, truth = CASES[name]
    # The first call pays for what is loaded and allocated once.
    run()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    other = truth()
    return {
        "starts": count,
        "seconds": {"mean": statistics.mean(seconds), "std": statistics.stdev(seconds), "values": seconds},
        "peak_gib": peak,
        "undecided": float((found == UNDECIDED).mean()),
        "differ": wrong(found, np.where(other == UNDECIDED, found, other)),
    }


def main() -> None:
    """Run every case and write the results."""
    pool = multiprocessing.get_context("spawn")
    cases = {}
    for name in CASES:
        with pool.Pool(1) as worker:
            cases[name] = worker.apply(measured, (name,))
        print(name, json.dumps(cases[name]), file=sys.stderr)
    per_start = [cases[name]["seconds"]["mean"] / cases[name]["starts"] for name in CASES]
    ratio = (
        cases["loop over solve_ivp, t = 50"]["seconds"]["mean"] / cases["fates of the loop's starts"]["seconds"]["mean"]
    )
    result = {
        "command": "taskset -c 0,1 python benchmarks/basin.py",
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "device": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "cases": cases,
        "loop_over_fates_at_1000_starts": ratio,
        "loop_over_fates_per_start_at_a_million": per_start[4] / per_start[0],
        "loop_over_fates_with_decay_per_start": per_start[4] / per_start[1],
        "loop_over_integrated_fates_per_start": per_start[4] / per_start[2],
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
