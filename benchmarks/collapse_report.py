"""How well the verdict and the alarm do on the collapse zoo, beside the rules that others use.

    python benchmarks/collapse_report.py ZOO --out benchmarks/results/collapse_zoo.json

Kinds and settings marked as held back, the second architecture among them, and every run on photographs were not seen by
``collapse_bounds.py``. Runs whose intervention did no measurable harm (``survived``) are counted and not scored.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collapse_zoo import FAILURES, SETTINGS
from zoo_records import Record, labels, load_all

from collapse_lab import augment, data
from collapse_lab.config import build
from collapse_lab.environment import environment
from collapse_lab.methods import METHODS
from collapse_lab.monitors.alarm import Alarm
from collapse_lab.monitors.history import Point, judge_run
from collapse_lab.monitors.verdict import judge_features
from collapse_lab.presets import DATA
from collapse_lab.runs import Run
from collapse_lab.trainer import Trainer

WARM_UP = 30
Score = Callable[[Record], "np.ndarray[Any, Any]"]

# Rules of others as scores that rise towards collapse, and the thresholds they are used with.
RULES: dict[str, tuple[Score, float]] = {
    "loss < -0.99": (lambda run: -run.train["loss"].to_numpy(), 0.99),
    "collapse level > 0.5": (lambda run: _collapse_level(run), 0.5),
    "std ratio < 0.5": (lambda run: 1 - run.train["std_ratio"].to_numpy(), 0.5),
    "RankMe/d < 0.1": (lambda run: -run.train["rankme"].to_numpy() / run.dimension, -0.1),
    "mean cosine > 0.99": (lambda run: run.train["mean_energy"].to_numpy(), 0.99),
}


def _collapse_level(run: Record) -> np.ndarray[Any, Any]:
    """lightly's: 1 - sqrt(d) x a running mean (0.9) of the std of the predictor's normalised output."""
    table = run.layers[(run.layers["layer"] == "predictor") & (run.layers["metric"] == "std_ratio")]
    curve = table.set_index("step")["value"].reindex(run.train.index).to_numpy()
    mean, levels = 0.0, []
    for value in curve:
        mean = 0.9 * mean + 0.1 * value
        levels.append(max(0.0, 1 - mean))
    return np.array(levels)


def first_above(run: Record, score: Score, threshold: float) -> int | None:
    """The first step after the warm-up at which a rule's score exceeds its threshold."""
    values = score(run)
    over = np.flatnonzero((values > threshold) & (np.arange(len(values)) >= WARM_UP))
    return int(run.train.index[over[0]]) if len(over) else None


def first_alert(run: Record, every: int = 1) -> Any:
    """The alert of our alarm at the projector, None where it stays silent; the last reading of a diverged run counts."""
    alarm = Alarm()
    for row in run.train.iloc[every - 1 :: every].itertuples():
        points = [Point(row.Index, "projector", name, getattr(row, name)) for name in ("rankme", "std_ratio")]
        for alert in alarm.update(points):
            return alert
    return None


def verdicts(records: dict[str, Record], given: dict[str, str]) -> dict[str, Any]:
    """Confusion of labels and verdicts in both halves, and what was not right."""
    result: dict[str, Any] = {}
    for half, tuning in (("tuning", True), ("held_back", False)):
        confusion: dict[str, Counter[str]] = defaultdict(Counter)
        wrong, each = [], {}
        right = sound = total = 0
        for name, truth in given.items():
            run = records[name]
            if run.tuning != tuning:
                continue
            found = "diverged" if run.error else judge_run({"projector": run.history()})["projector"].kind
            confusion[truth][found] += 1
            alert = first_alert(run)
            each[name] = [truth, found, run.step, None if alert is None else alert.step]
            if truth == "survived":
                continue
            total += 1
            right += found == truth
            sound += (found == "healthy") == (truth == "healthy")
            wrong += [f"{name}: {truth}, said {found}"] if found != truth else []
        result[half] = {
            "runs": total,
            "right_kind": round(right / total, 4),
            "sound_or_failed_right": round(sound / total, 4),
            "confusion": {truth: dict(row) for truth, row in sorted(confusion.items())},
            "wrong": wrong,
            "each: label, verdict, step of the break, step of the alarm": each,
        }
    return result


