"""What only a CUDA device shows: nothing waits for it, and what is made there is what the CPU makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from collapse_lab import feeds
from collapse_lab.data import load
from collapse_lab.optimisation import optimizer
from collapse_lab.runs import Run
from collapse_lab.trainer import Trainer
from tests.tiny import tiny, trained

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def test_sgd_is_one_kernel(tmp_path: Path) -> None:
    config = tiny(train__device="cuda")
    with Run(tmp_path / "run", config) as run:
        made = Trainer(config, run, load(config.data), lambda progress: None)
    assert all(group["fused"] for group in optimizer(made.objective, config.train).param_groups)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_does_not_wait_for_the_device(tmp_path: Path, precision: str) -> None:
    config = tiny(train__device="cuda", train__precision=precision, train__channels_last=True)
    with Run(tmp_path / "run", config) as run:
        made = Trainer(config, run, load(config.data), lambda progress: None)
        made.objective.train()
        made._train_step(torch.arange(16), 1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            made._train_step(torch.arange(16, 32), 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_streamed_views_are_those_made_on_the_cpu(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(8):
        for split in ("train", "val"):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    chosen = {"data__name": "imagefolder", "data__root": tmp_path, "data__image_size": 32, "data__stream": True}
    config = tiny(**chosen, data__train_images=None, data__test_images=None, augment__flip=0.5, augment__blur=0.5)
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
