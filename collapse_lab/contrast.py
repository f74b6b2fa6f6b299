"""Losses that look at the whole batch: NT-Xent, InfoNCE with a queue, swapped prediction of cluster codes.

Like the other losses they detach nothing and compute in float32. Under several processes the batch is that of all of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from collapse_lab.collective import all_rows, processes
from collapse_lab.draws import key


def nt_xent(p: Tensor, t: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of finding the own target among all targets of the batch; p, t: (2, N, D), aligned.

    -log exp(p_vn.t_vn / T) / sum over (w, m) of exp(p_vn.t_wm / T), of unit rows; left out of the sum is the target
    w != v, m = n, which is made from the anchor's own view. With t = z of the other view and p = z it is the loss of the
    2N x 2N matrix of similarities. Range [0, log(2 N - 1) + 2/T]; a collapsed output reads log(2 N - 1).
    Raises ``ValueError`` unless there are two views. Chen et al. (2020).

    >>> round(nt_xent(torch.ones(2, 4, 3), torch.ones(2, 4, 3), temperature=0.5).item(), 4) == round(math.log(7), 4)
    True
    """
    if len(p) != 2 or p.shape != t.shape:
        raise ValueError(f"nt_xent: found shapes {tuple(p.shape)} and {tuple(t.shape)}, needs (2, N, D) twice")
    p, t = _unit(p), _unit(t)
    count = p.shape[1]
    own = torch.arange(count, device=p.device) + processes()[0] * count
    losses = []
    targets = [all_rows(t_v) for t_v in t]
    total = len(targets[0])
    for view in (0, 1):
        logits = p[view] @ torch.cat([targets[view], targets[1 - view]]).T / temperature
        logits = logits.scatter(1, (own + total)[:, None], -math.inf)
        losses.append(functional.cross_entropy(logits, own))
    return torch.stack(losses).mean()


class QueuedInfoNCE(nn.Module):
    """Cross-entropy of finding the own target among earlier targets, which wait in a queue; He et al. (2020).

    -log exp(p.t / T) / (exp(p.t / T) + sum over the queue of exp(p.q / T)), of unit rows; (..., N, D) to a scalar in
    [0, log(1 + K) + 2/T]. A collapsed output reads log(1 + K). In training the batch's targets, detached, enter the queue
    (K, D) after the loss is computed and the oldest leave. The queue starts as random unit rows drawn from the seed.
    """

    queue: Tensor

    def __init__(self, length: int, dim: int, temperature: float, seed: int) -> None:
        super().__init__()
        self.temperature = temperature
        generator = torch.Generator().manual_seed(key(seed, 2))
        self.register_buffer("queue", functional.normalize(torch.randn(length, dim, generator=generator), dim=1))

    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        """The loss of predictions and targets (..., N, D)."""
        p, t = _unit(p).flatten(0, -2), _unit(t).flatten(0, -2)
        logits = torch.cat([(p * t).sum(1, keepdim=True), p @ self.queue.float().T], dim=1) / self.temperature
        if self.training:
            # A new tensor: the backward pass still needs the old one.
            self.queue = torch.cat([all_rows(t.detach()), self.queue])[: len(self.queue)]
        return functional.cross_entropy(logits, torch.zeros(len(p), dtype=torch.int64, device=p.device))


class Prototypes(nn.Module):
    """Cosine similarities (..., N, P) of rows (..., N, D) to P learned prototypes; Caron et al. (2020)."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, dim) / math.sqrt(dim))

    def forward(self, rows: Tensor) -> Tensor:
        """Similarities in [-1, 1]; the prototypes are normalised here, so that their length is no parameter."""
        return functional.linear(_unit(rows), functional.normalize(self.weight.float(), dim=1))


def swapped_prediction(p: Tensor, t: Tensor, *, temperature: float, epsilon: float, iterations: int) -> Tensor:
    """-q . log softmax(p / T) with codes q = Sinkhorn(t); p, t: (V, N, P) similarities to prototypes, aligned.

    The codes are those of each view's whole batch. Range [0, inf); equal similarities read log P. Caron et al. (2020).
    """
    codes = torch.stack([sinkhorn(t_v, epsilon, iterations) for t_v in t.float()])
    return -(codes * (p.float() / temperature).log_softmax(-1)).sum(-1).mean()


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Codes (N, P) of scores (N, P): rows sum to 1, columns nearly to N/P over the batch of all processes.

    exp(scores / epsilon) with columns and rows normalised in turn, rows last, in logarithms. Differentiable. Cuturi (2013).
    """
    log = all_rows(scores / epsilon)
    for _ in range(iterations):
        log = log - log.logsumexp(0, keepdim=True)
        log = log - log.logsumexp(1, keepdim=True)
    rank, count = processes()
    return log.chunk(count)[rank].exp()


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows.float(), dim=-1)
