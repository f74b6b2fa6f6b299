"""Make ``collapse_lab/monitors/bounds.json``: simulated null bands, and bounds from the tuning half of the collapse zoo.

    python benchmarks/collapse_bounds.py ZOO [--simulate]

The rule for every bound is the same: the worst value of sound tuning runs and the best value of failed ones leave a gap, and
the healthy bound lies a third of the way across it, the collapse bound two thirds. ``--simulate`` draws the null table
anew (minutes); otherwise the table in the file is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from collapse_null import simulate
from zoo_records import Record, labels, load_all, select

from collapse_lab.monitors import bounds
from collapse_lab.monitors.bounds import equivalent_alpha

TARGET = Path(bounds.__file__).with_name("bounds.json")
COMPLETE = ("complete-collapse",)
LOST = ("complete-collapse", "outlier-collapse")
RANK = ("dimensional-collapse",)


def across(sound: Iterable[float], failed: Iterable[float], larger_is_sound: bool) -> dict[str, float]:
    """The two bounds a third and two thirds of the way across the gap; both in its middle where there is none."""
    worst, best = (min(sound), max(failed)) if larger_is_sound else (max(sound), min(failed))
    if (worst > best) != larger_is_sound:
        worst = best = (worst + best) / 2
    return {"healthy": round(worst + (best - worst) / 3, 4), "collapse": round(worst + 2 * (best - worst) / 3, 4)}


def mode_bounds(sound: list[Record], lost: list[Record], rank: list[Record], mode: str) -> dict[str, Any]:
    """Bounds of one mode; eval-mode rows are the test images."""

    def end(run: Record) -> Any:
        return run.end if mode == "train" else run.evaluated.iloc[-1]

    def alpha(run: Record) -> float:
        rows = run.rows if mode == "train" else TEST_ROWS
        return equivalent_alpha(end(run).rankme, rows, run.dimension)

    def of(name: str) -> Callable[[Record], float]:
        return lambda run: float(end(run)[name])

    result = {}
    for name, larger in (("std_ratio", True), ("mean_energy", False)):
        result[name] = across(map(of(name), sound), map(of(name), lost), larger)
    # What falls later is seen against its own past; the absolute bound is for what failed from the first step.
    result["alpha"] = across(map(alpha, sound), [alpha(run) for run in (*lost, *rank) if run.step == 0], False)
    return result


TEST_ROWS = 360


def tune(records: dict[str, Record]) -> dict[str, Any]:
    """Every bound of the verdict from the runs that tuning may see."""
    given = labels(records)
    sound, lost, rank, stuck = (select(records, given, k) for k in (("healthy",), LOST, RANK, ("not-learning",)))
    complete = select(records, given, COMPLETE)
    made: dict[str, Any] = {mode: mode_bounds(sound, lost, rank, mode) for mode in ("train", "eval")}
    outliers = select(records, given, ("outlier-collapse",))
    share = across([run.end.outlier_share for run in sound], [run.end.outlier_share for run in outliers], False)
    for mode in ("train", "eval"):
        made[mode]["outlier_share"] = share
    # Complete collapse is told from lost directions at the middle between the two.
    made["train"]["std_ratio"]["collapse"] = _middle(
        [r.end.std_ratio for r in complete], [r.end.std_ratio for r in rank]
    )
    made["train"]["mean_energy"]["collapse"] = _middle(
        [-r.end.mean_energy for r in complete], [-r.end.mean_energy for r in rank], -1
    )
    for name in ("std_ratio", "mean_energy"):
        made["eval"][name]["collapse"] = made["train"][name]["collapse"]
    own = [run for run in rank if run.step > 0]
    made["share"] = {
        "std_ratio": across([_fall(r, "std_ratio", 200) for r in sound], [0.5], True),
        "rankme": across([_fall(r, "rankme", 200) for r in sound], [_fall(r, "rankme", r.step) for r in own], True),
        "centred_rankme": across(
            [_fall(r, "centred_rankme", 200) for r in sound], [_fall(r, "rankme", r.step) for r in own], True
        ),
    }
    # A run may also fail to learn with a low loss; only a loss above every sound one is lack of agreement.
    losses = [r.end.loss for r in sound]
    made["agreement"] = _middle(losses, [r.end.loss for r in stuck if r.end.loss > max(losses)], -1)
    made["swing"] = round(3 * max(_swing(run) for run in sound), 4)
    return made


def _middle(low: list[float], high: list[float], sign: int = 1) -> float:
    """Halfway between the largest of the low values and the smallest of the high ones; the sign is undone."""
    return round(sign * (max(low) + min(high)) / 2, 4)


def _fall(run: Record, name: str, step: int) -> float:
    """The end over the level at a step."""
    before = run.train.loc[max(1, step - 20) : step, name].median()
    return float(run.end[name] / before)


def _swing(run: Record) -> float:
    logs = np.log(run.train["rankme"].to_numpy()[100:])
    steps = np.abs(np.diff(logs))
    return max(float(np.median(steps[first : first + 19])) for first in range(0, len(steps) - 19, 20))


def main() -> None:
    """Tune, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--simulate", action="store_true")
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    if arguments.simulate or "null" not in kept:
        kept["null"] = simulate(8)
        TARGET.write_text(json.dumps(kept))
    records = load_all(arguments.zoo)
    made = tune(records)
    tuned = [run for run in records.values() if run.tuning]
    healthy = sum(run.step == -1 for run in tuned)
    how = {
        "command": "python benchmarks/collapse_bounds.py ZOO",
        "tuned_on": f"{healthy} sound runs and {len(tuned) - healthy} broken ones on the digits, 8x8",
        "rule": "a third and two thirds across the gap between sound and failed tuning runs",
    }
    TARGET.write_text(json.dumps({"made": how, "null": kept["null"], "bounds": made}) + "\n", encoding="utf-8")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