def false_alarms(runs: Iterable[Record], first: Callable[[Record], int | None]) -> dict[str, Any]:
    """False alarms per 10,000 steps of healthy runs and of broken ones before their break, by a bootstrap over kinds."""
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for run in runs:
        sound_until = len(run.train) if run.step == -1 else run.step
        if sound_until <= WARM_UP:
            continue
        step = first(run)
        counts[run.setting][0] += step is not None and step <= sound_until
        counts[run.setting][1] += sound_until
    clusters = np.array(list(counts.values()))
    rng = np.random.default_rng(0)
    draws = clusters[rng.integers(len(clusters), size=(4000, len(clusters)))].sum(1)
    alarms, steps = clusters.sum(0)
    low, high = np.quantile(1e4 * draws[:, 0] / draws[:, 1], [0.025, 0.975])
    # Without an event the bootstrap says 0 to 0: the bound is then that of no kind in k with one (rule of three on kinds).
    share = 1 - 0.05 ** (1 / len(clusters))
    high = max(float(high), 1e4 * share * len(clusters) / steps if alarms == 0 else 0.0)
    return {
        "alarms": int(alarms),
        "steps": int(steps),
        "kinds": len(clusters),
        "per_10000_steps": round(1e4 * alarms / steps, 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
    }


def delays(runs: list[Record], first: Callable[[Record], int | None]) -> dict[str, Any]:
    """Steps from the break to the alarm; an alarm before the break is false, one that never comes is missed."""
    found = [(run, first(run)) for run in runs]
    early = sum(step is not None and step <= run.step for run, step in found)
    late = [step - run.step for run, step in found if step is not None and step > run.step]
    ranked = sorted([*late, *[np.inf] * (len(runs) - early - len(late))])
    median = float(np.median(ranked)) if ranked else np.nan
    return {
        "runs": len(runs),
        "seen": len(late),
        "missed": len(runs) - early - len(late),
        "before_the_break": early,
        "median_delay": None if not np.isfinite(median) else median,
        "quartiles_of_seen": [float(q) for q in np.quantile(late, [0.25, 0.5, 0.75])] if late else None,
    }


def paired(
    runs: list[Record], ours: Callable[[Record], int | None], other: Callable[[Record], int | None]
) -> dict[str, int]:
    """On how many collapses our alarm is earlier than, level with, or later than another; before the break is never."""

    def when(run: Record, first: Callable[[Record], int | None]) -> float:
        step = first(run)
        return float(step) if step is not None and step > run.step else np.inf

    pairs = [(when(run, ours), when(run, other)) for run in runs]
    return {
        "earlier": sum(a < b for a, b in pairs),
        "level": sum(a == b for a, b in pairs),
        "later": sum(a > b for a, b in pairs),
    }


def any_layer_alerts(run: Record) -> bool:
    """Whether the alarm goes off at backbone, projector or predictor."""
    alarm = Alarm()
    table = run.layers[run.layers["metric"].isin(("rankme", "std_ratio"))]
    readings = table[["step", "layer", "metric", "value"]].sort_values("step", kind="stable")
    by_step = readings.groupby("step", sort=True)
    return any(alarm.update(Point(*row) for row in group.itertuples(index=False, name=None)) for _, group in by_step)


def alarms(records: dict[str, Record], given: dict[str, str]) -> dict[str, Any]:
    """False alarms and delays of our alarm, of each rule as it is used, and at the matched rate of none on tuning runs."""
    scored = {name: run for name, run in records.items() if given.get(name) not in (None, "survived")}
    quiet = [run for run in scored.values() if run.tuning and run.step == -1]
    ours = {run.name: alert.step if (alert := first_alert(run)) else None for run in scored.values()}
    detectors: dict[str, Callable[[Record], int | None]] = {"ours": lambda run: ours[run.name]}
    thresholds = {}
    for name, (score, used) in RULES.items():
        matched = max(float(score(run)[WARM_UP:].max()) for run in quiet)
        thresholds[name] = round(matched, 4)
        detectors[name] = lambda run, s=score, t=used: first_above(run, s, t)  # type: ignore[misc]
        detectors[f"{name}, matched threshold"] = lambda run, s=score, t=matched: first_above(run, s, t)  # type: ignore[misc]
    result: dict[str, Any] = {"matched_thresholds": thresholds}
    for half, tuning in (("tuning", True), ("held_back", False)):
        part = [run for run in scored.values() if run.tuning == tuning]
        broken = [run for run in part if run.step > 0 and given[run.name] != "diverged"]
        fallen = [run for run in broken if given[run.name] != "not-learning"]
        result[half] = {
            name: {
                "false_alarms": false_alarms(part, first),
                "collapses": delays(fallen, first),
                "ours_is": paired(fallen, detectors["ours"], first),
            }
            for name, first in detectors.items()
        }
    return result


def onsets(records: dict[str, Record], given: dict[str, str]) -> dict[str, Any]:
    """How often the onset interval of an alert holds the step of the break, and how wide and how late it is."""
    alerts = [
        (run, alert)
        for run in records.values()
        if run.step > 0 and "collapse" in given.get(run.name, "") and (alert := first_alert(run)) is not None
    ]
    after = [alert.onset[0] - run.step for run, alert in alerts]
    return {
        "alerts": len(alerts),
        "holds_the_break": sum(alert.onset[0] <= run.step < alert.onset[1] for run, alert in alerts),
        "median_last_sound_minus_break": float(np.median(after)),
        "median_width": float(np.median([alert.onset[1] - alert.onset[0] for _, alert in alerts])),
    }


def batch_sizes(draws: int = 20) -> dict[str, Any]:
    """Verdicts on one trained network's train-mode outputs at 64 to 1,024 rows drawn anew, for a sound and a fallen run."""
    result = {}
    for name, method_name in (("sound", "simsiam"), ("fallen", "no-stop-gradient")):
        config = build(
            method_name, DATA["digits"], METHODS[method_name].settings, {"train.device": "cpu", "train.epochs": 40}
        )
        images = data.load(config.data)
        with tempfile.TemporaryDirectory() as directory, Run(Path(directory), config) as run:
            trainer = Trainer(config, run, images, lambda progress: None)
            trainer.run_epochs()
        generator = torch.Generator().manual_seed(0)
        kinds: dict[str, dict[str, int]] = {}
        for rows in (64, 128, 256, 512, 1024):
            counted: Counter[str] = Counter()
            for epoch in range(draws):
                chosen = torch.randperm(len(images.train), generator=generator)[: rows // 2]
                views = augment.views(images.train[chosen], chosen, config.augment, seed=1, epoch=epoch, views=(0, 1))
                with torch.no_grad():
                    z = torch.cat([trainer.objective.encoder(view) for view in views])
                counted[judge_features(z, mode="train").kind] += 1
            kinds[str(rows)] = dict(counted)
        result[name] = kinds
    return result


def main() -> None:
    """Judge every run and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/collapse_zoo.json"))
    arguments = parser.parse_args()
    records = load_all(arguments.zoo)
    given = labels(records)
    spacing = {
        f"every {every} steps": sum(first_alert(run, every) is not None for run in records.values() if run.step == -1)
        for every in (1, 2, 5)
    }
    healthy = [run for run in records.values() if run.step == -1]
    spacing["every step, at any of the three layers"] = sum(map(any_layer_alerts, healthy))
    made_with = {key: value for key, value in environment().items() if key != "command"}
    answer = {
        "command": "python benchmarks/collapse_report.py ZOO",
        "runs": len(records),
        "labels": dict(Counter(given.values())),
        "held_back": {
            "settings": [name for name, setting in SETTINGS.items() if setting.held_back] + ["fashion-*", "cifar-*"],
            "failures": [name for name, failure in FAILURES.items() if failure.held_back],
        },
        "verdicts": verdicts(records, given),
        "alarms": alarms(records, given),
        "healthy_runs_with_an_alert": spacing,
        "onsets": onsets(records, given),
        "verdicts_by_rows": batch_sizes(),
        "environment": made_with,
    }
    arguments.out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    for half in ("tuning", "held_back"):
        answer["verdicts"][half].pop("each: label, verdict, step of the break, step of the alarm")
    shown = ("runs", "labels", "verdicts", "onsets", "verdicts_by_rows")
    print(json.dumps({key: answer[key] for key in shown}, indent=1))
    for half in ("tuning", "held_back"):
        for name, row in answer["alarms"][half].items():
            print(half, name, row["false_alarms"]["per_10000_steps"], row["false_alarms"]["interval"], row["collapses"])


if __name__ == "__main__":
    main()
