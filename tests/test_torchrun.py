"""The trainer under real torchrun: several processes on gloo give the run of one, go on in other numbers, end together."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from collapse_lab import snapshots

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--data.train_images=480", "--data.test_images=110", "--train.batch=96", "--monitor.evaluate_every=1")
PROGRAM = ("-m", "collapse_lab")
# 20 steps: float32 sums in another order, through BatchNorm and momentum.
WEIGHTS, VALUES = 2e-3, 5e-3


def start(
    out: Path, processes: int, *extra: str, program: Sequence[str] = PROGRAM, **streams: Any
) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, *program, "train", "simsiam", *SMALL, *extra]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    where = ["--out", str(out), "--name", "study"]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams}
    return subprocess.Popen([*command, *where], env=variables, text=True, **said)


def finished(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    return said


def state(out: Path) -> dict[str, torch.Tensor]:
    return snapshots.read(out / "study/simsiam/seed0/checkpoint.pt", torch.device("cpu"))["objective"]


def table(out: Path) -> dict[tuple[str, ...], float]:
    with (out / "study/simsiam/seed0/metrics.csv").open(newline="") as file:
        return {tuple(row[:-1]): float(row[-1]) for row in list(csv.reader(file))[1:]}


def status(out: Path) -> dict[str, object]:
    return json.loads((out / "study/simsiam/seed0/status.json").read_text())


def until_step(out: Path, step: int) -> None:
    for _ in range(600):
        path = out / "study/simsiam/seed0/metrics.csv"
        if path.exists() and any(int(key[0]) >= step for key in table(out)):
            return
        time.sleep(0.1)
    raise AssertionError(f"no step {step} within a minute")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    finished(start(out, 1, "--train.epochs=4"))
    return out


def assert_same_run(out: Path, alone: Path) -> None:
    expected = state(alone)
    for key, value in state(out).items():
        torch.testing.assert_close(value.float(), expected[key].float(), rtol=WEIGHTS, atol=WEIGHTS)
    one, other = table(alone), table(out)
    assert one.keys() == other.keys()
    # Single test images may change sides; the centred rank of an output that has not spread yet is all rounding.
    accuracy = {key for key in one if key[4] in ("knn", "linear")}
    assert all(abs(one[key] - other[key]) <= 2 / 110 for key in accuracy)
    far = {
        key: (one[key], other[key])
        for key in one.keys() - accuracy
        if abs(one[key] - other[key]) > VALUES * (1 + abs(one[key]))
    }
    assert far == {}


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.long)])
def test_several_processes_give_the_run_of_one(alone, tmp_path, processes):
    said = finished(start(tmp_path, processes, "--train.epochs=4"))
    assert said.count("simsiam seed 0: done") == 1
    assert_same_run(tmp_path, alone)


@pytest.mark.long
def test_processes_that_share_the_files_start_as_one_does(tmp_path):
    """Channel statistics to the bit, and the calibrated start: each process decodes its part of the photographs."""
    draw = np.random.default_rng(0)
    for number in range(26):
        for split in ("train", "val"):
            path = tmp_path / "images" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((40, 36), Image.Resampling.BICUBIC).save(path)
    source = ["--data.name=imagefolder", f"--data.root={tmp_path / 'images'}", "--data.image_size=32", "--data.stream"]
    few = ["--data.train_images=26", "--data.test_images=26", "--train.batch=12", "--train.epochs=1", "--monitor.k=5"]
    for processes in (1, 3):
        finished(start(tmp_path / str(processes), processes, *source, *few))
    one, three = tmp_path / "1", tmp_path / "3"
    for name in ("mean", "std"):
        key = f"encoder.backbone.0.{name}"
        assert torch.equal(state(one)[key], state(three)[key])
    starts = [{key: value for key, value in table(out).items() if key[0] == "0"} for out in (one, three)]
    assert starts[0].keys() == starts[1].keys()
    for key, value in starts[0].items():
        assert starts[1][key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


@pytest.mark.long
def test_an_interrupted_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    process = start(tmp_path, 2, "--train.epochs=4")
    until_step(tmp_path, 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert status(tmp_path)["state"] in ("interrupted", "running")
    finished(start(tmp_path, 3, "--train.epochs=4"))
    assert_same_run(tmp_path, alone)


def test_a_dead_process_ends_the_others_at_once_and_the_status_says_so(tmp_path):
    process = start(tmp_path, 2, "--train.epochs=2000")
    until_step(tmp_path, 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode != 0
    found = status(tmp_path)
    assert found["state"] in ("interrupted", "running")
    assert found["error"] in (None, "another process ended or hangs, seen by rank 0")


@pytest.mark.long
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    said = start(tmp_path, 2, "--train.batch=95").communicate(timeout=60)[0]
    assert "found 95, which 2 processes (torchrun) x 1 parts (train.accumulate) cannot share equally; 94 and 96" in said


def test_what_the_first_process_refuses_is_all_that_is_said(tmp_path):
    missing = tmp_path / "missing"
    said = start(tmp_path, 2, "--data.name=cifar10", f"--data.root={missing}").communicate(timeout=60)[0]
    assert f"collapse-lab: data.root: folder '{missing}' does not exist" in said
    assert "collapse_lab/workers.py" not in said, said


@pytest.mark.long
def test_an_answer_that_cannot_be_given_is_no_success(alone):
    with Path("/dev/full").open("w") as full:
        process = start(alone, 2, "--train.epochs=4", stdout=full, stderr=subprocess.DEVNULL)
        assert process.wait(timeout=60) != 0


def test_an_error_in_one_process_is_kept_as_its_own(tmp_path):
    """A program around the package's own in which the second process fails in step 7."""
    program = tmp_path / "failing.py"
    program.write_text(
        "import os\n"
        "from collapse_lab import cli, trainer\n"
        "step = trainer.Trainer._train_step\n"
        "def failing(self, *arguments):\n"
        "    if self.step == 6 and os.environ['RANK'] == '1':\n"
        "        raise TypeError('out of reach')\n"
        "    step(self, *arguments)\n"
        "trainer.Trainer._train_step = failing\n"
        "cli.main()\n"
    )
    said = start(tmp_path, 2, "--train.epochs=4", program=[str(program)]).communicate(timeout=60)[0]
    run = tmp_path / "study/simsiam/seed0"
    assert f"run '{run}' was stopped by TypeError: out of reach; its traceback-rank1.txt says where" in said
    assert "in failing" in (run / "traceback-rank1.txt").read_text()
    assert not (run / "traceback.txt").exists()
