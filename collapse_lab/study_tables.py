"""The tables of one study's summary: did the output collapse, did the representation fail, what the differences say."""

from __future__ import annotations

from typing import Any

from collapse_lab.paper import NUMBERS
from collapse_lab.tables import percent, spread, tally

Summary = dict[str, Any]


def output_cells(summary: Summary) -> list[dict[str, str]]:
    """Did the output collapse: loss, amplitude, rank and verdict of z at the projector, a row an arm."""
    return [
        {
            "arm": label,
            "seeds": _seeds(arm),
            "loss": spread(arm["loss"], 4),
            "std ratio": spread(arm["std_ratio"], 3),
            "mean energy": spread(arm["mean_energy"], 3),
            "RankMe": spread(arm["rankme"], 1),
            "verdict": tally(arm["verdicts"]),
        }
        for label, arm in summary["arms"].items()
    ]


def representation_cells(summary: Summary) -> list[dict[str, str]]:
    """Did the representation fail: accuracies of the backbone from the calibrated start to the end, a row an arm."""
    pixels = summary["protocol"]["pixels"]
    rows = [
        {
            "arm": label,
            "seeds": _seeds(arm),
            "linear %, start": percent(arm["linear_start"]),
            "linear %, end": percent(arm["linear"]),
            "gain, points": percent(arm["linear_gain"]),
            "kNN %, start": percent(arm["knn_start"]),
            "kNN %, end": percent(arm["knn"]),
        }
        for label, arm in summary["arms"].items()
    ]
    baseline = dict.fromkeys(rows[0], "") | {"arm": "raw pixels"}
    for column, name in (("linear %, end", "linear"), ("kNN %, end", "knn")):
        baseline[column] = "-" if pixels[name] is None else f"{100 * pixels[name]:.1f}"
    return [*rows, baseline]


def measure_cells(summary: Summary) -> list[dict[str, str]]:
    """What the study measured beyond that and shows, a row an arm; empty where it measured nothing."""
    measured = dict.fromkeys(name for arm in summary["arms"].values() for name in arm["measures"])
    names = [name for name in summary.get("shown") or measured if name in measured]
    return [
        {"arm": label} | {name: _significant(arm["measures"].get(name)) for name in names}
        for label, arm in summary["arms"].items()
        if names
    ]


def contrast_cells(summary: Summary) -> list[dict[str, str]]:
    """The paired differences and what their intervals allow to say, a row each."""
    return [
        {"difference": f"{row['one']} - {row['other']}", "in": row["quantity"], "what the data allow": row["sentence"]}
        for row in summary["contrasts"]
    ]


def paper_cells(summary: Summary) -> list[dict[str, str]]:
    """The papers' own numbers for these arms, with their setting; empty where there is none."""
    return [
        {
            "arm": label,
            "theirs": NUMBERS[arm["paper"]].text(),
            "what": NUMBERS[arm["paper"]].what,
            "source": NUMBERS[arm["paper"]].source,
            "setting": NUMBERS[arm["paper"]].setting,
        }
        for label, arm in summary["arms"].items()
        if arm["paper"] is not None
    ]


def failures(summary: Summary) -> list[str]:
    """One line for every run that did not finish: which, how far, why."""
    return [
        f"{label}, seed {run['seed']}: {run['state']}" + (f", {run['error']}" if run["error"] else "")
        for label, arm in summary["arms"].items()
        for run in arm["runs"]
        if run["state"] != "done"
    ]


def caption(summary: Summary) -> str:
    """What the columns are, and what an interval is worth where there are many."""
    protocol, count = summary["protocol"], len(summary["contrasts"])
    monitor = protocol["config"]["monitor"]
    return (
        f"{protocol['data']}. Output: train mode at the projector, mean over the last epoch. Representation: the backbone on "
        f"all test images, linear probe and kNN (k = {monitor['k']}, T = {monitor['temperature']:g}), start with BatchNorm "
        "calibrated; gain is end minus start. Mean ± std over the seeds that finished. Differences are paired by seed, with "
        f"95 % t-intervals, each by itself: of {count} such intervals {count / 20:.2g} would miss the truth on average."
    )


def _seeds(arm: dict[str, Any]) -> str:
    total = len(arm["runs"])
    return f"{len(arm['seeds'])}" if len(arm["seeds"]) == total else f"{len(arm['seeds'])} of {total}"


def _significant(value: dict[str, Any] | None) -> str:
    if value is None or value["mean"] is None:
        return "-"
    return f"{value['mean']:.3g}" + (f" ± {value['std']:.2g}" if value["std"] is not None else "")


def as_tables(summary: Summary) -> list[list[dict[str, str]]]:
    """All tables of a study in the order in which they are read, without empty ones."""
    tables = [
        output_cells(summary),
        representation_cells(summary),
        measure_cells(summary),
        contrast_cells(summary),
        paper_cells(summary),
    ]
    return [cells for cells in tables if cells]
