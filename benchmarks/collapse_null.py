"""Null bands of RankMe at finite N: simulate clouds with power-law covariances and keep how far RankMe falls short.

For each (d, N/d, alpha) draw ``--draws`` clouds of N Gaussian rows whose covariance eigenvalues fall as j^-alpha, take RankMe
of the l2-normalised rows, and divide by that of the covariance itself (``power_law_rankme``). Seeded; minutes on one core.
"""

from __future__ import annotations

import numpy as np
import torch

from collapse_lab.geometry import moments, power_law_rankme, rankme

DIMENSIONS = (16, 64, 128, 256, 512)
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def shortfall(dimension: int, ratio: float, alpha: float, draws: int) -> tuple[float, float]:
    """Mean and standard deviation over draws of log(RankMe at N = ratio x d) - log(RankMe of the covariance)."""
    scale = torch.arange(1, dimension + 1, dtype=torch.float64) ** (-alpha / 2)
    rows = round(ratio * dimension)
    limit = np.log(power_law_rankme(dimension, alpha))
    logs = []
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        cloud = torch.randn(rows, dimension, generator=generator, dtype=torch.float64) * scale
        logs.append(np.log(rankme(moments(cloud))) - limit)
    return float(np.mean(logs)), float(np.std(logs, ddof=1))


def simulate(draws: int) -> dict[str, object]:
    """The table over the grid, as nested lists [dimension][ratio][alpha]."""
    cells = [[[shortfall(d, ratio, alpha, draws) for alpha in ALPHAS] for ratio in RATIOS] for d in DIMENSIONS]
    return {
        "dimensions": DIMENSIONS,
        "ratios": RATIOS,
        "alphas": ALPHAS,
        "draws": draws,
        "mean": [[[round(mean, 5) for mean, _ in row] for row in block] for block in cells],
        "std": [[[round(std, 5) for _, std in row] for row in block] for block in cells],
    }
