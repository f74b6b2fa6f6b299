"""A small vision transformer that predicts the masked patches of its average teacher, in the manner of JEPA.

    python examples/vision_transformer.py

Patch tokens (one row a token, and pooled), the class token and the teacher are taps of their own, for they can collapse
one without the other. Here the tokens of an image differ by their position, and so keep their rank, while the images no longer
differ from each other: only the pooled tokens and the class token say so.
"""

from __future__ import annotations

import copy

import torch
from digits import images, view
from torch import Tensor, nn
from torch.nn.functional import layer_norm, smooth_l1_loss

from collapse_lab.monitors import Reading, Tap, Watch

PATCH, DIMENSION, TOKENS = 2, 64, 16
LAYERS = {
    "patches": Tap("student.blocks", rows="flattened", prefix=1),
    "pooled patches": Tap("student.blocks", prefix=1),
    "class token": Tap("student.blocks", rows="class-token"),
    "first block": Tap("student.blocks.layers.0", rows="flattened", prefix=1),
    "teacher": Tap("teacher.blocks", rows="flattened", prefix=1, mode="eval"),
    "predictor": Tap("predictor", rows="flattened"),
}


class Transformer(nn.Module):
    """Images (N, 1, 8, 8) to a class token and 16 patch tokens, (N, 17, 64); masked patches become a learnt token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, DIMENSION, PATCH, PATCH)
        self.mask, self.class_token = nn.Parameter(torch.zeros(DIMENSION)), nn.Parameter(torch.zeros(DIMENSION))
        self.positions = nn.Parameter(0.5 * torch.randn(TOKENS + 1, DIMENSION))
        block = nn.TransformerEncoderLayer(DIMENSION, 4, 2 * DIMENSION, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Tensor:
        """Tokens of a batch; ``masked`` is (N, 16)."""
        tokens = self.patches(x).flatten(2).mT
        if masked is not None:
            tokens = torch.where(masked[..., None], self.mask, tokens)
        tokens = torch.cat([self.class_token.expand(len(x), 1, -1), tokens], 1)
        return self.blocks(tokens + self.positions)


def main(steps: int = 150, every: int = 25) -> list[Reading]:
    """Train and return all readings."""
    torch.manual_seed(0)
    student = Transformer()
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    predictor = nn.Sequential(nn.Linear(DIMENSION, DIMENSION), nn.GELU(), nn.Linear(DIMENSION, DIMENSION))
    everything = nn.ModuleDict({"student": student, "teacher": teacher, "predictor": predictor})
    optimizer = torch.optim.AdamW([*student.parameters(), *predictor.parameters()], lr=1e-3)
    data, found = images(), []
    with Watch(everything, LAYERS, every) as watch:
        for _ in range(steps):
            x = view(data[torch.randint(len(data), (64,))])
            masked = torch.rand(len(x), TOKENS) < 0.6
            target = layer_norm(teacher(x)[:, 1:], (DIMENSION,))
            loss = smooth_l1_loss(predictor(student(x, masked)[:, 1:])[masked], target[masked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                    slow.lerp_(fast, 0.01)
            found += watch.step()
    return found


if __name__ == "__main__":
    for reading in main():
        if reading.metric in ("std_ratio", "rankme"):
            print(f"{reading.step:5d} {reading.layer:15s} {reading.metric:10s} {reading.value:8.3f}")
