"""Trains every method on a rank's share of fixed batches; run by torchrun, it writes final weights to $OUT.

A process alone trains on the whole batches.
"""

import os
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from collapse_lab.batchnorm import synchronised
from collapse_lab.config import build
from collapse_lab.methods import METHODS, method
from collapse_lab.networks import Encoder
from collapse_lab.objective import assemble
from collapse_lab.optimisation import optimizer, update

STEPS, BATCH, IMAGES, DIM = 6, 24, 48, 8
SMALL = {
    "network.projector_dim": DIM,
    "network.predictor_hidden": 4,
    "objective.queue": 64,
    "objective.prototypes": 6,
    "target.views": 3,
    "train.batch": BATCH,
}


def trained(name: str, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    config = build(name, method(name).settings, SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.Linear(40, 16))
        encoder = Encoder(backbone, nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, DIM)))
    objective = synchronised(assemble(config, encoder, IMAGES), torch.device("cpu"))
    descent = optimizer(objective, config.train)
    for group in descent.param_groups:
        group["lr"] = 0.05
    generator = torch.Generator().manual_seed(1)
    for step in range(1, STEPS + 1):
        views = torch.randn(objective.views, BATCH, 1, 12, generator=generator).chunk(world, dim=1)[rank]
        index = torch.randperm(IMAGES, generator=generator)[:BATCH].chunk(world)[rank]
        update(objective, descent, views, index, step, predictor_steps=config.train.predictor_steps)
    return objective.state_dict()


def main() -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo")
    states = {name: trained(name, rank, world) for name in METHODS}
    torch.save(states, Path(os.environ["OUT"]) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    # What is checked is written; torch's own gloo threads can abort a process whose interpreter takes itself apart.
    os._exit(0)


if __name__ == "__main__":
    main()
