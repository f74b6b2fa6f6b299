"""What diagnose says of clouds whose truth is known, of real runs and checkpoints, and of whatever else it is pointed at."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from collapse_lab import cli, data
from collapse_lab.config import build
from collapse_lab.diagnose import EXIT_CODES, diagnose, of_features
from collapse_lab.methods import method
from collapse_lab.objective import build_objective
from collapse_lab.presets import DATA
from collapse_lab.runs import Run
from collapse_lab.trainer import train


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def constant() -> np.ndarray:
    return normal(1, 128, seed=1) + 1e-4 * normal(2048, 128)


def signs() -> np.ndarray:
    return np.sign(normal(2048, 1)) * normal(1, 128, seed=1)


def power_law(alpha: float) -> np.ndarray:
    rotation = np.linalg.qr(normal(256, 256, seed=1))[0]
    return normal(4096, 256) * np.arange(1, 257) ** (-alpha / 2) @ rotation


EXAMPLES = {
    "isotropic": (lambda: normal(2048, 128), "healthy", 0),
    "constant-and-noise": (constant, "complete-collapse", 3),
    "ones-and-noise": (lambda: 1 + 1e-4 * normal(2048, 128), "complete-collapse", 3),
    "signs-of-one-direction": (signs, "dimensional-collapse", 3),
    "rank-4": (lambda: normal(2048, 4) @ normal(4, 128, seed=1), "dimensional-collapse", 3),
    "power-law-1": (lambda: power_law(1), "healthy", 0),
    "too-few-rows": (lambda: normal(32, 512), "insufficient-data", 4),
    "zeros": (lambda: np.zeros((2048, 128)), "complete-collapse", 3),
    "few-equal-rows": (lambda: np.ones((8, 512)), "complete-collapse", 3),
    "one-row": (lambda: normal(1, 16), "insufficient-data", 4),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices gain nothing from threads, and on a busy machine these wait for each other for minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def terminate_as_before():
    """The command line takes SIGTERM for an interrupt; the tests' own process shall not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def command(capfd, monkeypatch):
    """Runs the command line in this process; the exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["collapse-lab", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def refusal(command):
    def run(*arguments: object) -> str:
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        return line.removeprefix("collapse-lab: ")

    return run


def trained(name: str, directory: Path, **overrides: object) -> Path:
    extra = {key.replace("__", "."): value for key, value in overrides.items()}
    config = build(name, DATA["digits"], method(name).settings, {"monitor.probe": False}, extra)
    with Run(directory, config) as run:
        train(config, run, data.load(config.data), lambda progress: None)
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A study's directory with a run that goes well, one that collapses and one that diverges."""
    study = tmp_path_factory.mktemp("study")
    trained("simsiam", study / "simsiam" / "seed0", train__epochs=10, monitor__evaluate_every=10)
    trained("no-stop-gradient", study / "no-stop-gradient" / "copied", train__epochs=10, monitor__evaluate_every=10)
    trained("simsiam", study / "diverged" / "seed0", train__epochs=2, objective__loss="mse", train__base_lr=1e9)
    return study


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_clouds_of_known_truth_get_their_verdict(tmp_path, command, name, dtype):
    make, verdict, code = EXAMPLES[name]
    np.save(tmp_path / "a.npy", make().astype(dtype))
    ended, out, err = command("diagnose", tmp_path / "a.npy", "--json")
    answer = json.loads(out)
    assert (answer["verdict"], ended, err) == (verdict, code, "")
    assert 0 <= answer["severity"] <= 1
    assert (answer["severity"] > 0.5) == (code == 3)


def test_json_has_verdict_severity_votes_and_metrics_and_is_all_that_is_printed(tmp_path, command):
    np.savez(tmp_path / "a.npz", z=normal(512, 64), other=normal(512, 3))
    code, out, err = command(
        "diagnose", tmp_path / "a.npz", "--key", "z", "--json", "--out", tmp_path / "new" / "folder"
    )
    answer = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(answer)[:3] == ["verdict", "severity", "votes"]
    assert answer["metrics"]["rows"] == 512
    assert answer["metrics"]["dimension"] == 64
    assert 60 < answer["metrics"]["rankme"] < 64.1
    voted = {vote["measure"] for vote in answer["votes"]}
    assert {"rankme", "std_ratio"} <= voted
    assert all({"measure", "value", "bound", "origin", "says"} <= set(vote) for vote in answer["votes"])
    assert err.strip() == f"report: {tmp_path / 'new' / 'folder' / 'report.png'}"
    assert code == 0


def test_the_table_shows_every_vote_and_the_verdict_in_words(tmp_path, command):
    np.save(tmp_path / "a.npy", normal(2048, 4) @ normal(4, 128, seed=1))
    code, out, _ = command("diagnose", tmp_path / "a.npy")
    assert code == 3
    for text in ("rankme", " 3.9", "bound", "verdict: dimensional-collapse, severity", "a.npy, 2,048 x 128 float64"):
        assert text in out


