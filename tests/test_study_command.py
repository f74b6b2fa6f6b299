"""collapse-lab study as its users meet it: real arms, real digits, one pool, and one line for whatever is wrong."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from collapse_lab import cli, study_plots, study_tables

ROOT = Path(__file__).resolve().parents[1]
FAST = [
    *("--set", "train.epochs=2", "--set", "data.train_images=160", "--set", "train.batch=32"),
    *("--set", "data.test_images=50", "--set", "monitor.evaluate_every=2", "--set", "network.width=4"),
]
HEAD = "network.projector_output_norm"
FIRST = f'''
"""One.

collapse-lab study first.py
"""
from collapse_lab.study import Arm, Contrast, Measure, Study

STUDY = Study(
    question="What does the head do?",
    predictions={{"one": "nothing", "other": "much"}},
    answer="a difference",
    arms={{
        "none": Arm("simsiam"),
        "affine": Arm("simsiam", {{"{HEAD}": "affine"}}, paper="table-3/c"),
        "broken": Arm("mse", {{"train.base_lr": 1e9}}),
        "later": Arm("simsiam", {{"train.start": "affine", "{HEAD}": "affine"}}),
    }},
    contrasts=(Contrast("affine", "none", "rankme"), Contrast("broken", "none"), Contrast("affine", "none", "readings")),
    measures=(Measure("measures_for_tests:readings"),),
    cost="seconds",
    curves=True,
)
'''
SECOND = f'''
"""Two.

collapse-lab study second.py
"""
from collapse_lab.study import Arm, Contrast, Study

STUDY = Study(
    question="And the other head?",
    predictions={{"one": "nothing", "other": "much"}},
    answer="a difference",
    arms={{"affine": Arm("simsiam", {{"{HEAD}": "affine"}}), "non-affine": Arm("simsiam", {{"{HEAD}": "non-affine"}})}},
    contrasts=(Contrast("affine", "non-affine"),),
    cost="seconds",
    headline=True,
)
'''
MEASURES = """
def readings(run, images):
    return {"readings": float(len((run / "metrics.csv").read_text().splitlines()))}
"""


def command(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(cwd), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "collapse_lab", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
        preexec_fn=one_core,
    )
    assert done.returncode == code, done.stderr
    return done


def one_core() -> None:
    """One worker: starting a process takes longer than these runs."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("studies")
    for name, text in (("first.py", FIRST), ("second.py", SECOND), ("measures_for_tests.py", MEASURES)):
        (path / name).write_text(textwrap.dedent(text).lstrip())
    done = command("study", "first.py", "second.py", *FAST, "--seeds", 2, "--json", cwd=path)
    (path / "stdout.json").write_text(done.stdout)
    (path / "stderr.txt").write_text(done.stderr)
    return path


@pytest.fixture
def here(monkeypatch, capfd, place):
    """A command in this process, which has loaded torch already; what it writes, and its exit code where it is not 0."""

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.chdir(place)
        monkeypatch.syspath_prepend(place)
        monkeypatch.setattr(sys, "argv", ["collapse-lab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code or 0) == code
        return capfd.readouterr()

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def first(place) -> dict:
    return json.loads((place / "stdout.json").read_text())["studies"]["first"]


def test_arms_that_studies_share_are_trained_once_in_one_pool(place):
    lines = [line for line in (place / "stderr.txt").read_text().splitlines() if "to go" in line and "seed" in line]
    trained = [line.split(":")[0] for line in lines if ": done" in line or ": failed" in line]
    assert len(trained) == len(set(trained)) == 2 * 5
    found = json.loads((place / "stdout.json").read_text())["studies"]
    assert found["first"]["arms"]["affine"]["directory"] == found["second"]["arms"]["affine"]["directory"]
    assert found["first"]["arms"]["affine"]["linear"] == found["second"]["arms"]["affine"]["linear"]
    # What starts from another arm comes last.
    assert all("train.start" in line for line in trained[-2:])


def test_an_arm_that_starts_from_another_has_its_final_weights(first):
    before, after = first["arms"]["affine"], first["arms"]["later"]
    # The start is calibrated anew, so that only the weights are the same: its accuracy is that of a trained network.
    assert after["knn_start"]["values"] != before["knn_start"]["values"]
    assert after["loss"]["mean"] < before["loss"]["mean"]


def test_the_summary_is_printed_and_written_with_every_seed(place, first):
    assert first == json.loads((place / "runs" / "results" / "first" / "summary.json").read_text())
    none = first["arms"]["none"]
    assert none["seeds"] == [0, 1]
    assert [run["state"] for run in none["runs"]] == ["done", "done"]
    for quantity in ("loss", "std_ratio", "rankme", "mean_energy", "knn", "linear", "linear_gain"):
        assert len(none[quantity]["values"]) == 2
        assert none[quantity]["mean"] == pytest.approx(sum(none[quantity]["values"]) / 2)
    gains = [end - start for end, start in zip(none["linear"]["values"], none["linear_start"]["values"], strict=True)]
    assert none["linear_gain"]["values"] == pytest.approx(gains)
    assert none["measures"]["readings"]["values"] == [
        len((place / "runs" / none["directory"] / f"seed{seed}" / "metrics.csv").read_text().splitlines())
        for seed in (0, 1)
    ]
    protocol = first["protocol"]
    assert protocol["command"].startswith("collapse-lab study first.py second.py --set train.epochs=2")
    assert len(protocol["commits"]) == len(protocol["devices"]) == len(protocol["torch"]) == 1


def test_what_failed_is_shown_and_not_dropped(first):
    broken = first["arms"]["broken"]
    assert (broken["seeds"], broken["failed"], broken["verdicts"]) == ([], [0, 1], ["diverged", "diverged"])
    assert study_tables.failures(first)[0].startswith("broken, seed 0: failed, the loss of mse was")
    (cells,) = [row for row in study_tables.output_cells(first) if row["arm"] == "broken"]
    assert (cells["seeds"], cells["verdict"]) == ("0 of 2", "diverged x 2")
    contrast = first["contrasts"][1]
    assert (contrast["n"], contrast["missing"]) == (0, [0, 1])
    assert "nothing can be said" in contrast["sentence"]


def test_contrasts_pair_equal_seeds(first):
    rank, _, readings = first["contrasts"]
    arms = first["arms"]
    pairs = zip(arms["affine"]["rankme"]["values"], arms["none"]["rankme"]["values"], strict=True)
    assert rank["differences"] == pytest.approx([one - other for one, other in pairs])
    assert rank["seeds"] == [0, 1]
    assert rank["low"] < rank["mean"] < rank["high"]
    assert (readings["n"], readings["differences"]) == (2, [0, 0])


def test_a_headline_with_few_seeds_is_called_preliminary(place):
    found = json.loads((place / "stdout.json").read_text())["studies"]["second"]
    assert found["contrasts"][0]["sentence"].endswith("This question asks for n >= 8: preliminary.")


def test_finished_runs_and_measures_are_kept(place, here):
    marks = [*(place / "runs").rglob("metrics.csv"), *(place / "runs").rglob("measures.json")]
    before = {path: path.stat().st_mtime_ns for path in marks}
    out, err = here("study", "first.py", *FAST, "--seeds", 2)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert "failed before, the loss of mse was" in err
    for text in ("what the data allow", "gain, points", "68.1", "broken, seed 0: failed"):
        assert text in out


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ('"none", "readings"', '"none", "reading"', "contrasts: no run records 'reading'; did you mean readings?"),
        ("curves=True", 'shown=("readings", "knn")', "shown: no run records 'knn'; there are readings"),
    ],
)
def test_a_value_that_no_run_records_is_refused_by_name(place, here, tmp_path, right, wrong, expected):
    assert right in FIRST
    path = tmp_path / "typo.py"
    path.write_text(FIRST.lstrip().replace(right, wrong))
    _, err = here("study", path, *FAST, "--seeds", 2, code=2)
    assert err.splitlines()[-1] == f"collapse-lab: study file '{path}': {expected}"
    assert (place / "runs" / "results" / "typo" / "summary.json").exists()


