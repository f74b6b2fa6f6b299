"""The tables that people read: of methods, of measures, of a study; on a terminal, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from collapse_lab.methods import METHODS
from collapse_lab.paper import NUMBERS

Cells = Sequence[dict[str, str]]


def method_cells() -> list[dict[str, str]]:
    """One row a method: its name, what it is, the settings that make it, source, the paper's number."""
    return [
        {
            "method": name,
            "what": row.what,
            "settings": ", ".join(f"{key}={str(value).lower()}" for key, value in row.overrides.items()) or "defaults",
            "source": row.source,
            "paper": papers(row.paper),
        }
        for name, row in METHODS.items()
    ]


def papers(key: str | None) -> str:
    """A paper's number as printed, from its key in ``paper.NUMBERS``; what is no key stands for itself, None for "-".

    >>> papers("figure-2/stop-gradient"), papers(None)
    ('67.7 ± 0.1', '-')
    """
    return NUMBERS[key].text() if key is not None and key in NUMBERS else key or "-"


def metric_cells() -> list[dict[str, str]]:
    """One row a measure that a watch reads, from the measures' own metadata, with the least bundle that it is in."""
    from collapse_lab.monitors.statistics import CHEAP, FULL, STANDARD

    bundle = {statistic.name: "full" for statistic in FULL}
    bundle |= {statistic.name: "standard" for statistic in STANDARD} | {statistic.name: "cheap" for statistic in CHEAP}
    return [
        {
            "metric": statistic.name,
            "formula": statistic.formula,
            "range": statistic.range,
            "collapse reads": statistic.collapse,
            "blind to": statistic.blind_to,
            "needs N": statistic.least_rows,
            "source": statistic.source,
            "bundle": bundle[statistic.name],
        }
        for statistic in FULL
    ]


def markdown(cells: Cells) -> str:
    """Rows of equal keys as a Markdown table.

    >>> print(markdown([{"a": "1", "b": "2"}]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [list(cells[0]), ["---"] * len(cells[0]), *(list(row.values()) for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def terminal(cells: Cells) -> Table:
    """Rows of equal keys as a table for a terminal."""
    table = Table(*cells[0])
    for row in cells:
        table.add_row(*row.values())
    return table


def comparison_cells(summary: dict[str, Any]) -> list[dict[str, str]]:
    """One row an arm of a study's summary: mean ± std over seeds, accuracies of the backbone in percent, start -> end."""
    pixels = summary["protocol"]["pixels"]
    baseline = {"method": "raw pixels", "kNN %": f"{100 * pixels['knn']:.1f}"}
    baseline |= {"linear %": "-" if pixels["linear"] is None else f"{100 * pixels['linear']:.1f}"}
    arms = [
        {
            "method": name,
            "n": str(len(arm["seeds"])),
            "loss": spread(arm["loss"], 4),
            "std ratio": spread(arm["std_ratio"], 3),
            "RankMe": spread(arm["rankme"], 1),
            "kNN %": f"{percent(arm['knn_start'])} -> {percent(arm['knn'])}",
            "linear %": f"{percent(arm['linear_start'])} -> {percent(arm['linear'])}",
            "verdict": tally(arm["verdicts"]),
            "paper": papers(METHODS[name].paper) if name in METHODS else "-",
        }
        for name, arm in summary["arms"].items()
    ]
    return [*arms, {key: baseline.get(key, "") for key in arms[0]}]


def comparison_caption(summary: dict[str, Any]) -> str:
    """What the columns of a comparison are."""
    protocol = summary["protocol"]
    monitor = protocol["config"]["monitor"]
    return (
        f"{protocol['data']}. Loss, std ratio and RankMe: train mode at the projector, last epoch. kNN (k = {monitor['k']}, "
        f"T = {monitor['temperature']:g}) and linear probe: backbone, all test images, start -> end. Mean ± std over n "
        "seeds. Paper: Chen & He (2020), linear evaluation on ImageNet with ResNet-50: their numbers, not ours."
    )


def spread(value: dict[str, Any], digits: int) -> str:
    """Mean ± standard deviation; "-" where there is no value."""
    if value["mean"] is None:
        return "-"
    deviation = f" ± {value['std']:.{digits}f}" if value["std"] is not None else ""
    return f"{value['mean']:.{digits}f}{deviation}"


def percent(value: dict[str, Any]) -> str:
    """Fractions as mean ± standard deviation in percent."""
    scaled = {name: None if value[name] is None else 100 * value[name] for name in ("mean", "std")}
    return spread(scaled, 1)


def tally(verdicts: list[str | None]) -> str:
    """Every verdict with how often it was given."""
    return ", ".join(f"{verdict} x {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts) if verdict) or "-"
