"""A linear predictor that is computed, not trained: DirectPred of Tian, Chen and Ganguli (2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collapse_lab.collective import average


class DirectPredictor(nn.Module):
    """p = W z with W = U diag(sqrt(s_j) + eps max_j s_j) U' from F = U diag(s) U', a running average of E[z z'], uncentred.

    F <- rho F + (1 - rho) E_B[z z'] after every step over all rows of the step, F = E_B[z z'] after the first; W follows
    every ``every`` steps. Negative eigenvalues, which only rounding makes, count as 0. W starts as the identity.
    z (N, D); F and W (D, D) float32. Section 4 of the paper, whose values are rho = 0.3 and eps = 0.1.
    """

    moment: Tensor
    weight: Tensor

    def __init__(self, dim: int, decay: float, boost: float, every: int) -> None:
        super().__init__()
        self.decay, self.boost, self.every = decay, boost, every
        self.register_buffer("moment", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.eye(dim))
        self._seen: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        """(N, D) to (N, D); in training the rows wait for ``after_step``."""
        if self.training:
            self._seen.append(z.detach())
        return z @ self.weight.to(z.dtype)

    @torch.no_grad()
    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Take the step's rows into F, and F into W where it is W's turn."""
        rows = torch.cat(self._seen).to(self.moment.dtype)
        self._seen.clear()
        moment = rows.T @ rows / len(rows)
        average([moment])
        self.moment.copy_(moment if step == 1 else self.decay * self.moment + (1 - self.decay) * moment)
        if step == 1 or step % self.every == 0:
            self.weight.copy_(direct_weight(self.moment, self.boost))


def direct_weight(moment: Tensor, boost: float) -> Tensor:
    """W (D, D) symmetric of a second moment (D, D): the square root of it plus eps max_j s_j on every eigenvalue.

    >>> direct_weight(torch.diag(torch.tensor([4.0, 1.0])), 0.1).diag().tolist()
    [2.4000000953674316, 1.399999976158142]
    """
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0)
    weight: Tensor = (vectors * (values.sqrt() + boost * values.max())) @ vectors.T
    return weight
