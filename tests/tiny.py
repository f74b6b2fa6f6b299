"""A run so small that it is trained many times in a test, and the ways to disturb it."""

from __future__ import annotations

import signal
from functools import cache
from pathlib import Path
from typing import Any

import torch

from collapse_lab import data, trainer
from collapse_lab.flags import configured
from collapse_lab.runs import Run
from collapse_lab.settings import Config

TINY = {
    "data.train_images": 80,
    "data.test_images": 20,
    "network.width": 4,
    "network.projector_hidden": 16,
    "network.projector_dim": 16,
    "network.predictor_hidden": 8,
    "train.epochs": 3,
    "train.batch": 16,
    "monitor.every": 2,
    "monitor.evaluate_every": 2,
    "monitor.k": 5,
    "monitor.probe": False,
}
STEPS = 5  # of an epoch
load = cache(data.load)


def tiny(name: str = "simsiam", **overrides: object) -> Config:
    values = {key.replace(".", "__"): value for key, value in TINY.items()} | overrides
    return configured((name,), {"config": None, "preset": (), **values})[1][0]


def trained(config: Config, directory: Path, loop: type[trainer.Trainer] = trainer.Trainer) -> dict[str, Any]:
    """The status of a run trained, or resumed, with a loop of one's own."""
    images = load(config.data)
    with Run(directory, config) as run:
        before, trainer.Trainer = trainer.Trainer, loop
        try:
            return trainer.train(config, run, images, lambda progress: None)
        finally:
            trainer.Trainer = before


class Collapsing(trainer.Trainer):
    """A loop in which every output becomes the same after step 60."""

    def _train_step(self, samples, epoch):
        if self.step >= 60:
            with torch.no_grad():
                self.objective.encoder.projector[-1].weight.mul_(0.5)
        super()._train_step(samples, epoch)


def signalled(step: int, base: type[trainer.Trainer] = trainer.Trainer) -> type[trainer.Trainer]:
    """A loop that gets SIGTERM in the middle of the step after so many."""

    class Signalled(base):
        def _train_step(self, samples, epoch):
            if self.step == step:
                signal.raise_signal(signal.SIGTERM)
            super()._train_step(samples, epoch)

    return Signalled


def weights(directory: Path, name: str = "checkpoint.pt") -> dict[str, torch.Tensor]:
    state = torch.load(directory / name, weights_only=True)
    kept = {
        f"optimizer.{key}.{what}": tensor
        for key, entry in state["optimizer"]["state"].items()
        for what, tensor in entry.items()
        if isinstance(tensor, torch.Tensor)
    }
    return {**state["objective"], **kept}


def same(one: Path, other: Path) -> bool:
    """Whether two runs have the same table and the same weights and momenta, to the byte."""
    first, second = weights(one), weights(other)
    tables = [(directory / "metrics.csv").read_bytes() for directory in (one, other)]
    equal = all(torch.equal(first[key].view(-1), second[key].view(-1)) for key in second)
    return first.keys() == second.keys() and equal and tables[0] == tables[1]
