"""Each command of the written page runs and gives the verdict that stands beside it; each figure is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from collapse_lab.toy.commands import toy

FIGURES = Path(__file__).resolve().parents[2] / "figures"
PAGE = (FIGURES / "toy.md").read_text(encoding="utf-8")
ROWS = [row for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE) if "--json" in row and "`deep" not in row]
VERDICTS = ("collapsed", "not-collapsed", "undecided", "diverged")


def leaves(document: object) -> list[float]:
    """Every number of a JSON document."""
    if isinstance(document, dict):
        return [number for value in document.values() for number in leaves(value)]
    if isinstance(document, list):
        return [number for value in document for number in leaves(value)]
    return [float(document)] if isinstance(document, (int, float)) else []


@pytest.mark.parametrize("row", ROWS)
def test_commands_answer_as_the_page_says(row: str) -> None:
    _, command, said = re.split(r" \| ", row)
    lines = re.findall(r"`([a-z]+ ?[^`]*--json)`", command)
    answers = [json.loads(CliRunner().invoke(toy, words.split(), catch_exceptions=False).stdout) for words in lines]
    assert answers
    verdicts = [word for word in re.findall(r"`([a-z-]+)`", said) if word in VERDICTS]
    numbers = re.findall(r"\d+\.\d+", said)
    known = [value for found in answers for value in leaves(found)]
    matched = [text for text in numbers if any(f"{abs(x):.{len(text.split('.')[1])}f}" == text for x in known)]
    assert matched or not numbers
    for found in answers:
        assert found.get("verdict") in verdicts or not verdicts or "verdict" not in found


def test_every_figure_is_there_and_small() -> None:
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE)
    assert len(named) == 9
    for name in named:
        assert 0 < (FIGURES / name).stat().st_size < 400_000
    for script in re.findall(r"python (figures/\w+\.py)", PAGE):
        assert (FIGURES.parent / script).exists()