def test_compare_shares_its_runs_and_shows_methods_only(here):
    flags = [part for text in FAST if "=" in text for part in (f"--{text.split('=')[0]}", text.split("=")[1])]
    out, err = here("compare", "simsiam", *flags, "--seeds", 2, "--json")
    assert "simsiam seed 0: done before" in err
    summary = json.loads(out)
    assert list(summary["arms"]) == ["simsiam"]


def test_figures_are_drawn_again_from_the_summary_alone(place, first, tmp_path):
    written = study_plots.draw(first, place / "runs", tmp_path, course=True)
    assert {path.name for path in written} == {"figure.png", "figure.pdf", "curves.png", "curves.pdf"}
    for path in written:
        assert path.read_bytes() == (place / "runs" / "results" / "first" / path.name).read_bytes()


@pytest.mark.long
def test_a_smoke_run_trains_every_arm_elsewhere(place):
    done = command("study", "second.py", "--smoke", "--json", "--out", "other", cwd=place)
    found = json.loads(done.stdout)["studies"]["second"]
    assert all(len(arm["runs"]) == 1 and arm["verdicts"] for arm in found["arms"].values())
    assert found["protocol"]["config"]["train"]["epochs"] == 1
    assert [path.name for path in (place / "other").iterdir()] == ["smoke"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Missing argument 'FILE...'"),
        (["nowhere.py"], "study file 'nowhere.py' cannot be read"),
        (["."], "study file '.' is a directory, expected a Python file, such as first.py, measures_for_tests.py"),
        (["runs"], "study file 'runs' is a directory, expected a Python file"),
        (["measures_for_tests.py"], "defines no STUDY"),
        (["first.py", "--set", "train.epoch=3"], "--set: unknown configuration key 'train.epoch'; did you mean"),
        (["first.py", "--set", "train.epochs"], "--set: found 'train.epochs', expected key=value"),
        (["first.py", "--set", "train.epochs=many"], "train.epochs: found 'many'"),
        (["first.py", "--set", "network.predictor=identity"], "arm 'none': network.predictor: found 'identity'"),
        (["first.py", "--data", "nowhere.npz"], "--data: found 'nowhere.npz', which does not exist"),
        (["first.py", "--set", "train.batch=2000"], "train.batch: found 2000, the training images are only 1437"),
        (["first.py", "./first.py"], "two are named 'first'"),
        (["first.py", "--seeds", "0"], "0 is not in the range"),
        (["first.py", "--job", "timeout_min=5"], "--job: found 'timeout_min=5' without --jobs"),
        (["first.py", "--jobs", "local", "--job", "timeout_min"], "--job: found 'timeout_min', expected key=value"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(here, arguments, expected):
    out, err = here("study", *arguments, code=2)
    (line,) = err.splitlines()
    assert out == ""
    assert expected in line
