"""What is made of the other view's z before it is matched: the arms of Zhang et al. (2022), "How does SimSiam avoid collapse
without negative samples?".

A head is ``head(t, p) -> made`` with t (V, N, D) the exchanged outputs and p (V, N, D) the predictions;
``learning(made, t)`` is what it learns by itself. u is l2-normalised, e = u(t) - u(p of the same view), o its mean over
the batch of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from collapse_lab.collective import all_rows
from collapse_lab.losses import negative_cosine
from collapse_lab.targets import exchanged


class Head(nn.Module):
    """z itself."""

    def forward(self, t: Tensor, p: Tensor) -> Tensor:
        """t as it is."""
        return t

    def learning(self, made: Tensor, t: Tensor) -> Tensor | None:
        """The loss of the head's own parameters; None where it has none."""
        return None


class SymmetricPredictor(Head):
    """The other view's prediction: both branches go through the predictor."""

    def forward(self, t: Tensor, p: Tensor) -> Tensor:
        """h(z) of the other view."""
        return exchanged(p)


class InversePredictor(Head):
    """The other view's prediction, sent through a network that learns to undo the predictor."""

    def __init__(self, inverse: nn.Module) -> None:
        super().__init__()
        self.inverse = inverse

    def forward(self, t: Tensor, p: Tensor) -> Tensor:
        """The inverse of h(z) of the other view; its own parameters learn by ``learning`` alone."""
        return torch.stack([self.inverse(p_v) for p_v in exchanged(p).detach()])

    def learning(self, made: Tensor, t: Tensor) -> Tensor:
        """Negative cosine of the inverse of h(z) and z, a gradient to the inverse alone."""
        return negative_cosine(made, t.detach())


class Centring(Head):
    """u(p) + o: of what tells z from the prediction only the mean is kept."""

    def forward(self, t: Tensor, p: Tensor) -> Tensor:
        """The other view's unit prediction plus the mean difference."""
        prediction, _, mean = _decomposed(t, p)
        return prediction + mean


class Decorrelation(Head):
    """u(p) + e - o: of what tells z from the prediction all but the mean is kept."""

    def forward(self, t: Tensor, p: Tensor) -> Tensor:
        """The other view's unit prediction plus the residual difference."""
        prediction, difference, mean = _decomposed(t, p)
        return prediction + difference - mean


def _decomposed(t: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    prediction = normalize(exchanged(p).float(), dim=-1)
    difference = normalize(t.float(), dim=-1) - prediction
    mean = torch.stack([all_rows(view).mean(0, keepdim=True) for view in difference])
    return prediction, difference, mean
