"""Write the table of experiments/README.md anew from the study files.

    python figures/experiments_page.py       rewrites experiments/README.md between its <!-- table NAME --> marks

Nothing in the table is typed by hand; a test fails where the page and this script disagree.
"""

from __future__ import annotations

from pathlib import Path

from readme import rewritten

from collapse_lab.study import StudyFile, read
from collapse_lab.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "experiments"
PAGE = EXPERIMENTS / "README.md"


def studies() -> str:
    """One line a study file: its question, how many arms it has, how many seeds its command trains."""
    return markdown([row(read(path)) for path in sorted(EXPERIMENTS.glob("*.py"))])


def row(file: StudyFile) -> dict[str, str]:
    """The line of one study."""
    words = file.command.split()
    return {
        "study": f"[{file.name}]({file.name}.py)",
        "question": file.study.question.replace("|", "\\|"),
        "arms": str(len(file.study.arms)),
        "seeds": words[words.index("--seeds") + 1],
    }


def page(text: str) -> str:
    """The text of the page with the marked table made anew."""
    return rewritten(text, lambda name: {"studies": studies}[name]())


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
