"""The deep toy: the named methods on a small nonlinear MLP with synthetic views, trained in seconds.

The bridge between formula and real run: the package's own objective, losses and measures, on data whose content and
noise are known. Content c of 8 dimensions is embedded by a fixed random nonlinear map into 64; a view adds noise.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from collapse_lab import geometry, networks
from collapse_lab.config import build
from collapse_lab.draws import key
from collapse_lab.methods import method
from collapse_lab.objective import Objective, assemble
from collapse_lab.optimisation import update
from collapse_lab.settings import Config, OutputNorm

CONTENT, CHANNELS, HIDDEN, DIM, BOTTLENECK = 8, 64, 256, 128, 32
IMAGES, PROBE = 8192, 1024
DATA, INITIAL, ORDER = range(3)


@dataclass(frozen=True)
class DeepToy:
    """One run: a method of the package, the head, the noise of a view, the optimiser and the seed."""

    name: str = "simsiam"
    output_norm: OutputNorm = "none"
    noise2: float = 0.25
    steps: int = 600
    batch: int = 256
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0


def images(seed: int, count: int) -> Tensor:
    """Noise-free images (count, 64): ``tanh(c A) B`` with unit variance per channel in expectation; A, B from the seed."""
    generator = torch.Generator().manual_seed(key(seed, DATA))
    inner = torch.randn(CONTENT, HIDDEN, generator=generator) / CONTENT**0.5
    outer = torch.randn(HIDDEN, CHANNELS, generator=generator) / HIDDEN**0.5
    content = torch.randn(count, CONTENT, generator=generator)
    clean: Tensor = (2 * content @ inner).tanh() @ outer
    return clean / clean.std()


def views_of(clean: Tensor, noise2: float, generator: torch.Generator, views: int = 2) -> Tensor:
    """Views (V, N, C): the images with independent Gaussian noise of variance ``noise2``."""
    noise: Tensor = torch.randn(views, *clean.shape, generator=generator)
    return clean + math.sqrt(noise2) * noise


def objective(toy: DeepToy) -> Objective:
    """The package's objective with an MLP encoder: two hidden layers with BatchNorm, then the head; d = 128."""
    config = _config(toy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(toy.seed, INITIAL))
        # A bias before BatchNorm would be subtracted again.
        norm = [] if toy.output_norm == "none" else [nn.BatchNorm1d(DIM, affine=toy.output_norm == "affine")]
        backbone = nn.Sequential(
            *(nn.Linear(CHANNELS, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
        )
        encoder = networks.Encoder(backbone, nn.Sequential(nn.Linear(HIDDEN, DIM, bias=not norm), *norm))
    return assemble(config, encoder, IMAGES)


def _config(toy: DeepToy) -> Config:
    shape = {
        "network.projector_dim": DIM,
        "network.predictor_hidden": BOTTLENECK,
        "train.batch": toy.batch,
        "train.seed": toy.seed,
    }
    return build(toy.name, shape, method(toy.name).settings)


def train(toy: DeepToy, every: int = 20) -> pd.DataFrame:
    """The run's table: step, loss, std_ratio, mean_energy and rankme of z, train mode, on 1,024 rows of fresh views.

    SGD with cosine decay of the learning rate. Equal settings give equal tables on one thread. Raises ``InputError`` for
    an unknown method.
    """
    learner, clean = objective(toy), images(toy.seed, IMAGES)
    generator = torch.Generator().manual_seed(key(toy.seed, ORDER))
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, toy.learning_rate, toy.momentum, weight_decay=toy.weight_decay)
    steps = _config(toy).train.predictor_steps
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(toy.steps, 1))
    rows = [_reading(learner, clean, toy, 0)]
    for step in range(1, toy.steps + 1):
        index = torch.randint(IMAGES, (toy.batch,), generator=generator)
        views = views_of(clean[index], toy.noise2, generator, learner.views)
        update(learner, optimiser, views, index, step, predictor_steps=steps)
        schedule.step()
        if step % every == 0 or step == toy.steps:
            rows.append(_reading(learner, clean, toy, step))
    return pd.DataFrame(rows)


@torch.no_grad()
def _reading(learner: Objective, clean: Tensor, toy: DeepToy, step: int) -> dict[str, float]:
    """Loss and geometry in train mode; BatchNorm's running statistics are not read by anything here."""
    index = torch.arange(PROBE)
    learner = copy.deepcopy(learner)  # Some targets remember what they are asked.
    views = views_of(clean[index], toy.noise2, torch.Generator().manual_seed(key(toy.seed, ORDER, step)), learner.views)
    measured = geometry.moments(learner.encoder(views[0])) + geometry.moments(learner.encoder(views[1]))
    return {
        "step": step,
        "loss": learner(views, index).item(),
        "std_ratio": geometry.std_ratio(measured),
        "mean_energy": geometry.mean_energy(measured),
        "rankme": geometry.rankme(measured),
    }


def study(names: tuple[str, ...], norms: tuple[OutputNorm, ...], seeds: range, toy: DeepToy) -> pd.DataFrame:
    """The tables of every method, head and seed, one under the other with columns method, head and seed."""
    parts = []
    for name in names:
        for norm in norms:
            for seed in seeds:
                table = train(replace(toy, name=name, output_norm=norm, seed=seed))
                parts.append(table.assign(method=name, head=norm, seed=seed))
    return pd.concat(parts, ignore_index=True)
