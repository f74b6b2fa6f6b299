"""The command line as its users meet it: real processes, real digits, and one line for whatever is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from collapse_lab import cli

FAST = ["--train.epochs", "2", "--data.train_images", "320", "--train.batch", "64", "--monitor.evaluate_every", "2"]


def command(*arguments: object, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "collapse_lab", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


Written = tuple[str, str]


@pytest.fixture
def here(monkeypatch, capfd) -> Iterator[Callable[..., Written]]:
    """What a command writes, run in this process: starting one anew would take seconds."""

    def run(*arguments: object, code: int = 0) -> Written:
        monkeypatch.setattr(sys, "argv", ["collapse-lab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code or 0) == code
        return capfd.readouterr()

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refusal(here) -> Callable[..., str]:
    """The one line that a command answers bad input with."""

    def refused(*arguments: object) -> str:
        out, err = here(*arguments, code=2)
        assert out == ""
        (line,) = err.splitlines()
        return line

    return refused


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    done = command("compare", *FAST, "--seeds", 2, "--out", out, "--name", "study", "--json")
    (out / "stdout.json").write_text(done.stdout)
    (out / "stderr.txt").write_text(done.stderr)
    return out / "study"


def test_compare_writes_runs_summary_and_figures_and_prints_the_same_summary(study):
    printed = json.loads((study.parent / "stdout.json").read_text())
    assert printed == json.loads((study / "summary.json").read_text())
    for name in ("figure.png", "figure.pdf", "spectra.png", "spectra.pdf"):
        assert (study / name).stat().st_size > 1000
    assert set(printed["arms"]) == {"simsiam", "no-stop-gradient"}
    arm = printed["arms"]["simsiam"]
    assert arm["seeds"] == [0, 1]
    assert arm["failed"] == []
    assert len(arm["verdicts"]) == 2
    for name in ("loss", "std_ratio", "rankme", "knn", "knn_start", "linear", "linear_start"):
        assert set(arm[name]) == {"mean", "std", "values"}
        assert arm[name]["mean"] == pytest.approx(sum(arm[name]["values"]) / 2)
    assert 0.8 < printed["protocol"]["pixels"]["knn"] < 1
    assert printed["protocol"]["config"]["monitor"]["k"] == 20
    lines = (study.parent / "stderr.txt").read_text()
    assert "simsiam seed 1: done in" in lines


def test_finished_runs_are_kept_and_the_table_names_the_papers_numbers_as_theirs(study, here):
    before = (study / "simsiam" / "seed0" / "metrics.csv").stat().st_mtime_ns
    out, err = here("compare", *FAST, "--seeds", 2, "--out", study.parent, "--name", "study")
    assert "simsiam seed 0: done before" in err
    assert (study / "simsiam" / "seed0" / "metrics.csv").stat().st_mtime_ns == before
    assert "68.1" in out
    assert "their numbers, not ours" in out


def test_other_settings_in_the_same_place_are_refused(study, refusal):
    line = refusal("compare", *FAST, "--train.epochs", 3, "--out", study.parent, "--name", "study")
    assert "was made with another configuration (train.epochs: 2 against 3)" in line


def test_other_arms_with_other_settings_are_refused_too(study, refusal):
    line = refusal("compare", "no-predictor", *FAST, "--train.batch", 32, "--out", study.parent, "--name", "study")
    assert "holds 'no-stop-gradient/seed0', made with other settings (train.batch: 64 against 32)" in line


def test_overwrite_destroys_nothing_while_a_run_is_in_use(study, refusal):
    before = (study / "simsiam" / "seed0" / "metrics.csv").read_bytes()
    with FileLock(study / "simsiam" / "seed1" / "lock"):
        line = refusal(
            "compare", "simsiam", *FAST, "--seeds", 2, "--out", study.parent, "--name", "study", "--overwrite"
        )
    assert "seed1' is in use by another process" in line
    assert (study / "simsiam" / "seed0" / "metrics.csv").read_bytes() == before


def test_a_diverged_seed_is_a_result_not_a_crash(tmp_path, here):
    flags = ["--objective.loss", "mse", "--train.base_lr", "1e9", "--seeds", "1", "--out", tmp_path, "--json"]
    summary = json.loads(here("compare", "simsiam", *FAST, *flags)[0])
    arm = summary["arms"]["simsiam"]
    assert (arm["seeds"], arm["failed"], arm["verdicts"]) == ([], [0], ["diverged"])
    assert arm["loss"] == {"mean": None, "std": None, "values": []}


def test_the_place_of_a_study_does_not_depend_on_the_methods_named(tmp_path, here):
    for name in ("simsiam", "no-predictor"):
        here("train", name, *FAST, "--train.epochs", 0, "--no-monitor.probe", "--out", tmp_path)
    (place,) = tmp_path.iterdir()
    assert sorted(path.name for path in place.iterdir()) == ["no-predictor", "simsiam"]


def test_without_a_command_there_is_help():
    assert "Usage: collapse-lab" in command().stdout


def test_figure_redraws_from_records_without_torch(study, tmp_path):
    code = (
        "import sys; from collapse_lab import cli; sys.argv = ['collapse-lab', 'figure', sys.argv[1], '--out', sys.argv[2]]\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(study), str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "figure.png").read_bytes() == (study / "figure.png").read_bytes()


def test_train_runs_one_seed(tmp_path, here):
    answer = json.loads(here("train", "no-predictor", *FAST, "--train.seed", 4, "--out", tmp_path, "--json")[0])
    assert answer["state"] == "done"
    assert answer["run"].endswith("no-predictor/seed4")
    assert (Path(answer["run"]) / "checkpoint.pt").exists()
    assert -1 <= answer["values"]["loss"] <= 1


def test_methods_are_printed():
    assert [row["method"] for row in json.loads(command("methods", "--json").stdout)["methods"]][:2] == [
        "simsiam",
        "no-stop-gradient",
    ]
    assert "fixed-predictor" in command("methods").stdout


@pytest.mark.parametrize("delay", [1.5, pytest.param(4.5, marks=pytest.mark.long)])
def test_an_interrupt_while_everything_starts_is_answered_with_one_line(tmp_path, delay):
    running = subprocess.Popen(
        [sys.executable, "-m", "collapse_lab", "compare", "--seeds", "1", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    time.sleep(delay)
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert running.returncode in (130, -signal.SIGINT)


def test_workers_end_with_their_parent(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "collapse_lab", "compare", "--seeds", "1", "--out", str(tmp_path), "--name", "study"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    run = tmp_path / "study" / "simsiam" / "seed0"
    wait_for(run / "timing.csv")
    running.kill()
    running.wait()
    # Every process that the command started belongs to its group.
    deadline = time.monotonic() + 30
    while group_lives(running.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not group_lives(running.pid)
    # Which of the two depends on whether the run still noticed; both are resumed.
    assert json.loads((run / "status.json").read_text())["state"] in ("running", "interrupted")


def hear_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_an_interrupt_leaves_everything_resumable(tmp_path):
    arguments = ["compare", "--seeds", "1", "--out", str(tmp_path), "--name", "study", "--train.epochs", "300"]
    running = subprocess.Popen(
        [sys.executable, "-m", "collapse_lab", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    wait_for(tmp_path / "study" / "simsiam" / "seed0" / "timing.csv")
    # As a terminal does it: the whole process group gets the signal.
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == 130
    assert (
        stderr.splitlines()[-1]
        == "collapse-lab: interrupted; a run or study goes on with the same command, without --overwrite"
    )
    assert "Traceback" not in stderr
    status = json.loads((tmp_path / "study" / "simsiam" / "seed0" / "status.json").read_text())
    assert status["state"] == "interrupted"


@pytest.mark.parametrize(
    "command", [["compare"], ["study", str(Path(__file__).parents[1] / "experiments" / "head.py"), "--smoke"]]
)
def test_what_trains_many_runs_is_not_started_many_times(tmp_path, monkeypatch, refusal, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = refusal(*command, "--out", str(tmp_path / "runs"))
    assert "torchrun: found 2 processes, each would train all runs" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compare", "simsam"], "unknown method 'simsam'; the methods are simsiam"),
        (["compare", "simsiam", "simsiam"], "arms 'simsiam' and 'simsiam' are the same run"),
        (["compare", "--data.name", "cifr"], "data.name: found 'cifr', input should be 'digits'"),
        (["compare", "--data.name", "cifar10"], "data.root"),
        (["compare", "--data.name", "cifar10", "--data.root", "nowhere"], "nowhere"),
        (["compare", "--data.name", "npz", "--data.root", "no.npz"], "no.npz"),
        (["compare", "--train.epochs", "-3"], "train.epochs: found -3, input should be greater than or equal to 0"),
        (["compare", "--train.batch", "2000"], "train.batch: found 2000, the training images are only 1437"),
        (["compare", "--monitor.k", "2000"], "monitor.k: found 2000, the bank has only 1437 labelled training images"),
        (
            ["compare", "--train.epoch", "3"],
            "No such option '--train.epoch'. (Did you mean one of: '--train.batch', '--train.epochs'",
        ),
        (["compare", "--seeds", "0"], "0 is not in the range x>=1"),
        (["compare", "--config", "missing.toml"], "configuration file 'missing.toml' cannot be read"),
        (["compare", "--preset", "big"], "unknown preset 'big'; the presets are digits-views"),
        (["compare", "--augment.hue", "0.1", "--augment.jitter", "1"], "augment.hue"),
        (["compare", "--out", "file"], "output directory 'file"),
        (["train"], "Missing argument 'METHOD'"),
        (["train", "simsiam", "--train.device", "tpu"], "train.device: found 'tpu', input should be 'auto', 'cpu' or"),
        (["figure", "nowhere"], "nowhere"),
        (["compare", "--name", "../elsewhere"], "--name: found '../elsewhere', it is one part of a path"),
        (["compare", "--data.train_images", "105"], "data.train_images: found 105; allowed are multiples of 10"),
        (["train", "simsiam", "--objective.stop_gradient", "none"], "the method with that setting is no-stop-gradient"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(tmp_path, monkeypatch, refusal, arguments, expected):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(*arguments)


def test_a_process_answers_bad_input_alike(tmp_path):
    done = command("compare", "simsam", cwd=tmp_path, code=2)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)


def test_a_misspelt_key_in_a_file_is_refused(tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_text("[train]\nepoch = 3\n")
    line = refusal("train", "simsiam", "--config", "settings.toml")
    assert line == (
        "collapse-lab: unknown configuration key 'train.epoch'; "
        "did you mean train.epochs or train.warmup_epochs or train.batch?"
    )
