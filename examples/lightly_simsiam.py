"""lightly's SimSiam heads, loss and transform in the plain loop of its documentation, with a watch: two lines.

python examples/lightly_simsiam.py
"""

from __future__ import annotations

import torch
from digits import TwoViews, stage
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn
from torch.utils.data import DataLoader

from collapse_lab.monitors import Reading, Watch


class SimSiam(nn.Module):
    """A backbone with lightly's heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(stage(1, 16, 1), stage(16, 32, 2), stage(32, 64, 2), nn.AdaptiveAvgPool2d(1))
        self.projection_head = SimSiamProjectionHead(64, 128, 64)
        self.prediction_head = SimSiamPredictionHead(64, 16, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z, detached, and p."""
        z = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return z.detach(), self.prediction_head(z)


def main(epochs: int = 3, every: int = 10) -> list[Reading]:
    """Train and return all readings."""
    torch.manual_seed(0)
    model, criterion, found = SimSiam(), NegativeCosineSimilarity(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TwoViews(), batch_size=128, shuffle=True, drop_last=True)
    with Watch(model, ["backbone", "projection_head", "prediction_head"], every) as watch:  # the first line
        for _ in range(epochs):
            for x0, x1 in loader:
                (z0, p0), (z1, p1) = model(x0), model(x1)
                loss = 0.5 * (criterion(z0, p1) + criterion(z1, p0))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found += watch.step()  # the second line
    return found


if __name__ == "__main__":
    for reading in main():
        if reading.metric in ("std_ratio", "rankme"):
            print(f"{reading.step:5d} {reading.layer:15s} {reading.metric:10s} {reading.value:8.3f}")
