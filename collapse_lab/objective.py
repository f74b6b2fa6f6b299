"""The objective: encoder, predictor, target, stop-gradient and loss put together; every method is a choice of these parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collapse_lab import networks
from collapse_lab.losses import LOSSES, Loss
from collapse_lab.settings import Config
from collapse_lab.targets import OtherView


class Objective(nn.Module):
    """The loss of a batch of views under one method.

    z_v = F(x_v), each view on its own so that BatchNorm statistics stay per view; p_v = h(z_v); t = target(...). The
    encoder's gradient is cut in one of two places, or nowhere; the predictor always learns:

    - ``target``: t is detached (SimSiam);
    - ``prediction``: p_v = h(sg(z_v)), the encoder learns through t alone;
    - ``none``: the encoder learns through both.
    """

    def __init__(
        self, encoder: networks.Encoder, predictor: nn.Module, target: nn.Module, stop_gradient: str, loss: Loss
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.target = target
        self.stop_gradient = stop_gradient
        self.loss = loss

    def forward(self, views: Tensor, index: Tensor) -> Tensor:
        """Loss, a scalar, of views (V, N, C, H, W) of the images with data-set indices (N,)."""
        z = torch.stack([self.encoder(view) for view in views])
        source = z.detach() if self.stop_gradient == "prediction" else z
        p = torch.stack([self.predictor(z_v) for z_v in source])
        t = self.target(views, z, index, self.encoder)
        return self.loss(p, t.detach() if self.stop_gradient == "target" else t)


def build_objective(config: Config, mean: Tensor, std: Tensor, image_size: int) -> Objective:
    """The objective of a configuration for images with the given channel statistics (C,), on the CPU."""
    seed = config.train.seed
    return Objective(
        networks.encoder(config.network, mean, std, image_size, seed),
        networks.predictor(config.network, seed),
        OtherView(),
        config.objective.stop_gradient,
        LOSSES[config.objective.loss],
    )
