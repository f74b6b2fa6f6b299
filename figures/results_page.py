"""Write docs/results.md from the committed summaries of the studies; what was not run is listed with its command.

    python figures/results_page.py

Nothing on that page is typed by hand; a test fails where the page and this script disagree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collapse_lab import study_tables
from collapse_lab.study import StudyFile, read
from collapse_lab.tables import Cells, markdown

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS, STUDIES = ROOT / "docs" / "results.md", ROOT / "experiments" / "results", ROOT / "experiments"
PICTURES = "../experiments/results"
INTRODUCTION = """# Results of the studies

Made by `make results` from the summaries in `experiments/results/`. Every study keeps two questions apart: did the output
collapse (amplitude, rank, verdict of z), and did the representation fail (the linear probe against the start). A sentence
beside a difference says what its interval allows and no more. The papers' own numbers stand apart: other data, other
networks, never ours. Where a study measures more than its table shows, the rest is in its summary.
"""


def summaries() -> list[dict[str, Any]]:
    """The committed summaries of studies, by name; those of comparisons belong to the README."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/summary.json"))]
    return [summary for summary in found if "study" in summary]


def files() -> list[StudyFile]:
    """The study files, by name."""
    return [read(path) for path in sorted(STUDIES.glob("*.py"))]


def page() -> str:
    """The whole page."""
    run = summaries()
    done = {summary["study"] for summary in run}
    parts = [INTRODUCTION, *map(section, run)]
    waiting = [file for file in files() if file.name not in done]
    if waiting:
        rows = [{"study": f.name, "question": f.study.question, "command": f"`{f.command}`"} for f in waiting]
        parts.append(f"## Not yet run\n\n{table(rows)}\n")
    return "\n".join(parts)


def section(summary: dict[str, Any]) -> str:
    """One study: what was asked and predicted, what was found, what the papers say, how it was made."""
    name = summary["study"]
    predictions = "\n".join(f"- {who}: {what}" for who, what in summary["predictions"].items())
    shown = [
        ("", "\n\n".join(f"![{name}, {path.stem}]({PICTURES}/{name}/{path.name})" for path in pictures(name))),
        ("Did the output collapse?", table(study_tables.output_cells(summary))),
        ("Did the representation fail?", table(study_tables.representation_cells(summary))),
        ("Measured beside that", table(study_tables.measure_cells(summary))),
        ("Differences, paired by seed", table(study_tables.contrast_cells(summary))),
        ("Runs that did not finish", "\n".join(f"- {line}" for line in study_tables.failures(summary))),
        ("The papers' own numbers", table(study_tables.paper_cells(summary))),
    ]
    found = [f"### {title}\n\n{text}\n" if title else f"{text}\n" for title, text in shown if text]
    head = f"## {name}\n\n**{summary['question']}**\n\nPredicted, before the numbers:\n\n{predictions}\n\n"
    return "\n".join([f"{head}An answer would be: {summary['answer']}\n", *found, source(summary)])


def pictures(name: str) -> list[Path]:
    """The figures of a study, the one of a mark a seed first."""
    return sorted((RESULTS / name).glob("*.png"), key=lambda path: (path.stem != "figure", path.stem))


def source(summary: dict[str, Any]) -> str:
    """What the columns are and how the numbers came about."""
    protocol = summary["protocol"]
    seeds = sorted({run["seed"] for arm in summary["arms"].values() for run in arm["runs"]})
    return (
        f"{study_tables.caption(summary)}\n\n`{protocol['command']}`: seeds {', '.join(map(str, seeds))}; "
        f"{', '.join(protocol['devices'])}; torch {', '.join(protocol['torch'])}; "
        f"{protocol['training_seconds']:.0f} s of training in all runs together; "
        f"commit{'s' if len(protocol['commits']) > 1 else ''} {', '.join(protocol['commits'])}.\n"
    )


def table(cells: Cells) -> str:
    """Rows as a Markdown table, empty where there is none."""
    return markdown([{k: v.replace("|", "\\|") for k, v in row.items()} for row in cells]) if cells else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
