"""What the tests of the geometry draw: seeds, Gaussian clouds, rotations."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

draws = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(gaussian(d, d, seed=seed)).Q
