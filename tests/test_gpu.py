"""What only a CUDA device shows: nothing waits for it, and what is made there is what the CPU makes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed
from torch.testing import assert_close

from collapse_lab import collective, feeds
from collapse_lab.data import load
from collapse_lab.optimisation import optimizer
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.trainer import Trainer
from tests.tiny import signalled, tiny, trained, weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
# What torch says when it is told to raise where something waits.
PROTOTYPE = "ignore:Synchronization debug mode is a prototype:UserWarning"


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Whatever waits for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_sgd_is_one_kernel(tmp_path: Path) -> None:
    config = tiny(train__device="cuda")
    with Run(tmp_path / "run", config) as run:
        made = Trainer(config, run, load(config.data), lambda progress: None)
    assert all(group["fused"] for group in optimizer(made.objective, config.train).param_groups)


@pytest.mark.filterwarnings(PROTOTYPE)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_does_not_wait_for_the_device(tmp_path: Path, precision: str) -> None:
    config = tiny(train__device="cuda", train__precision=precision, train__channels_last=True)
    with Run(tmp_path / "run", config) as run:
        made = Trainer(config, run, load(config.data), lambda progress: None)
        made.objective.train()
        made._train_step(torch.arange(16), 1)
        with nothing_waits():
            made._train_step(torch.arange(16, 32), 1)


def streamed(root: Path, **settings: object) -> Config:
    """A run on photographs that are written to a folder first."""
    draw = np.random.default_rng(0)
    for number in range(32):
        for split in ("train", "val"):
            path = root / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    chosen = {"data__name": "imagefolder", "data__root": root, "data__image_size": 32, "data__stream": True}
    every = {"data__train_images": None, "data__test_images": None, "augment__flip": 0.5, "augment__blur": 0.5}
    return tiny(**chosen, **every, **settings)


@pytest.mark.filterwarnings(PROTOTYPE)
def test_a_streamed_step_does_not_wait_for_the_device(tmp_path: Path) -> None:
    colours = {"augment__jitter": 0.8, "augment__hue": 0.1, "augment__saturation": 0.4, "augment__grayscale": 0.2}
    config = streamed(tmp_path / "images", train__device="cuda", train__batch=8, **colours)
    with Run(tmp_path / "run", config) as run:
        made = Trainer(config, run, load(config.data), lambda progress: None)
        made.objective.train()
        made.feed.expect(torch.arange(24).split(8), 1)
        made._train_step(torch.arange(8), 1)
        with nothing_waits():
            made._train_step(torch.arange(8, 16), 1)
        made.feed.close()


def test_streamed_views_are_those_made_on_the_cpu(tmp_path: Path) -> None:
    config = streamed(tmp_path)
    images = load(config.data).train
    views = []
    for device in ("cpu", "cuda"):
        feed = feeds.feed(images.to(device), config, 2)
        feed.expect([torch.arange(8)], 1)
        views.append(feed.views(torch.arange(8), 1).cpu())
        feed.close()
    assert_close(views[1], views[0], rtol=0, atol=1e-5)


def test_a_compiled_run_in_half_precision_ends(tmp_path: Path) -> None:
    torch._dynamo.reset()
    config = tiny(train__device="cuda", train__compile=True, train__precision="bfloat16", train__channels_last=True)
    assert trained(config, tmp_path / "run")["state"] == "done"


def test_a_run_on_the_gpu_starts_where_one_on_the_cpu_does(tmp_path: Path) -> None:
    """Convolutions may be in TF32 there."""
    tables = []
    for device in ("cpu", "cuda"):
        trained(tiny(train__device=device), tmp_path / device)
        lines = (tmp_path / device / "metrics.csv").read_text().splitlines()[1:]
        rows = [line.split(",") for line in lines]
        tables.append({tuple(row[2:6]): float(row[6]) for row in rows if row[0] == "0" and row[4] == "std_ratio"})
    assert len(tables[0]) >= 2
    assert tables[1] == pytest.approx(tables[0], rel=0.02)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Up to sums whose order a GPU does not fix."""
    config = tiny(train__device="cuda")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        assert trained(config, tmp_path / "whole")["state"] == "done"
        with pytest.raises(KeyboardInterrupt):
            trained(config, tmp_path / "cut", signalled(6))
        assert trained(config, tmp_path / "cut")["state"] == "done"
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert_close(cut[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_nccl_joins_what_processes_exchange(tmp_path: Path) -> None:
    """Bytes, integers and floats, by the calls that several processes make."""
    meet, device = f"file://{tmp_path / 'meet'}", torch.device("cuda", 0)
    distributed.init_process_group("nccl", init_method=meet, rank=0, world_size=1, device_id=device)
    try:
        for dtype in (torch.uint8, torch.float32):
            rows = torch.arange(12, device="cuda").view(4, 3).to(dtype)
            assert torch.equal(collective._AllRows.apply(rows), rows)
        for counts in (torch.arange(5, device="cuda"), torch.rand(5, device="cuda")):
            before = counts.clone()
            distributed.all_reduce(counts)
            assert torch.equal(counts, before)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_the_run_of_one(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    images = ["--data.train_images=480", "--data.test_images=110", "--train.batch=96", "--train.epochs=4"]
    for count in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [sys.executable, *launcher, "-m", "collapse_lab", "train", "simsiam", "--train.device=cuda", *images]
        where = ["--out", str(tmp_path / str(count)), "--name", "study"]
        done = subprocess.run(
            [*command, *where], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    one, two = (weights(tmp_path / str(count) / "study/simsiam/seed0") for count in (1, 2))
    for name, value in one.items():
        assert_close(two[name], value, rtol=5e-3, atol=5e-3, msg=lambda text, name=name: f"{name}: {text}")
