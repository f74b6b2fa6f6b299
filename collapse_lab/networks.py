"""Backbones, projector and predictor, built from the configuration and initialised from a key.

F is the encoder: backbone, then projector. h is the predictor. Encoder and predictor have keys of their own, so that
arms of one seed start from the same encoder whatever their predictor is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torchvision
from torch import Tensor, nn

from collapse_lab.contrast import Prototypes
from collapse_lab.directpred import DirectPredictor
from collapse_lab.draws import key
from collapse_lab.settings import NetworkConfig, OutputNorm

TINY_IMAGE, SMALL_IMAGE = 16, 64


class Normalise(nn.Module):
    """Images (N, C, H, W) in [0, 1] to zero mean and unit variance per channel of the training images."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(images - mean) / std."""
        return (images - self.mean) / self.std


class Encoder(nn.Module):
    """F: images (N, C, H, W) in [0, 1] to z (N, D); ``backbone`` gives the features (N, width) before it."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor) -> Tensor:
        """z = projector(backbone(images))."""
        projected: Tensor = self.projector(self.backbone(images))
        return projected


def encoder(config: NetworkConfig, mean: Tensor, std: Tensor, image_size: int, seed: int) -> Encoder:
    """The encoder of a configuration for images of len(mean) channels, initialised by PyTorch's defaults from the seed."""
    with _initialised_from(seed, 0):
        if config.backbone == "small":
            network, width = _small(len(mean), config.width, image_size)
        else:
            network, width = _resnet(config.backbone, len(mean), image_size)
        projector = _projector(config, width)
    return Encoder(nn.Sequential(Normalise(mean, std), network), projector)


class Bias(nn.Module):
    """u + b, the l2-normalised row plus one learned vector that starts at 0. Zhang et al. (2022)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return nn.functional.normalize(z, dim=-1) + self.bias


def predictor(config: NetworkConfig, seed: int, part: int = 1) -> nn.Module:
    """h: (N, D) to (N, D), of the kind that the configuration names, and frozen where it says so.

    ``part`` separates the initial weights of several predictors of one seed.
    """
    dim = config.projector_dim
    kinds: Mapping[str, Callable[[], nn.Module]] = {
        "identity": nn.Identity,
        "mlp": lambda: _bottleneck(config),
        "linear": lambda: nn.Linear(dim, dim, bias=False),
        "bias": lambda: Bias(dim),
        "direct": lambda: DirectPredictor(dim, config.direct_decay, config.direct_boost, config.direct_every),
    }
    with _initialised_from(seed, part):
        return kinds[config.predictor]().requires_grad_(not config.predictor_frozen)


def prototypes(dim: int, count: int, seed: int) -> Prototypes:
    """Prototypes initialised from the seed."""
    with _initialised_from(seed, 4):
        return Prototypes(dim, count)


def _small(channels: int, width: int, image_size: int) -> tuple[nn.Module, int]:
    """Three 3x3 convolutions with BatchNorm, each halving an image above 16 pixels, and a global average: for a CPU."""
    first = 1 if image_size <= TINY_IMAGE else 2
    sizes = [(channels, width, first), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
    blocks = [
        nn.Sequential(nn.Conv2d(i, o, 3, stride, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
        for i, o, stride in sizes
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * width


def _resnet(name: str, channels: int, image_size: int) -> tuple[nn.Module, int]:
    """torchvision's ResNet without its classifier; up to 64 pixels the stem is one 3x3 convolution without pooling."""
    network = torchvision.models.get_model(name, weights=None, zero_init_residual=True)
    width: int = network.fc.in_features
    network.fc = nn.Identity()
    if image_size <= SMALL_IMAGE:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return network, width


def _projector(config: NetworkConfig, width: int) -> nn.Sequential:
    hidden = config.projector_hidden or width
    layers: list[nn.Module] = []
    for _ in range(config.projector_layers - 1):
        layers += _hidden(width, hidden, config.projector_hidden_norm)
        width = hidden
    return nn.Sequential(*layers, *_output(width, config.projector_dim, config.projector_output_norm))


def _bottleneck(config: NetworkConfig) -> nn.Sequential:
    dim, hidden = config.projector_dim, config.predictor_hidden
    return nn.Sequential(
        *_hidden(dim, hidden, config.predictor_hidden_norm), *_output(hidden, dim, config.predictor_output_norm)
    )


def _hidden(width: int, out: int, norm: bool) -> list[nn.Module]:
    # A bias before BatchNorm would be subtracted again.
    normalisation = [nn.BatchNorm1d(out)] if norm else []
    return [nn.Linear(width, out, bias=not norm), *normalisation, nn.ReLU(inplace=True)]


def _output(width: int, out: int, norm: OutputNorm) -> list[nn.Module]:
    normalisation = [] if norm == "none" else [nn.BatchNorm1d(out, affine=norm == "affine")]
    return [nn.Linear(width, out, bias=norm == "none"), *normalisation]


@contextmanager
def _initialised_from(seed: int, part: int) -> Iterator[None]:
    # torch's initialisers read the global generator; it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, part))
        yield
