"""A method is a row of parts: encoder, predictor, target, stop-gradient, loss.

The named methods are sets of configuration overrides, one row each; nothing in the package asks for a method's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from collapse_lab import networks
from collapse_lab.config import Config, Overrides
from collapse_lab.errors import InputError
from collapse_lab.losses import LOSSES, Loss
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


@dataclass(frozen=True)
class Method:
    """One row of the table of methods."""

    overrides: Overrides
    what: str
    source: str


METHODS: Mapping[str, Method] = {
    "simsiam": Method({}, "stop-gradient on the target, MLP predictor", "Chen & He (2020), equation 4"),
    "no-stop-gradient": Method(
        {"objective.stop_gradient": "none"}, "the gradient flows through both branches", "Chen & He (2020), Figure 2"
    ),
    "no-predictor": Method(
        {"network.predictor": "identity"}, "h is the identity", "Chen & He (2020), Table 1 (a)"
    ),
    "fixed-predictor": Method(
        {"network.predictor_frozen": True}, "h stays as initialised", "Chen & He (2020), Table 1 (b)"
    ),
    "wrong-branch": Method(
        {"objective.stop_gradient": "prediction"},
        "stop-gradient on the prediction: the encoder learns through the target alone",
        "Su (2020), second term of equation 3",
    ),
}


def method(name: str) -> Method:
    """The row of that name; raises ``InputError`` with the names there are."""
    if name not in METHODS:
        raise InputError(f"unknown method '{name}'; the methods are {', '.join(METHODS)}")
    return METHODS[name]
