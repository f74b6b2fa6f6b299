"""Study files carried out: every run of all of them in one pool, then what is measured, then a summary each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from collapse_lab import data, paired
from collapse_lab.errors import InputError, did_you_mean
from collapse_lab.grid import train_grids
from collapse_lab.measured import kept, measure_all, resolve
from collapse_lab.plan import Plan
from collapse_lab.run_records import read_status
from collapse_lab.study import QUANTITIES, Contrast, Measure
from collapse_lab.summary import arm, protocol, seed_of, spread, starts
from collapse_lab.whole import write_whole
from collapse_lab.workers import HERE, Engine, Listener

RESULTS = "results"
# Fractions, which are spoken of in percentage points.
ACCURACIES = ("knn", "linear")


class Outcome(NamedTuple):
    """The summaries of studies by name, and the errors that kept runs or measures from their end."""

    summaries: Mapping[str, dict[str, Any]]
    errors: Sequence[BaseException]


def carry_out(
    out: Path,
    plans: Sequence[Plan],
    *,
    overwrite: bool,
    listen: Listener,
    tell: Callable[[str], None],
    engine: Engine = HERE,
) -> Outcome:
    """Train and measure what is not there yet, and write ``OUT/results/<study>/summary.json`` for every study.

    ``engine`` trains; measured is here, on a GPU where there is one.

    Raises ``InputError`` before any training for two studies of one name and a measure that does not exist, and as
    ``grid.train_grids`` does.
    """
    names = [plan.file.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"study files: two are named '{name}', and results lie by name; rename one")
    for plan in plans:
        for measure in plan.file.study.measures:
            resolve(measure)
    errors = train_grids(out, [plan.grid for plan in plans], overwrite=overwrite, listen=listen, engine=engine)
    errors += measure_all(_to_measure(out, plans), tell)
    summaries = {plan.file.name: _summarised(out, plan) for plan in plans}
    errors += [error for plan in plans for error in _unrecorded(out, plan, summaries[plan.file.name])]
    return Outcome(summaries, errors)


def _to_measure(out: Path, plans: Sequence[Plan]) -> dict[Path, list[Measure]]:
    wanted: dict[Path, list[Measure]] = {}
    for plan in plans:
        for run in {run for runs in plan.runs(out).values() for run in runs if read_status(run)["state"] == "done"}:
            wanted.setdefault(run, []).extend(plan.file.study.measures)
    return wanted


def _unrecorded(out: Path, plan: Plan, summary: Mapping[str, Any]) -> list[InputError]:
    """Refusals of what a study asks for and no run records; a measure that gave nothing could have given anything."""
    study = plan.file.study
    done = [run for runs in plan.runs(out).values() for run in runs if read_status(run)["state"] == "done"]
    if not all(any(kept(run, measure) for run in done) for measure in study.measures):
        return []
    measured = list(dict.fromkeys(name for found in summary["arms"].values() for name in found["measures"]))
    compared = [name for one in study.contrasts for name in (one.quantity, one.against) if name is not None]
    asked = {("shown", name): measured for name in study.shown}
    asked |= {("contrasts", name): [*measured, *QUANTITIES] for name in compared}
    return [
        InputError(f"study file '{plan.file.path}': {where}: no run records '{name}'; {_instead(name, known)}")
        for (where, name), known in asked.items()
        if name not in known
    ]


def _instead(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known, f"there are {', '.join(known)}")


def _summarised(out: Path, plan: Plan) -> dict[str, Any]:
    """Write and return the summary of one study."""
    study, runs = plan.file.study, plan.runs(out)
    arms = {label: _arm(out, plan, label, runs[label]) for label in study.arms}
    every = sorted({run for of_arm in runs.values() for run in of_arm})
    described = protocol(out / plan.grid.name, plan.grid.shared, data.load(plan.grid.shared.data), every)
    summary = {
        "study": plan.file.name,
        "question": study.question,
        "predictions": dict(study.predictions),
        "answer": study.answer,
        "headline": study.headline,
        "shown": list(study.shown),
        "cost": study.cost,
        "protocol": {**described, **_origins(every)},
        "arms": arms,
        "contrasts": [_contrast(contrast, arms, study.headline) for contrast in study.contrasts],
    }
    path = out / RESULTS / plan.file.name / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(summary, indent=2) + "\n")
    return summary


def _arm(out: Path, plan: Plan, label: str, runs: Sequence[Path]) -> dict[str, Any]:
    row = plan.file.study.arms[label]
    statuses = {seed_of(run): read_status(run) for run in runs}
    found = arm(runs)
    done = [run for run in runs if seed_of(run) in found["seeds"]]
    return {
        "method": row.method,
        "overrides": dict(row.overrides),
        "paper": row.paper,
        "directory": (Path(plan.grid.name) / plan.directories[label]).as_posix(),
        "runs": [
            {"seed": seed, **{name: status[name] for name in ("state", "verdict", "error")}}
            for seed, status in statuses.items()
        ],
        **found,
        "measures": _measures(plan.file.study.measures, done),
    }


def _measures(measures: Sequence[Measure], runs: Sequence[Path]) -> dict[str, Any]:
    """Every value measured on the runs, by name; with its parameters where one function is asked for twice."""
    functions = [measure.function for measure in measures]
    found: dict[str, list[float | None]] = {}
    for measure in measures:
        values = [kept(run, measure) or {} for run in runs]
        told = ", ".join(f"{key}={value}" for key, value in measure.parameters.items())
        for name in dict.fromkeys(name for of_run in values for name in of_run):
            full = f"{name} ({told})" if functions.count(measure.function) > 1 and told else name
            if full in found:
                raise InputError(f"measures: two give a value named '{full}'; rename one")
            found[full] = [of_run.get(name) for of_run in values]
    return {name: spread(values) for name, values in found.items()}


def _contrast(contrast: Contrast, arms: Mapping[str, dict[str, Any]], headline: bool) -> dict[str, Any]:
    one = _by_seed(arms[contrast.one], contrast.quantity)
    other = _by_seed(arms[contrast.other], contrast.against or contrast.quantity)
    differences = paired.differences(one, other)
    found = paired.interval(list(differences.values())) if differences else None
    asked = {run["seed"] for label in (contrast.one, contrast.other) for run in arms[label]["runs"]}
    missing = sorted(asked - differences.keys())
    return {
        "one": contrast.sides[0],
        "other": contrast.sides[1],
        "quantity": contrast.quantity,
        "seeds": list(differences),
        "differences": list(differences.values()),
        "missing": missing,
        **(found._asdict() if found else {"mean": None, "low": None, "high": None, "n": 0}),
        "sentence": _sentence(contrast, found, missing, headline),
    }


def _by_seed(found: Mapping[str, Any], quantity: str) -> dict[int, float]:
    source = found if quantity in QUANTITIES else found["measures"]
    values = source[quantity]["values"] if quantity in source else [None] * len(found["seeds"])
    return {seed: value for seed, value in zip(found["seeds"], values, strict=True) if value is not None}


def _sentence(contrast: Contrast, found: paired.Interval | None, missing: Sequence[int], headline: bool) -> str:
    points = contrast.quantity.startswith(ACCURACIES)
    scale, unit = (100.0, " points") if points else (1.0, "")
    parts = [paired.sentence(contrast.quantity, *contrast.sides, found, scale, unit)]
    if found and missing:
        parts.append(
            f"Without seed{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}, which gave no value in both."
        )
    if headline and (found is None or found.n < paired.HEADLINE):
        parts.append(f"This question asks for n >= {paired.HEADLINE}: preliminary.")
    return " ".join(parts)


def _origins(runs: Sequence[Path]) -> dict[str, Any]:
    """Every commit, device and version of torch that the runs were made with."""
    found = starts(runs)
    return {
        "commits": sorted({str(start["commit"]) for start in found}),
        "devices": sorted({start["device"] for start in found}),
        "torch": sorted({start["packages"]["torch"] for start in found}),
    }