def test_every_verdict_has_an_exit_code():
    from typing import get_args

    from collapse_lab.monitors.verdict import Kind
    from collapse_lab.report import MEANINGS

    assert set(EXIT_CODES) == set(MEANINGS) == set(get_args(Kind))
    assert [kind for kind, code in EXIT_CODES.items() if code == 0] == ["healthy"]


def test_a_run_gets_the_verdict_that_its_trainer_gave(runs, command):
    for run, code in (("simsiam/seed0", None), ("no-stop-gradient/copied", 3), ("diverged/seed0", 3)):
        ended, out, err = command("diagnose", runs / run, "--json")
        answer = json.loads(out)
        assert answer["verdict"] == json.loads((runs / run / "status.json").read_text())["verdict"]
        assert err == ""
        assert code in (None, ended)
    assert answer["verdict"] == "diverged"
    assert any(note.startswith("the loss of simsiam was") for note in answer["notes"])
    assert (
        json.loads(command("diagnose", runs / "no-stop-gradient/copied", "--json")[1])["verdict"] == "complete-collapse"
    )


def test_a_run_that_is_not_at_its_end_is_judged_as_far_as_it_went(runs, tmp_path, command):
    shutil.copytree(runs / "simsiam" / "seed0", tmp_path / "run")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    (tmp_path / "run" / "status.json").write_text(json.dumps({**status, "state": "interrupted", "verdict": None}))
    code, out, _ = command("diagnose", tmp_path / "run")
    assert "note: the run is interrupted at step 110; judged as far as it went" in out
    table = (tmp_path / "run" / "metrics.csv").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.csv").write_text("".join(line for line in table if ",train," not in line))
    code, out, _ = command("diagnose", tmp_path / "run", "--json", "--out", tmp_path / "empty.png")
    assert (code, json.loads(out)["verdict"]) == (4, "insufficient-data")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metrics.csv", None, "is no run: it has no metrics.csv"),
        ("metrics.csv", "", "is damaged"),
        ("metrics.csv", "step,epoch\n1,2\n", "has columns step,epoch"),
        (
            "metrics.csv",
            "step,epoch,source,layer,metric,index,value\n1,1,train,projector,std_ratio,0,high\n",
            "is damaged",
        ),
        ("config.json", None, "config.json cannot be read"),
        ("config.json", "{", "config.json is damaged"),
        ("config.json", '{"method": 3, "colour": 4}', "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged"),
        ("status.json", "{", "status.json is damaged"),
        ("status.json", "3", "status.json is damaged"),
        ("status.json", '{"state": "done"}', "status.json is damaged"),
    ],
)
def test_damaged_records_are_refused(runs, tmp_path, refusal, name, content, expected):
    shutil.copytree(runs / "simsiam" / "seed0", tmp_path / "run")
    if content is None:
        (tmp_path / "run" / name).unlink()
    else:
        (tmp_path / "run" / name).write_text(content)
    assert expected in refusal("diagnose", tmp_path / "run")


def test_a_study_is_no_run_but_its_runs_are_named(runs, refusal):
    line = refusal("diagnose", runs)
    assert (
        "is no run: it has no metrics.csv; it is a study, its runs are diverged/seed0, no-stop-gradient/copied" in line
    )
    assert refusal("diagnose", runs / "simsiam").endswith("it has no metrics.csv; it is an arm, its runs are seed0")


def test_a_runs_checkpoint_is_judged_by_its_own_model(runs, tmp_path, command, monkeypatch):
    """The encoder is built by a module in the working directory, as a stranger's is; the weights are found inside."""
    config = build("simsiam", DATA["digits"])
    images = data.load(config.data)
    objective = build_objective(config, *data.statistics(images.train), image_size=8, images=1437)
    torch.save(objective.encoder, tmp_path / "unused.pt")
    (tmp_path / "mine_for_diagnose.py").write_text(
        "from collapse_lab import data\nfrom collapse_lab.config import build\n"
        "from collapse_lab.objective import build_objective\nfrom collapse_lab.presets import DATA\n"
        "def encoder():\n"
        "    config = build('simsiam', DATA['digits'])\n"
        "    mean, std = data.statistics(data.load(config.data).train)\n"
        "    return build_objective(config, mean, std, 8, 1437).encoder\n"
    )
    monkeypatch.chdir(tmp_path)
    given = ["--model", "mine_for_diagnose:encoder", "--layer", "projector", "--data", "digits", "--pixels", "none"]
    for run, code in (("simsiam/seed0", 0), ("no-stop-gradient/copied", 3)):
        ended, out, err = command("diagnose", runs / run / "checkpoint.pt", *given, "--json", "--out", tmp_path)
        answer = json.loads(out)
        assert ended == code
        assert "weights 'objective.encoder' in checkpoint.pt" in answer["what"]
        assert [tap["mode"] for tap in answer["taps"]] == ["eval", "train"]
        assert answer["metrics"]["rows"] == 360
    assert "refused" not in err


