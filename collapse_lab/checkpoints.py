"""Features of one layer of any torch model with the weights of a checkpoint, for the test images of a data set."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from collapse_lab import data
from collapse_lab.arrays import reason
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.image_files import Pictures
from collapse_lab.monitors.tap import Mode, Rows, Tap, resolve
from collapse_lab.settings import DataConfig
from collapse_lab.weights import fitting, read_tensors

Pixels = Literal["data", "imagenet", "none"]
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BATCH = 256


class Request(NamedTuple):
    """How features are to be had from a checkpoint.

    ``model`` is ``module:function``; calling it without arguments gives the ``nn.Module``. ``layer`` is a dotted name, None
    for the model's own output; ``pick`` (keys joined by dots) and ``rows`` say how its output becomes rows, as in ``Tap``.
    ``pixels`` says how images in [0, 1] are shifted and scaled before they go in. ``prefix`` names the part of the
    checkpoint that holds the weights; None: the only part that fits.
    """

    model: str
    images: DataConfig
    layer: str | None = None
    pick: str | None = None
    rows: Rows = "pooled"
    pixels: Pixels = "data"
    prefix: str | None = None

    @property
    def tap(self) -> Tap:
        """The tap that reads the layer; the model's own output is that of the module ``network`` around it."""
        keys = self.pick.split(".") if self.pick else ()
        pick = tuple(int(key) if key.removeprefix("-").isdigit() else key for key in keys)
        return Tap(f"network.{self.layer}" if self.layer else "network", pick, self.rows)


class Scaled(nn.Module):
    """``network`` behind a fixed shift and scale of the channels of images (N, C, H, W) in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        """network((images - mean) / std)."""
        return self.network((images - self.mean) / self.std)


def features(path: Path, request: Request) -> tuple[dict[Mode, Tensor], str]:
    """Outputs (N, D) of the layer for the test images with the weights in ``path``, by mode, and a caption.

    ``eval`` uses BatchNorm's running statistics; ``train``, there for models with BatchNorm only, the statistics of
    batches of 256 images, all else being in eval mode. Raises ``InputError`` for whatever does not fit together.
    """
    tensors = read_tensors(path)
    network = build(request.model)
    weights, at = fitting(network, tensors, path, request.prefix)
    network.load_state_dict(weights)
    images = data.load(request.images)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scaled = Scaled(network, *_channels(request.pixels, images)).to(device).eval()
    modes: dict[Mode, Tensor] = {"eval": outputs(scaled, request.tap, images.test)}
    batch_norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in batch_norms:
        module.train()
    if batch_norms and len(images.test) > 1:
        modes["train"] = outputs(scaled, request.tap, images.test)
    place = f"'{at}' in {path.name}" if at else path.name
    return modes, f"{request.layer or 'output'} of {request.model}, weights {place}, {images.name}, test images"


def build(spec: str) -> nn.Module:
    """The model that ``module:function`` returns; modules are looked for in the working directory too."""
    module_name, colon, function_name = spec.partition(":")
    if not (module_name and colon and function_name):
        raise InputError(f"--model: found '{spec}'; expected module:function, such as torchvision.models:resnet18")
    # The caller's own code runs here, and can raise anything.
    try:
        with _working_directory_importable():
            network = getattr(importlib.import_module(module_name), function_name)()
    except Exception as error:
        raise InputError(f"--model: '{spec}' raised {type(error).__name__}: {reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"--model: '{spec}' returned {type(network).__name__}; expected a torch.nn.Module")
    return network


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    before = sys.path.copy()
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


@torch.no_grad()
def outputs(scaled: Scaled, tap: Tap, images: Pictures) -> Tensor:
    """What a tap reads while uint8 images (N, C, H, W) go through the model: (N, D) on the CPU."""
    module = _module(scaled, tap)
    gathered: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        gathered.extend(rows.cpu() for rows in tap.read(output))

    hook = module.register_forward_hook(keep)
    console = Console(stderr=True)
    try:
        for rows in track(
            _chunks(len(images)), "features", console=console, disable=not console.is_terminal, transient=True
        ):
            scaled(images[rows].to(scaled.mean.device).float() / 255)
    except Exception as error:
        # The caller's own model runs here, and can raise anything.
        given = (_chunks(len(images))[0].stop, *images.shape[1:])
        raise InputError(f"--model: given images {given} it raised {type(error).__name__}: {reason(error)}") from error
    finally:
        hook.remove()
    if not gathered:
        raise InputError(
            f"--layer: '{_plain(tap)}' did not run when the model was called; is it part of its forward pass?"
        )
    return torch.cat(gathered)


def _module(scaled: Scaled, tap: Tap) -> nn.Module:
    try:
        found = resolve(scaled, [tap])
    except KeyError as error:
        raise InputError(f"--layer: {str(error.args[0]).replace('network.', '')}") from None
    if len(found) > 1:
        some = ", ".join(name.removeprefix("network.") for name in list(found)[:4])
        raise InputError(f"--layer: '{_plain(tap)}' matches {len(found)} layers, {some} ...; name one")
    ((_, module),) = found.values()
    return module


def _plain(tap: Tap) -> str:
    return tap.name.removeprefix("network").removeprefix(".") or "output"


def _chunks(count: int) -> list[slice]:
    # BatchNorm has no statistics of one image.
    starts = [first for first in range(0, count, BATCH) if first == 0 or first < count - 1]
    return [slice(*pair) for pair in pairwise([*starts, count])]


def _channels(pixels: Pixels, images: Images) -> tuple[Tensor, Tensor]:
    count = images.train.shape[1]
    if pixels == "none":
        return torch.zeros(count), torch.ones(count)
    if pixels == "data":
        return data.statistics(images.train)
    if count != 3:
        raise InputError(f"--pixels: found 'imagenet', but {images.name} has {count} channel, not 3; use 'data'")
    return IMAGENET
