"""Bring what the README shows from run directories into the tree: summaries, figures, then the README's tables.

    python figures/publish.py RUNS

RUNS holds the studies that ``make gallery`` runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADS_FIGURE, RESULTS = ROOT / "figures" / "gallery" / "heads.png", ROOT / "experiments" / "results"
HEADS = ("digits-none", "digits-affine", "digits-non-affine")
STUDIES = ("digits", *HEADS, "fashion-mnist", "cifar10")


def main(runs: Path) -> None:
    """Copy every study's summary and figures, draw the heads side by side, rewrite the README's tables."""
    for study in STUDIES:
        (RESULTS / study).mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "figure.png", "spectra.png"):
            shutil.copyfile(runs / study / name, RESULTS / study / name)
    heads = [str(runs / study) for study in HEADS]
    draw = [sys.executable, str(ROOT / "figures" / "heads.py"), *heads, "--out", str(HEADS_FIGURE)]
    subprocess.run(draw, check=True)
    subprocess.run([sys.executable, str(ROOT / "figures" / "readme.py")], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
