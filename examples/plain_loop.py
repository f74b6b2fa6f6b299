"""A plain training loop, every stage watched, its table drawn as a heat map over layers and steps.

python examples/plain_loop.py --out runs/plain --no-stop-gradient
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits import SimSiam, images, view

from collapse_lab.heatmap import draw
from collapse_lab.monitors import Watch, sinks

STAGES = ["stage1", "stage2", "stage3", "projector", "predictor"]


def main(out: Path, *, stop_gradient: bool = True, epochs: int = 30, every: int = 10) -> list[Path]:
    """Train, write ``metrics.csv`` and the heat map; return the paths of the heat map."""
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    model, data = SimSiam(stop_gradient=stop_gradient), images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    table = sinks.table(out / "metrics.csv", steps_per_epoch=len(data) // 128)
    with Watch(model, STAGES, every, sinks=[table]) as watch:
        for _ in range(epochs):
            for batch in data[torch.randperm(len(data))].split(128)[: len(data) // 128]:
                optimizer.zero_grad()
                model(view(batch), view(batch)).backward()
                optimizer.step()
                watch.step()
    return draw(out / "metrics.csv", out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-stop-gradient", dest="stop_gradient", action="store_false")
    parser.add_argument("--epochs", type=int, default=30)
    print(*main(**vars(parser.parse_args())), sep="\n")
