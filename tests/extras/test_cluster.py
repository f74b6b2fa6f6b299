"""Runs in jobs of submitit's own local executor: the same directories, the same bytes, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from collapse_lab import cluster, grid, runs
from collapse_lab.errors import InputError, RunStopped
from collapse_lab.settings import Config
from collapse_lab.workers import HERE, Engine, News
from tests.tiny import TINY, load, same, signalled, tiny, trained

pytestmark = pytest.mark.extras

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [part for name, value in TINY.items() if value is not False for part in (f"--{name}", str(value))]
LONG = ["simsiam", *FLAGS, "--no-monitor.probe", "--train.epochs", "150", "--seeds", "1", "--name", "study"]
RUN = Path("study/simsiam/seed0")


def local(out: Path) -> Engine:
    return cluster.engine(out / "jobs", "local", {"timeout_min": 5})


def study(
    out: Path, configs: Sequence[Config], seeds: int, engine: Engine, *, overwrite: bool = False
) -> tuple[list[BaseException], list[News]]:
    news: list[News] = []
    asked = grid.Grid("study", configs[0], grid.arms(configs, range(seeds)))
    return grid.train_grids(out, [asked], overwrite=overwrite, listen=news.append, engine=engine), news


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within two minutes"
        time.sleep(0.05)


def is_free(directory: Path) -> bool:
    try:
        runs.require_free(directory)
    except InputError:
        return False
    return True


def starts(directory: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((directory / "environment.json").read_text())["starts"]
    return found


@pytest.fixture
def command(tmp_path):
    """A comparison of one long run, which waits for its job; ended, with its job, when the test is over."""
    begun: list[subprocess.Popen[str]] = []

    def start(*extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "collapse_lab", "compare", *LONG, "--out", str(tmp_path), *extra],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            # What a shell starts in the background ignores SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def trainer_of(out: Path) -> int:
    """The process that trains, once the first epoch of its run is recorded; submitit names a job by its controller."""
    until((out / RUN / "timing.csv").exists, "first epoch")
    (submitted,) = (out / "jobs").glob("*_submitted.pkl")
    controller = submitted.name.split("_")[0]
    return int(Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])


def undisturbed(out: Path) -> Path:
    """The same run as in ``out``, trained in this process."""
    trained(runs.read_config(out / RUN), out / "undisturbed")
    return out / "undisturbed"


def test_jobs_write_what_processes_of_this_machine_write(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "REFRESHED_EVERY", 0)
    configs = [tiny(), tiny("no-stop-gradient")]
    assert study(tmp_path / "here", configs, 2, HERE)[0] == []
    errors, news = study(tmp_path / "jobs", configs, 2, local(tmp_path))
    assert errors == []
    assert sorted(one.run for one in news if one.state == "submitted") == sorted(
        f"{name} seed {seed}" for name in ("simsiam", "no-stop-gradient") for seed in (0, 1)
    )
    assert [one.state for one in news if one.job is None] == ["done"] * 4
    for name in ("simsiam", "no-stop-gradient"):
        for seed in (0, 1):
            run = Path("study", name, f"seed{seed}")
            assert same(tmp_path / "here" / run, tmp_path / "jobs" / run)
    # And once more: nothing is left to be submitted.
    errors, news = study(tmp_path / "jobs", configs, 2, local(tmp_path))
    assert (errors, {one.state for one in news}) == ([], {"done before"})


def test_a_run_begun_here_goes_on_in_a_job_and_a_bad_one_leaves_it_alone(tmp_path):
    config, run = tiny(), tmp_path / RUN
    with pytest.raises(KeyboardInterrupt):
        trained(config, run, signalled(7))
    bad = tmp_path / "study" / "no-stop-gradient" / "seed0"
    with runs.Run(bad, tiny("no-stop-gradient")):
        (bad / "checkpoint.pt").write_bytes(b"no checkpoint")
    errors, news = study(tmp_path, [config, tiny("no-stop-gradient")], 1, local(tmp_path))
    (error,) = errors
    assert isinstance(error, InputError)
    assert f"checkpoint '{bad / 'checkpoint.pt'}' is refused" in str(error)
    assert {one.run: one.state for one in news if one.job is None} == {
        "simsiam seed 0": "done",
        "no-stop-gradient seed 0": "not finished",
    }
    trained(config, tmp_path / "undisturbed")
    assert same(run, tmp_path / "undisturbed")
    assert len(starts(run)) == 2


def test_overwriting_happens_once_before_the_jobs(tmp_path):
    for _ in range(2):
        assert study(tmp_path, [tiny()], 1, local(tmp_path), overwrite=True)[0] == []
    assert len(starts(tmp_path / RUN)) == 1
    trained(tiny(), tmp_path / "undisturbed")
    assert same(tmp_path / RUN, tmp_path / "undisturbed")


def test_a_job_whose_time_is_over_saves_its_run_and_goes_on_with_it(tmp_path, command):
    process = command("--jobs", "local", "--job", "timeout_min=5")
    os.kill(trainer_of(tmp_path), signal.SIGUSR2)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert len(starts(tmp_path / RUN)) == 2
    assert starts(tmp_path / RUN)[0]["command"].startswith("collapse-lab compare simsiam")
    (log,) = (tmp_path / "jobs").glob("*_log.err")
    (told,) = (tmp_path / "jobs").glob("*_log.out")
    assert "simsiam seed 0: interrupted" in log.read_text()
    assert "Requeued job" in told.read_text()
    assert same(tmp_path / RUN, undisturbed(tmp_path))


def test_a_job_that_is_killed_is_told_in_one_line_and_its_run_goes_on_here(tmp_path, command):
    process = command("--jobs", "local")
    os.kill(trainer_of(tmp_path), signal.SIGKILL)
    said = process.communicate(timeout=120)[1].splitlines()
    assert process.returncode == 1
    assert f"collapse-lab: run '{tmp_path / RUN}' was stopped with its job" in said[-1]
    (log,) = (tmp_path / "jobs").glob("*_log.err")
    assert f"ended without a result (FINISHED); '{log}' says more, and the same command goes on" in said[-1]
    config = runs.read_config(tmp_path / RUN)
    assert trained(config, tmp_path / RUN)["state"] == "done"
    assert same(tmp_path / RUN, undisturbed(tmp_path))


def test_an_interrupt_cancels_the_jobs_and_the_same_runs_go_on(tmp_path, command):
    process = command("--jobs", "local")
    trainer = trainer_of(tmp_path)
    with pytest.raises(InputError, match="seed0' is in use by another process, here or on another machine"):
        study(tmp_path, [runs.read_config(tmp_path / RUN)], 1, local(tmp_path))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    # submitit's process that keeps a local job says its own on the same stream.
    assert "\ncollapse-lab: interrupted; a run or study goes on with the same command" in said
    until(lambda: is_free(tmp_path / RUN), "end of the job")
    until(lambda: not Path(f"/proc/{trainer}").exists(), "end of its process")
    status = runs.read_status(tmp_path / RUN)
    assert (status["state"], 0 < status["step"] < 750) == ("interrupted", True)
    said = command().communicate(timeout=120)[1]
    assert "simsiam seed 0: done" in said
    assert same(tmp_path / RUN, undisturbed(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_is_looked_for_where_the_run_is_trained(tmp_path):
    config = tiny(train__device="cuda")
    with pytest.raises(InputError, match="this machine has no usable GPU"):
        HERE.check(config, load(config.data))
    local(tmp_path).check(config, load(config.data))
    place = grid.Grid("study", config, grid.arms([config], range(2)))
    # Both jobs say it; the summary of what there is, nothing here, is written before the first is raised.
    with pytest.raises(InputError, match="this machine has no usable GPU"):
        grid.run_study(tmp_path, place, overwrite=False, listen=lambda news: None, engine=local(tmp_path))
    assert json.loads((tmp_path / "study" / "summary.json").read_text())["arms"]["simsiam"]["seeds"] == []


@pytest.mark.parametrize(
    ("where", "asked", "expected"),
    [
        (
            "local",
            {"timeout_mn": 5},
            "Unknown executor 'timeout' in parameter 'timeout_mn'. Without a prefix: name, timeout_",
        ),
        ("local", {"slurm_partitio": "gpu"}, "Unknown argument 'partitio' for executor 'slurm'"),
        ("local", {"timeout_min": "long"}, """Parameter "timeout_min" expected type <class 'int'>"""),
        ("local", {"nodes": 2}, "--job: found 'nodes=2', but a run is one process; torchrun starts several"),
        ("slurm", {"slurm_ntasks_per_node": 4}, "but a run is one process"),
        ("slurm", {}, "--jobs slurm: Could not detect"),
    ],
)
def test_what_submitit_does_not_take_is_refused_in_one_line(tmp_path, monkeypatch, where, asked, expected):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError) as refused:
        cluster.engine(tmp_path / "jobs", where, asked)
    (line,) = str(refused.value).splitlines()
    assert expected in line


def test_without_submitit_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"submitit is missing; python -m pip install 'collapse-lab\[cluster\]'"):
        cluster.engine(tmp_path, "local", {})


def test_a_run_that_was_stopped_by_an_error_arrives_as_that(tmp_path):
    config = tiny()
    object.__setattr__(config.train, "base_lr", "fast")
    arguments, sys.argv = sys.argv, list(sys.argv)
    try:
        error = cluster.Job(config, tmp_path / RUN, [])()
    finally:
        sys.argv = arguments
    assert isinstance(error, RunStopped)
    assert str(error).startswith(f"run '{tmp_path / RUN}' was stopped by TypeError")
    assert str(error).endswith("; its traceback.txt says where")
    assert "TypeError" in (tmp_path / RUN / "traceback.txt").read_text()
