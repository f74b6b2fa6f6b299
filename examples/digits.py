"""What the examples share: scikit-learn's digits, random views of them, and a small SimSiam in stages."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cosine_similarity, grid_sample
from torch.utils.data import Dataset


def images() -> Tensor:
    """All 1,797 digits, (N, 1, 8, 8) in [0, 1]."""
    return torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16


def view(batch: Tensor) -> Tensor:
    """A random view of each image: shifted, zoomed and rotated a little, brighter or darker."""
    count = len(batch)
    angle, zoom = 0.5 * torch.rand(count) - 0.25, 0.6 + 0.5 * torch.rand(count)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    shift = 0.5 * torch.rand(2, count) - 0.25
    theta = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)
    moved = grid_sample(batch, affine_grid(theta, list(batch.shape), align_corners=False), align_corners=False)
    return moved * (0.6 + 0.8 * torch.rand(count, 1, 1, 1))


class TwoViews(Dataset):
    """Pairs of views of one digit, for frameworks that want a data set."""

    def __init__(self) -> None:
        self.images = images()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index : index + 1]
        return view(image)[0], view(image)[0]


class SimSiam(nn.Module):
    """Three convolutional stages, a projector and a predictor; ``forward`` gives the loss of two views."""

    def __init__(self, *, stop_gradient: bool = True, width: int = 16, dimension: int = 64) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient
        self.stage1 = stage(1, width, 1)
        self.stage2 = stage(width, 2 * width, 2)
        self.stage3 = stage(2 * width, 4 * width, 2)
        self.projector = head(4 * width, dimension, dimension)
        self.predictor = head(dimension, dimension // 4, dimension)

    def encode(self, x: Tensor) -> Tensor:
        """z of a batch of views."""
        return self.projector(self.stage3(self.stage2(self.stage1(x))).mean((2, 3)))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The symmetric negative cosine similarity."""
        z1, z2 = self.encode(x1), self.encode(x2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        if self.stop_gradient:
            z1, z2 = z1.detach(), z2.detach()
        return -(cosine_similarity(p1, z2).mean() + cosine_similarity(p2, z1).mean()) / 2


def stage(channels: int, out: int, stride: int) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    convolution = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def head(width: int, hidden: int, out: int) -> nn.Sequential:
    """Two layers with BatchNorm between them."""
    hidden_layer = nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)
    return nn.Sequential(*hidden_layer, nn.Linear(hidden, out))
