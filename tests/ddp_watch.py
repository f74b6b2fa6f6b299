"""Trains a small network on a rank's share of fixed batches, watched; run by torchrun, it writes readings to $OUT.

A process alone trains on the whole batches. There is no BatchNorm, whose statistics are per process.
"""

import json
import os
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from collapse_lab.monitors import FULL, Reading, Watch

STEPS, ROWS = 4, 48


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8))


def train(model: nn.Module, watch: Watch, rank: int = 0, world: int = 1) -> list[Reading]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(STEPS):
        for view in torch.randn(2, ROWS, 12, generator=generator):
            share = view.chunk(world)[rank]
            (model(share) - share[:, :8]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        found += watch.step()
    return found


def main() -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo")
    model = network()
    wrapped = DistributedDataParallel(model)
    with Watch(wrapped, ["0", "2"], every=2, statistics=FULL, reduce=True) as watch:
        readings = train(wrapped, watch, rank, world)
        (Path(os.environ["OUT"]) / f"{rank}.json").write_text(json.dumps(readings))
        watch.step()
        if rank == 0:
            model(torch.zeros(3, 12))
        try:
            watch.step()
        except RuntimeError as error:
            (Path(os.environ["OUT"]) / f"{rank}.txt").write_text(str(error))
    distributed.barrier()
    distributed.destroy_process_group()
    # What is checked is written; torch's own gloo threads can abort a process whose interpreter takes itself apart.
    os._exit(0)


if __name__ == "__main__":
    main()
