"""The tables that people read: of methods, of measures, of a study; on a terminal, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from rich.markup import escape
from rich.table import Table

from collapse_lab import parts
from collapse_lab.config import build
from collapse_lab.methods import METHODS, Method
from collapse_lab.paper import NUMBERS, SIMSIAM

Cells = Sequence[dict[str, str]]

METHODS_CAPTION = (
    "Passes: of the encoder over the batch in a step, with a graph for the backward pass + without. Paper: linear evaluation "
    "on ImageNet with ResNet-50 as printed in Chen & He (2020), never ours."
)


def method_cells() -> list[dict[str, str]]:
    """One row a method: what it is, its parts that SimSiam has otherwise, encoder passes, source, the paper's number, tests.

    Passes are "with a graph + without", of the whole batch in one step.
    """
    return [
        {
            "method": name,
            "what": row.what,
            "other than SimSiam": "; ".join(part.what for part in parts.parts(row)) or "-",
            "passes": "{} + {}".format(*_passes(name)),
            "source": row.source,
            "paper": _printed(row.paper),
            "tested in": ", ".join(
                dict.fromkeys(PurePosixPath(test.split("::")[0]).stem for test in parts.pointers(row))
            ),
        }
        for name, row in METHODS.items()
    ]


def narrow_method_cells() -> list[dict[str, str]]:
    """What of ``method_cells`` can be read on 80 columns."""
    return [{key: row[key] for key in ("method", "other than SimSiam", "paper")} for row in method_cells()]


def family_cells() -> list[dict[str, str]]:
    """One row a part of SimSiam that methods change: their names."""
    families: dict[str, list[str]] = {name: [] for name in parts.FAMILIES}
    for name, row in METHODS.items():
        families.setdefault(parts.family(row), []).append(name)
    return [{"changed": name, "methods": ", ".join(found)} for name, found in families.items() if name != "-"]


def part_cells() -> list[dict[str, str]]:
    """One row a part that SimSiam has otherwise: its setting, the methods that have it, the test that states what it does."""
    rows = [
        (part, [name for name, row in METHODS.items() if part.test in parts.pointers(row) and _has(row, key, value)])
        for (key, value), part in parts.PARTS.items()
    ]
    settings = [f"`{key}`" if value == parts.ANY else f"`{key} = {str(value).lower()}`" for key, value in parts.PARTS]
    return [
        {"part": setting, "of": part.family, "methods": ", ".join(names), "tested in": f"`{part.test}`"}
        for setting, (part, names) in zip(settings, rows, strict=True)
    ]


def method_documents() -> list[dict[str, Any]]:
    """One mapping a method with all that its row says: settings, defaults, parts, passes, source, the paper's number, tests."""
    return [
        {
            "method": name,
            "what": row.what,
            "source": row.source,
            "settings": dict(row.overrides),
            "defaults": dict(row.defaults),
            "parts": [part.what for part in parts.parts(row)],
            "encoder_passes": _passes(name)._asdict(),
            "paper": {"key": row.paper, **_number(row.paper)} if row.paper else None,
            "tested_in": parts.pointers(row),
        }
        for name, row in METHODS.items()
    ]


def _has(row: Method, key: str, value: object) -> bool:
    return row.settings.get(key) == value or (value == parts.ANY and key in row.settings)


def _passes(name: str) -> parts.Passes:
    return parts.passes(build(name, METHODS[name].settings))


def _number(key: str) -> dict[str, str]:
    number = NUMBERS[key]
    return {"value": number.text(), "what": number.what, "source": number.source, "setting": number.setting}


def _printed(key: str | None) -> str:
    """The number and its place in Chen & He (2020)."""
    return f"{NUMBERS[key].text()} ({NUMBERS[key].source.removeprefix(f'{SIMSIAM}, ')})" if key else "-"


def papers(key: str | None) -> str:
    """A paper's number as printed, from its key in ``paper.NUMBERS``; "-" where there is none.

    >>> papers("figure-2/stop-gradient"), papers(None)
    ('67.7 ± 0.1', '-')
    """
    return NUMBERS[key].text() if key else "-"


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
    """Rows of equal keys as a table for a terminal; what stands first, a name, is not broken over lines."""
    table = Table(*cells[0])
    table.columns[0].no_wrap = True
    for row in cells:
        table.add_row(*map(escape, row.values()))
    return table


def comparison_cells(summary: dict[str, Any]) -> list[dict[str, str]]:
    """One row an arm of a study's summary: mean ± std over seeds, accuracies of the backbone in percent, start -> end."""
    pixels = summary["protocol"]["pixels"]
    baseline = {"method": "raw pixels"}
    for column, name in (("kNN %", "knn"), ("linear %", "linear")):
        baseline[column] = "-" if pixels[name] is None else f"{100 * pixels[name]:.1f}"
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