def test_stale_batchnorm_is_named_and_train_mode_counts(tmp_path, command):
    torch.manual_seed(0)
    model = stale_network()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    given = ["--model", f"{__name__}:stale_network", "--data", "digits", "--json"]
    _, out, _ = command("diagnose", tmp_path / "a.pt", *given)
    answer = json.loads(out)
    assert {tap["mode"]: tap["verdict"] for tap in answer["taps"]}["eval"] == "complete-collapse"
    assert answer["verdict"] == "healthy"
    assert any("BatchNorm's running statistics may be stale" in note for note in answer["notes"])


def test_a_checkpoint_of_weights_that_are_not_finite_has_diverged(tmp_path, command):
    state = stale_network().state_dict()
    state["1.weight"][0] = np.nan
    torch.save(state, tmp_path / "a.pt")
    given = ["--model", f"{__name__}:stale_network", "--data", "digits", "--json", "--out", tmp_path / "a.png"]
    code, out, _ = command("diagnose", tmp_path / "a.pt", *given)
    answer = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (code, answer["verdict"], answer["severity"]) == (3, "diverged", 1.0)
    assert answer["metrics"] == {"rows": 0, "dimension": 32}
    assert any("360 of 360 rows hold NaN or infinity" in note for note in answer["notes"])


def stale_network() -> torch.nn.Module:
    """Channels with a mean of 1000 that the running statistics know nothing of."""
    linear = torch.nn.Linear(64, 32)
    torch.nn.init.constant_(linear.bias, 1000.0)
    return torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.BatchNorm1d(32))


def test_a_reference_of_ones_own_is_the_bound(tmp_path, command):
    """Rank 45 of 128 is nothing to worry about, unless the last good run had nearly three times as many."""
    good, now = normal(3000, 128), normal(2048, 45) @ normal(45, 128, seed=1)
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "now.npy", now)
    alone = json.loads(command("diagnose", tmp_path / "now.npy", "--json")[1])
    beside = json.loads(command("diagnose", tmp_path / "now.npy", "--json", "--reference", tmp_path / "good.npy")[1])
    assert alone["verdict"] == "healthy"
    assert beside["verdict"] == "dimensional-collapse"
    assert {"reference"} <= {vote["origin"] for vote in beside["votes"]}
    code, out, _ = command("diagnose", tmp_path / "good.npy", "--json", "--reference", tmp_path / "good.npy")
    assert (code, json.loads(out)["severity"]) == (0, 0.0)


def test_a_run_is_held_against_a_good_one(runs, command):
    bad, good = runs / "no-stop-gradient" / "copied", runs / "simsiam" / "seed0"
    _, out, _ = command("diagnose", bad, "--json", "--reference", good)
    answer = json.loads(out)
    assert answer["verdict"] in ("complete-collapse", "dimensional-collapse")
    assert "reference run at the same steps" in {vote["origin"] for vote in answer["votes"]}
    assert {tap["tap"] for tap in answer["taps"]} == {"backbone", "projector", "predictor"}
    code, out, _ = command("diagnose", good, "--json", "--reference", good)
    assert (code, json.loads(out)["verdict"]) == (0, "healthy")


def test_rows_that_are_not_finite_are_left_out_of_the_picture_not_of_the_verdict():
    rows = torch.from_numpy(normal(500, 16))
    broken = rows.clone()
    broken[[3, 44]] = torch.inf
    found = of_features({"eval": broken}, "rows")
    assert found.verdict.kind == "diverged"
    assert found.metrics["rows"] == 498
    kept = torch.tensor([row for row in range(500) if row not in (3, 44)])
    assert found.metrics == of_features({"eval": rows[kept]}, "rows").metrics


def test_reports_are_written_for_every_kind_of_evidence(runs, tmp_path, command):
    clouds = {
        "wide": normal(300, 64),
        "flat": np.zeros((70, 1)),
        "one": normal(1, 1),
        "two": normal(2, 3),
        "thin": normal(200, 2),
    }
    for name, cloud in clouds.items():
        np.save(tmp_path / f"{name}.npy", cloud)
    for name in clouds:
        path = tmp_path / f"{name}.npy"
        code, _, _ = command("diagnose", path, "--out", path.with_suffix(".png"), "--reference", path)
        assert code in (0, 3, 4)
    for number, (run, good) in enumerate(
        (("no-stop-gradient/copied", "simsiam/seed0"), ("diverged/seed0", "diverged/seed0"))
    ):
        assert command("diagnose", runs / run, "--out", tmp_path / f"{number}.svg", "--reference", runs / good)[0] == 3
    for path in (*(tmp_path / f"{name}.png" for name in clouds), tmp_path / "0.svg", tmp_path / "1.svg"):
        assert path.stat().st_size > 20_000
    assert "complete-collapse" in diagnose(runs / "no-stop-gradient" / "copied").caption()


