"""Write the tables of README.md and docs/methods.md anew from the package's own metadata and the committed summaries.

    python figures/readme.py          rewrites both between their <!-- table NAME --> marks

Nothing in those tables is typed by hand; a test fails where a page and this script disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collapse_lab import tables

ROOT = Path(__file__).resolve().parent.parent
GALLERY = {"Fashion-MNIST": "fashion-mnist", "CIFAR-10": "cifar10"}
HEADS = ("none", "affine", "non-affine")
RESULTS = ROOT / "experiments" / "results"
METADATA: dict[str, Callable[[], tables.Cells]] = {
    "families": tables.family_cells,
    "methods": tables.method_cells,
    "parts": tables.part_cells,
    "metrics": tables.metric_cells,
}
COSTS = ROOT / "benchmarks" / "results" / "methods.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "methods.md")


def table(name: str) -> str:
    """The Markdown of one table: families, methods, parts, metrics, costs, heads, or gallery."""
    if name in METADATA:
        return tables.markdown(METADATA[name]())
    if name == "costs":
        return costs()
    if name == "heads":
        found = {head: summary(f"digits-{head}") for head in HEADS}
        rows = [{"BatchNorm on z": head, **row} for head in HEADS for row in arms(found[head])]
    else:
        found = {title: summary(study) for title, study in GALLERY.items()}
        rows = [{"data": title, **row} for title in GALLERY for row in tables.comparison_cells(found[title])]
    # Studies of the same data share a caption.
    captions = dict.fromkeys(tables.comparison_caption(each) for each in found.values())
    return f"{tables.markdown(rows)}\n\n{' '.join([*captions, *(source(each) for each in found.values())])}"


def costs() -> str:
    """What a step of each method costs, from the recorded benchmark."""
    found: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    rows = [
        {
            "method": name,
            "passes": "{graph} + {bare}".format(**row["passes_counted"]),
            "views": str(row["views"]),
            "steps a second": f"{row['steps_per_second']:.1f}",
            "time of a step": "{:.2f} ({:.2f} to {:.2f})".format(
                row["seconds_over_simsiam"]["median"], *row["quartiles"]
            ),
            "with its views": f"{row['with_views']:.2f}",
        }
        for name, row in found["methods"].items()
    ]
    place, rounds = found["machine"], found["methods"]["simsiam"]["seconds_over_simsiam"]["n"]
    caption = (
        f"Times are ratios to SimSiam's: median (quartiles) of {rounds} rounds, all methods in turns; {found['what']}. "
        f"`{found['command']}`: {place['cpu']}, {place['cores']} cores, load average {place['load']:.0f}, one thread, torch "
        f"{place['torch']}, commit {found['commit']}."
    )
    return f"{tables.markdown(rows)}\n\n{caption}"


def arms(found: dict[str, Any]) -> list[dict[str, str]]:
    """The rows of a comparison but that of the raw pixels."""
    return [row for row in tables.comparison_cells(found) if row["n"]]


def summary(study: str) -> dict[str, Any]:
    """The committed summary of a study."""
    found: dict[str, Any] = json.loads((RESULTS / study / "summary.json").read_text(encoding="utf-8"))
    return found


def source(found: dict[str, Any]) -> str:
    """How the numbers of a summary came about."""
    protocol = found["protocol"]
    return (
        f"`{protocol['command']}`: {protocol['device']}, torch {protocol['packages']['torch']}, "
        f"{protocol['training_seconds']:.0f} s of training in all runs together, commit {protocol['commit']}."
    )


def rewritten(text: str, made: Callable[[str], str] = table) -> str:
    """The text with every marked table made anew, by default as the README's."""
    return re.sub(
        r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{made(m[2])}\n{m[3]}", text, flags=re.DOTALL
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
