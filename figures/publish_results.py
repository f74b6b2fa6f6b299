"""Bring the studies' summaries and figures from a directory of runs into the tree, then write the results page anew.

    python figures/publish_results.py RUNS

RUNS is the ``--out`` of ``collapse-lab study``. A summary's command is published without it: where runs lay decides no number.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import results_page

FILES = ("summary.json", "figure.png", "curves.png")


def publish(runs: Path, results: Path) -> list[Path]:
    """Copy what every study under ``RUNS/results`` has of the three files; the copies.

    Exits with one line where there is no study.
    """
    found = [
        path for study in sorted((runs / "results").glob("*")) for name in FILES if (path := study / name).exists()
    ]
    if not found:
        sys.exit(f"publish_results: no study in '{runs / 'results'}'; `collapse-lab study FILE --out {runs}` makes one")
    copies = [results / path.parent.name / path.name for path in found]
    for path, copy in zip(found, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        if copy.name == "summary.json":
            summary = json.loads(copy.read_text(encoding="utf-8"))
            summary["protocol"]["command"] = placeless(summary["protocol"]["command"])
            copy.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return copies


def placeless(command: str) -> str:
    """A command without ``--out PLACE``.

    >>> placeless("collapse-lab study x.py --out /home/me/runs --seeds 3")
    'collapse-lab study x.py --seeds 3'
    """
    words = shlex.split(command)
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if "--out" not in (before, word) and not word.startswith("--out=")
    ]
    return shlex.join(kept)


if __name__ == "__main__":
    for copy in publish(Path(sys.argv[1]), results_page.RESULTS):
        print(copy.relative_to(results_page.ROOT))
    results_page.PAGE.write_text(results_page.page(), encoding="utf-8")
