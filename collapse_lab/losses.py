"""Losses of predictions p and targets t: functions of (..., D), means over everything else, computed in float32.

None of them detaches anything: where the gradient goes is decided in one place, the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def negative_cosine(p: Tensor, t: Tensor) -> Tensor:
    """-p.t / (|p| |t|), averaged; range [-1, 1], collapse reads -1. Chen & He (2020), equation 1.

    >>> import torch
    >>> round(negative_cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])).item(), 4)
    -0.96
    """
    return -functional.cosine_similarity(p.float(), t.float(), dim=-1).mean()


def mse(p: Tensor, t: Tensor) -> Tensor:
    """|p - t|^2, summed over channels and averaged over the rest; range [0, inf), collapse reads 0. Su (2020), equation 7.

    >>> import torch
    >>> mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).item()
    5.0
    """
    return (p.float() - t.float()).square().sum(-1).mean()


def cross_entropy(p: Tensor, t: Tensor) -> Tensor:
    """-softmax(t) . log softmax(p) over channels, averaged; range [0, inf). Chen & He (2020), section 4.5.

    A constant uniform output reads log D, a constant one-hot output 0.

    >>> import torch
    >>> round(cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2)).item(), 4)
    0.6931
    """
    return -(t.float().softmax(-1) * p.float().log_softmax(-1)).sum(-1).mean()


LOSSES: Mapping[str, Loss] = {"negative-cosine": negative_cosine, "mse": mse, "cross-entropy": cross_entropy}
