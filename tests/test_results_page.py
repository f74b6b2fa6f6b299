"""docs/results.md says what was found: made from the committed summaries, with nothing left out."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "figures")
    return importlib.import_module("results_page")


@pytest.fixture
def publishing(script):
    return importlib.import_module("publish_results")


def spread(*values: float) -> dict:
    return {"mean": sum(values) / len(values), "std": None, "values": list(values)}


@pytest.fixture
def summary() -> dict:
    names = ("loss", "std_ratio", "mean_energy", "rankme", "knn", "knn_start", "knn_gain", "linear", "linear_start")
    arm = {
        "paper": "table-1/a",
        "seeds": [0],
        "failed": [1],
        "runs": [
            {"seed": 0, "state": "done", "verdict": "healthy", "error": None},
            {"seed": 1, "state": "failed", "verdict": "diverged", "error": "the loss was inf at step 3"},
        ],
        "verdicts": ["healthy", "diverged"],
        "measures": {"gap": spread(0.125)},
        **{name: spread(0.5) for name in (*names, "linear_gain")},
    }
    return {
        "study": "made_up",
        "question": "Is |z| kept?",
        "predictions": {"one": "yes", "other": "no"},
        "answer": "a difference",
        "protocol": {
            "data": "digits",
            "pixels": {"knn": 0.9, "linear": None},
            "config": {"monitor": {"k": 20, "temperature": 0.1}},
            "command": "collapse-lab study made_up.py",
            "devices": ["cpu"],
            "torch": ["2.6.0"],
            "commits": ["abc", "def"],
            "training_seconds": 3.2,
        },
        "arms": {"first": arm, "second": {**arm, "paper": None, "measures": {}}},
        "contrasts": [{"one": "first", "other": "second", "quantity": "|z|", "sentence": "Nothing can be said."}],
    }


def test_the_page_is_that_of_the_committed_summaries(script):
    assert script.page() == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_study_is_there_either_with_results_or_with_its_command(script):
    page = script.page()
    done = {summary["study"] for summary in script.summaries()}
    for file in script.files():
        assert (f"## {file.name}\n" in page) == (file.name in done)
        assert (f"`{file.command}`" in page) or file.name in done
    for name in done:
        assert 1000 < (script.RESULTS / name / "figure.png").stat().st_size < 1_000_000


def test_a_section_says_all_that_a_reader_needs(script, summary):
    text = script.section(summary)
    for part in (
        "**Is |z| kept?**",
        "- one: yes",
        "An answer would be: a difference",
        "| first | 1 of 2 | 0.5000 |",
        "healthy x 1, diverged x 1",
        "| first | 0.125 |",
        "Nothing can be said.",
        "- first, seed 1: failed, the loss was inf at step 3",
        "| first | 0.1 | no predictor |",
        "`collapse-lab study made_up.py`: seeds 0, 1; cpu; torch 2.6.0",
        "commits abc, def",
    ):
        assert part in text
    # A bar in a cell would end it.
    assert r"\|z\|" in text
    (theirs,) = re.findall(r"### The papers' own numbers\n\n(.*?)\n\n", text, flags=re.DOTALL)
    assert "second" not in theirs


def test_publishing_copies_what_there_is_and_no_more(publishing, tmp_path, summary):
    study = tmp_path / "runs" / "results" / "made_up"
    study.mkdir(parents=True)
    summary["protocol"]["command"] = f"collapse-lab study made_up.py --out {tmp_path}/runs --seeds 3"
    (study / "summary.json").write_text(json.dumps(summary))
    (study / "figure.png").write_bytes(b"png")
    (study / "figure.pdf").write_bytes(b"pdf")
    copies = publishing.publish(tmp_path / "runs", tmp_path / "tree")
    assert [path.relative_to(tmp_path / "tree").as_posix() for path in copies] == [
        "made_up/summary.json",
        "made_up/figure.png",
    ]
    summary["protocol"]["command"] = "collapse-lab study made_up.py --seeds 3"
    assert json.loads(copies[0].read_text()) == summary
    with pytest.raises(SystemExit, match="no study in"):
        publishing.publish(tmp_path / "nowhere", tmp_path / "tree")
