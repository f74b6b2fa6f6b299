"""The training steps that the benchmark of the monitors watches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from collapse_lab import augment, data
from collapse_lab.config import build
from collapse_lab.methods import method
from collapse_lab.monitors import Watch
from collapse_lab.objective import build_objective
from collapse_lab.presets import AUGMENT, DATA
from collapse_lab.settings import Config


class Training:
    """SimSiam's step on real or random images: views, both branches, backward, SGD."""

    def __init__(self, config: Config, images: Tensor) -> None:
        self.config, self.images, self.done = config, images, 0
        self.objective = build_objective(config, *data.statistics(images), images.shape[-1], len(images)).train()
        self.optimizer = torch.optim.SGD(self.objective.parameters(), lr=0.01, momentum=0.9, foreach=True)

    def step(self, watch: Watch | None) -> float:
        """Seconds of one step with its call of the watch."""
        start = time.process_time()
        first = self.done * self.config.train.batch % (len(self.images) - self.config.train.batch + 1)
        samples = torch.arange(first, first + self.config.train.batch)
        views = augment.views(self.images[samples], samples, self.config.augment, seed=0, epoch=self.done, views=(0, 1))
        self.objective(views, samples).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if watch:
            watch.step()
        self.done += 1
        return time.process_time() - start


def trainings() -> dict[str, tuple[Callable[[], Training], int, int]]:
    """The two networks with their numbers of rounds: the digits' own, and a ResNet-18 on images of 32 pixels.

    The latter's are random images, since only time counts.
    """

    def digits() -> Training:
        config = build("simsiam", DATA["digits"], method("simsiam").settings)
        return Training(config, data.load(config.data).train)

    def resnet() -> Training:
        network = {"network.backbone": "resnet18", "train.batch": 32}
        config = build("simsiam", AUGMENT["cifar"], method("simsiam").settings, network)
        generator = torch.Generator().manual_seed(0)
        return Training(config, torch.randint(256, (256, 3, 32, 32), dtype=torch.uint8, generator=generator))

    return {"digits, small, batch 128": (digits, 200, 40), "ResNet-18 at 32 px, batch 32": (resnet, 8, 2)}
