"""The objective: encoder, predictor, target, head, stop-gradient and loss put together; every method is a choice of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from collapse_lab import heads, networks, targets
from collapse_lab.contrast import QueuedInfoNCE, nt_xent, swapped_prediction
from collapse_lab.losses import LOSSES, Loss
from collapse_lab.settings import Config, ObjectiveConfig
from collapse_lab.targets import exchanged


@runtime_checkable
class AfterStep(Protocol):
    """A part that changes when the encoder has been updated."""

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """What follows the ``step``-th update."""


class Objective(nn.Module):
    """The loss of a batch of views under one method.

    z_v = F(x_v), each view on its own so that BatchNorm statistics stay per view; p_v = h(z_v); t = head(target(...)). With
    prototypes, p and t become similarities to them. The encoder's gradient is cut in one of two places, or nowhere; the
    predictor always learns:

    - ``target``: t is detached (SimSiam);
    - ``prediction``: p_v = h(sg(z_v)), the encoder learns through t alone;
    - ``none``: the encoder learns through both.

    ``own_views`` views are the method's own, neighbours being pairs; the target has ``target.extra_views`` more to itself.
    Without ``symmetric`` only the first view of each pair is predicted. Prototypes and losses compute in float32.
    """

    def __init__(
        self,
        encoder: networks.Encoder,
        predictor: nn.Module,
        target: targets.Target,
        stop_gradient: str,
        loss: Loss,
        *,
        head: heads.Head | None = None,
        prototypes: nn.Module | None = None,
        symmetric: bool = True,
        pairs: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.target = target
        self.head = head or heads.Head()
        self.prototypes = prototypes or nn.Identity()
        self.stop_gradient = stop_gradient
        self.loss = loss
        self.stride = 1 if symmetric else 2
        self.own_views = 2 * pairs

    @property
    def views(self) -> int:
        """How many views of an image one step needs."""
        return self.own_views + self.target.extra_views

    def forward(self, views: Tensor, index: Tensor) -> Tensor:
        """Loss, a scalar, of views (V, N, C, H, W) of the images with data-set indices (N,)."""
        z = self.encode(views)
        return self.compare(z, self.match(views, z, index))

    def encode(self, views: Tensor) -> Tensor:
        """z (V, N, D) of the own views; those that only serve as a detached target are made without a graph.

        Where only first views are predicted and the target has a network of its own, they are all that is encoded.
        """
        grad = torch.is_grad_enabled()
        outputs = []
        for number, view in enumerate(views[: self.own_views]):
            predicted = number % self.stride == 0
            if predicted or self.target.network.uses_z:
                with torch.set_grad_enabled(grad and (predicted or self.stop_gradient != "target")):
                    outputs.append(self.encoder(view))
        return torch.stack(outputs)

    def match(self, views: Tensor, z: Tensor, index: Tensor) -> Tensor:
        """t (P, N, D) before the head: what each of the P predictions has to match."""
        own, extra = views[: self.own_views], views[self.own_views :]
        partners = exchanged(own)[:: self.stride]
        outputs = exchanged(z)[:: self.stride] if len(z) == self.own_views else z.new_empty(0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stop_gradient != "target"):
            t: Tensor = self.target(partners, extra, outputs, index)
        return t

    def compare(self, z: Tensor, t: Tensor) -> Tensor:
        """The loss of predicting t (P, N, D) from z (V, N, D)."""
        source = z.detach() if self.stop_gradient == "prediction" else z
        p = torch.stack([self.predictor(z_v) for z_v in source[:: len(source) // len(t)]])
        made = self.head(t, p)
        with torch.autocast(p.device.type, enabled=False):
            matched = self.prototypes(made)
            loss = self.loss(self.prototypes(p), matched.detach() if self.stop_gradient == "target" else matched)
            learning = self.head.learning(made, t)
        # Adds its gradient and leaves the value as that of the method's own loss.
        return loss if learning is None else loss + learning - learning.detach()

    def after_step(self, step: int) -> None:
        """Let the parts that follow the encoder follow its ``step``-th update."""
        for part in (self.target, self.predictor):
            if isinstance(part, AfterStep):
                part.after_step(self.encoder, step)


def build_objective(config: Config, mean: Tensor, std: Tensor, image_size: int, images: int) -> Objective:
    """The objective of a configuration for ``images`` training images with the given channel statistics (C,), on the CPU."""
    return assemble(config, networks.encoder(config.network, mean, std, image_size, config.train.seed), images)


def assemble(config: Config, encoder: networks.Encoder, images: int) -> Objective:
    """The objective of a configuration around an encoder with outputs of width ``network.projector_dim``."""
    dim, seed = config.network.projector_dim, config.train.seed
    swapped = config.objective.loss == "swapped-prediction"
    return Objective(
        encoder,
        networks.predictor(config.network, seed),
        _target(config, encoder, images),
        config.objective.stop_gradient,
        _loss(config.objective, dim, seed),
        head=_head(config),
        prototypes=networks.prototypes(dim, config.objective.prototypes, seed) if swapped else None,
        symmetric=config.objective.symmetric,
        pairs=config.objective.pairs,
    )


def _target(config: Config, encoder: nn.Module, images: int) -> targets.Target:
    chosen = config.target
    every = images // config.train.batch if chosen.every == "epoch" else chosen.every
    online = targets.Online(
        encoder, twin=chosen.network == "online" and chosen.estimate in ("mean-output", "mean-input")
    )
    network = targets.Lagged(encoder, chosen.momentum, every) if chosen.network == "lagged" else online
    estimates: Mapping[str, Callable[[], targets.Target]] = {
        "other-view": lambda: targets.OtherView(network),
        "mean-output": lambda: targets.MeanOutput(network, chosen.views, chosen.normalised),
        "mean-input": lambda: targets.MeanInput(network, chosen.views),
        "memory": lambda: targets.Memory(
            online,
            images,
            config.network.projector_dim,
            momentum=chosen.eta_momentum,
            start=chosen.eta_start,
            normalised=chosen.normalised,
            dtype=getattr(torch, chosen.eta_dtype),
            seed=config.train.seed,
        ),
    }
    return estimates[chosen.estimate]()


def _head(config: Config) -> heads.Head:
    kinds: Mapping[str, Callable[[], heads.Head]] = {
        "identity": heads.Head,
        "predictor": heads.SymmetricPredictor,
        "inverse-predictor": lambda: heads.InversePredictor(networks.predictor(config.network, config.train.seed, 5)),
        "centring": heads.Centring,
        "decorrelation": heads.Decorrelation,
    }
    return kinds[config.target.head]()


def _loss(config: ObjectiveConfig, dim: int, seed: int) -> Loss:
    whole_batch: Mapping[str, Callable[[], Loss]] = {
        "nt-xent": lambda: partial(nt_xent, temperature=config.temperature),
        "info-nce": lambda: QueuedInfoNCE(config.queue, dim, config.temperature, seed),
        "swapped-prediction": lambda: partial(
            swapped_prediction,
            temperature=config.temperature,
            epsilon=config.sinkhorn_epsilon,
            iterations=config.sinkhorn_iterations,
        ),
    }
    return LOSSES[config.loss] if config.loss in LOSSES else whole_batch[config.loss]()
