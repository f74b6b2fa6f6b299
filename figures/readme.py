"""Write the tables of README.md anew from the package's own metadata and the committed summaries.

    python figures/readme.py          rewrites README.md between its <!-- table NAME --> marks

Nothing in those tables is typed by hand; a test fails where the README and this script disagree.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from collapse_lab import tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"


def table(name: str) -> str:
    """The Markdown of one table: methods, metrics, or the comparison of a study under experiments/results."""
    if name == "methods":
        return tables.markdown(tables.method_cells())
    if name == "metrics":
        return tables.markdown(tables.metric_cells())
    summary = json.loads((RESULTS / name / "summary.json").read_text(encoding="utf-8"))
    protocol = summary["protocol"]
    source = (
        f"`{protocol['command']}`; {protocol['device']}, torch {protocol['packages']['torch']}, "
        f"{protocol['training_seconds']:.0f} s of training in all, commit {protocol['commit']}."
    )
    cells = tables.markdown(tables.comparison_cells(summary))
    return f"{cells}\n\n{tables.comparison_caption(summary)} {source}"


def rewritten(text: str) -> str:
    """The text with every marked table made anew."""
    return re.sub(
        r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text, flags=re.DOTALL
    )


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(rewritten(readme.read_text(encoding="utf-8")), encoding="utf-8")
