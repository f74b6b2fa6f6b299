"""The networks are those that the papers and the configuration name."""

import pytest
import torch
from torch import nn

from collapse_lab import networks
from collapse_lab.config import build
from collapse_lab.presets import PRESETS
from collapse_lab.settings import NetworkConfig


def encoder(config: NetworkConfig, channels: int = 3, size: int = 32) -> networks.Encoder:
    return networks.encoder(config, torch.zeros(channels), torch.ones(channels), size, 0)


def shape(head: nn.Module) -> list[str]:
    """The layers of a head, as written in papers: widths of linear layers, BN (plain: not affine), ReLU."""
    names = {
        nn.ReLU: lambda m: "ReLU",
        nn.Linear: lambda m: f"{m.in_features}-{m.out_features}{'+b' * (m.bias is not None)}",
    }
    names[nn.BatchNorm1d] = lambda m: "BN" if m.affine else "BN plain"
    return [names[type(layer)](layer) for layer in head.children()]


def with_preset(name: str, **overrides: object) -> NetworkConfig:
    return build("test", PRESETS[name], {f"network.{key}": value for key, value in overrides.items()}).network


def test_imagenet_head():
    config = with_preset("imagenet-head", backbone="resnet50")
    assert shape(encoder(config, size=224).projector) == [
        *["2048-2048", "BN", "ReLU", "2048-2048", "BN", "ReLU", "2048-2048", "BN"]
    ]
    assert shape(networks.predictor(config, 0)) == ["2048-512", "BN", "ReLU", "512-2048+b"]


def test_the_codes_head_is_as_wide_as_the_backbone_and_its_output_norm_is_not_affine():
    projector = encoder(with_preset("imagenet-head-code", backbone="resnet18"), size=224).projector
    assert shape(projector) == ["512-512", "BN", "ReLU", "512-512", "BN", "ReLU", "512-2048", "BN plain"]


def test_cifar_head():
    projector = encoder(with_preset("cifar-head", backbone="resnet18")).projector
    assert shape(projector) == ["512-2048", "BN", "ReLU", "2048-2048", "BN"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"projector_layers": 1}, ["64-128+b"]),
        ({"projector_hidden_norm": False}, ["64-128+b", "ReLU", "128-128+b"]),
        ({"projector_output_norm": "non-affine"}, ["64-128", "BN", "ReLU", "128-128", "BN plain"]),
        ({"projector_layers": 3, "projector_hidden": 32}, ["64-32", "BN", "ReLU", "32-32", "BN", "ReLU", "32-128+b"]),
    ],
)
def test_layers_widths_and_norms_of_the_projector_are_free(overrides, expected):
    assert shape(encoder(NetworkConfig(**overrides)).projector) == expected


@pytest.mark.parametrize(("size", "kernel", "pools"), [(32, 3, False), (64, 3, False), (65, 7, True), (224, 7, True)])
def test_resnets_have_the_cifar_stem_up_to_64_pixels(size, kernel, pools):
    network = encoder(NetworkConfig(backbone="resnet18"), size=size).backbone[1]
    assert network.conv1.kernel_size == (kernel, kernel)
    assert isinstance(network.maxpool, nn.MaxPool2d) == pools


def test_residual_blocks_start_as_the_identity():
    network = encoder(NetworkConfig(backbone="resnet18")).backbone[1]
    scales = [module.bn2.weight for module in network.modules() if hasattr(module, "bn2")]
    assert len(scales) == 8
    assert all((scale == 0).all() for scale in scales)


@pytest.mark.parametrize("backbone", ["small", "resnet18"])
@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_have_the_stated_shapes(backbone, channels):
    model = encoder(NetworkConfig(backbone=backbone, projector_dim=32), channels, 16)
    images = torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    assert model(images).shape == (4, 32)
    assert model.backbone(images).ndim == 2


def test_inputs_are_normalised_by_the_statistics_of_the_data():
    layer = networks.Normalise(torch.tensor([0.5, 0.2]), torch.tensor([0.1, 0.4]))
    images = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([(images[:, 0] - 0.5) / 0.1, (images[:, 1] - 0.2) / 0.4], 1)
    torch.testing.assert_close(layer(images), expected)


def test_a_frozen_predictor_has_nothing_to_learn():
    frozen = networks.predictor(NetworkConfig(predictor_frozen=True), 0)
    learning = networks.predictor(NetworkConfig(), 0)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), learning.parameters(), strict=True))