def test_bad_input_gets_one_line_and_code_2(runs, tmp_path, refusal, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = normal(100, 8)
    np.save("good.npy", good)
    np.save("wide.npy", normal(100, 9))
    bad = good.copy()
    bad[17, 3] = np.nan
    for name, array in {
        "nan": bad,
        "int": good.astype(int),
        "flat": good[0],
        "none": good[:0],
        "cube": good[None],
    }.items():
        np.save(f"{name}.npy", array)
    np.save("objects.npy", good.astype(object), allow_pickle=True)
    Path("cut.npy").write_bytes(Path("good.npy").read_bytes()[:-5])
    Path("pickle.npy").write_bytes(pickle.dumps(good))
    Path("empty.npy").write_bytes(b"")
    Path("text.csv").write_text("1,2\n")
    Path("folder").mkdir()
    os.mkfifo("pipe.npy")
    torch.save(torch.nn.Linear(2, 2), "whole.pt")
    torch.save({"weight": torch.ones(2)}, "weights.pt")
    torch.save(stale_network().state_dict(), "fits.pt")
    resnet, model = ["--model", "torchvision.models:resnet18"], ["--model", f"{__name__}:stale_network"]
    for arguments, expected in [
        (["nan.npy"], "'nan.npy': row 17 holds nan; has the run diverged?"),
        (["int.npy"], "'int.npy' is int64 of shape (100, 8); allowed is float16, float32 or float64"),
        (["flat.npy"], "float64 of shape (8,)"),
        (["none.npy"], "float64 of shape (0, 8)"),
        (["cube.npy"], "float64 of shape (1, 100, 8)"),
        (["objects.npy"], "object of shape (100, 8)"),
        (["cut.npy"], "'cut.npy' is cut short"),
        (["pickle.npy"], "'pickle.npy' cannot be read as .npy"),
        (["empty.npy"], "'empty.npy' cannot be read as .npy"),
        (
            ["missing.npy"],
            "'missing.npy' does not exist; expected are features (.npy, .npz), a run directory or a checkpoint",
        ),
        (["pipe.npy"], "'pipe.npy' is not a file"),
        (["folder"], "directory 'folder' is no run: it has no metrics.csv"),
        (["text.csv"], "'text.csv' is neither .npy nor .npz; a checkpoint needs --model"),
        (["weights.pt"], "a checkpoint needs --model"),
        (["weights.pt", *model], "--data: none given"),
        (["weights.pt", *model, "--data", "digts"], "--data: found 'digts', which does not exist"),
        (["fits.pt", *model, "--data", "cifar10"], "data.root: none given"),
        (["fits.pt", *model, "--data", "folder"], "needed are train/<class> and val/<class>"),
        (["fits.pt", *model, "--data", "good.npy"], "cannot be read as npz"),
        (["weights.pt", *resnet, "--data", "digits"], "lacks 122 of the model's 122 tensors"),
        (["fits.pt", "--model", "torch.nn:Identity", "--data", "digits"], "the model has no weights"),
        (["weights.pt", *model, "--data", "digits", "--pixels", "grey"], "'--pixels'"),
        (["whole.pt", *model, "--data", "digits"], "'whole.pt' cannot be read as weights alone"),
        (["text.csv", *model, "--data", "digits"], "'text.csv' cannot be read as weights alone"),
        (["good.npy", "--key", "z"], "--key: found 'z', but 'good.npy' is a single array"),
        (["good.npy", "--model", "a:b", "--data", "digits"], "--model: 'good.npy' is an array"),
        (["good.npy", "--layer", "fc"], "--layer: belongs to a checkpoint, with --model"),
        (["good.npy", "--reference", runs / "simsiam" / "seed0"], "--reference: found"),
        (["good.npy", "--reference", "nan.npy"], "'nan.npy': row 17 holds nan"),
        ([runs / "simsiam" / "seed0", "--reference", "good.npy"], "'good.npy' is no run"),
        (["good.npy", "--out", "report.doc"], "--out: found 'report.doc'"),
        (["good.npy", "--out", "good.npy/report.png"], "--out: 'good.npy/report.png' cannot be written"),
        (["good.npy", "--reference", "wide.npy"], "--reference: found 9 channels, the features have 8"),
        ([], "Missing argument 'PATH'"),
    ]:
        assert expected in refusal("diagnose", *arguments), arguments


def test_the_console_script_ends_with_the_code(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100, 8)))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "collapse_lab", "diagnose", str(tmp_path / "a.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "")
