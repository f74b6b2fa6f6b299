"""Features of one layer of any torch model, from a checkpoint that nobody vouches for: only tensors are unpickled."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from collapse_lab import data
from collapse_lab.arrays import DAMAGED, reason
from collapse_lab.config import DataConfig
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.monitors.tap import resolve, rows
from collapse_lab.monitors.verdict import Mode

Pixels = Literal["data", "imagenet", "none"]
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BATCH = 256
DEEPEST = 6


class Request(NamedTuple):
    """How features are to be had from a checkpoint.

    ``model`` is ``module:function``; calling it without arguments gives the ``nn.Module``. ``layer`` is a dotted name, None
    for the model's own output. ``pixels`` says how images in [0, 1] are shifted and scaled before they go in. ``prefix``
    names the part of the checkpoint that holds the weights; None: the only part that fits.
    """

    model: str
    layer: str | None
    images: DataConfig
    pixels: Pixels
    prefix: str | None


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
    scaled = Scaled(network, *_channels(request.pixels, images)).to(_device()).eval()
    modes: dict[Mode, Tensor] = {"eval": outputs(scaled, request.layer, images.test)}
    batch_norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in batch_norms:
        module.train()
    if batch_norms:
        modes["train"] = outputs(scaled, request.layer, images.test)
    place = f"'{at}' in {path.name}" if at else path.name
    return modes, f"{request.layer or 'output'} of {request.model}, weights {place}, {images.name}, test images"


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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its dotted place in it; compiled modules lose their ``_orig_mod.``.

    Loaded with ``weights_only=True``: a file that would run code is refused. Raises ``InputError``.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise InputError(
            f"checkpoint '{path}' cannot be read as weights alone ({reason(error)}); save its state_dict with torch.save"
        ) from None
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in _tensors(content, "", DEEPEST)}
    if not tensors:
        raise InputError(f"checkpoint '{path}' holds no tensors but {type(content).__name__}; save a state_dict")
    return tensors


def _tensors(content: Any, place: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield place, content
    elif isinstance(content, Mapping) and depth:
        for key, value in content.items():
            yield from _tensors(value, f"{place}.{key}" if place else str(key), depth - 1)


def build(spec: str) -> nn.Module:
    """The model that ``module:function`` returns; modules are looked for in the working directory too."""
    module_name, colon, function_name = spec.partition(":")
    if not (module_name and colon and function_name):
        raise InputError(f"--model: found '{spec}'; expected module:function, such as torchvision.models:resnet18")
    # The caller's own code runs here, and can raise anything.
    try:
        with _working_directory_importable():
            function = getattr(importlib.import_module(module_name), function_name)
            network = function()
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


def fitting(
    network: nn.Module, tensors: Mapping[str, Tensor], path: Path, prefix: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """The part of a checkpoint that fills the whole ``state_dict`` of a network, and the prefix where it lies.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> fitting(model, {"state_dict.model.weight": torch.ones(1, 2)}, Path("a.pt"))[1]
    'state_dict.model.'
    """
    needed = network.state_dict()
    prefixes = _prefixes(needed, tensors) if prefix is None else [f"{prefix.rstrip('.')}." if prefix else ""]
    missing = {at: [name for name in needed if at + name not in tensors] for at in prefixes}
    complete = [at for at in prefixes if not missing[at]]
    if len(complete) > 1:
        found = ", ".join(f"'{at.rstrip('.')}'" for at in complete)
        raise InputError(
            f"checkpoint '{path}' holds several sets of weights that fit, {found}; choose one with --prefix"
        )
    if not complete:
        raise InputError(_misfit(path, needed, tensors, missing))
    weights = {name: tensors[complete[0] + name] for name in needed}
    for name, tensor in weights.items():
        if tensor.shape != needed[name].shape:
            raise InputError(
                f"checkpoint '{path}': '{complete[0]}{name}' has shape {tuple(tensor.shape)}, the model's has "
                f"{tuple(needed[name].shape)}; does --model build the model that was saved?"
            )
    return weights, complete[0].rstrip(".")


def _prefixes(needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    # The longest name is the one least likely to end another by chance.
    probe = max(needed, key=len, default="")
    return [name.removesuffix(probe) for name in tensors if name == probe or name.endswith(f".{probe}")]


def _misfit(
    path: Path, needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], missing: Mapping[str, list[str]]
) -> str:
    nearest = min(missing, key=lambda at: len(missing[at]), default=None)
    absent = list(needed) if nearest is None else missing[nearest]
    return (
        f"checkpoint '{path}' lacks {len(absent)} of the model's {len(needed)} tensors, '{nearest or ''}{absent[0]}' first; "
        f"it holds {len(tensors)}, the first '{next(iter(tensors))}': does --model build the model that was saved?"
    )


@torch.no_grad()
def outputs(network: Scaled, layer: str | None, images: Tensor) -> Tensor:
    """What a layer inside ``network.network`` answers for uint8 images (N, C, H, W): (N, D) float on the CPU."""
    label = layer or "output"
    module = network.network if layer is None else _one_layer(network.network, layer)
    gathered: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, inputs, output: gathered.append(rows(output, label).cpu()))
    console = Console(stderr=True)
    chunks = list(images.split(BATCH))
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        # BatchNorm has no statistics of one image.
        chunks[-2:] = [torch.cat(chunks[-2:])]
    try:
        for chunk in track(chunks, "features", console=console, disable=not console.is_terminal, transient=True):
            network(chunk.to(network.mean.device).float() / 255)
    except Exception as error:
        # The caller's own model runs here, and can raise anything.
        given = tuple(images[:BATCH].shape)
        raise InputError(f"--model: given images {given} it raised {type(error).__name__}: {reason(error)}") from error
    finally:
        hook.remove()
    if not gathered:
        raise InputError(f"--layer: '{label}' did not run when the model was called; is it part of its forward pass?")
    return torch.cat(gathered)


def _one_layer(network: nn.Module, layer: str) -> nn.Module:
    try:
        found = resolve(network, [layer])
    except KeyError as error:
        raise InputError(f"--layer: {error.args[0]}") from None
    if len(found) > 1:
        raise InputError(f"--layer: '{layer}' matches {len(found)} layers, {', '.join(list(found)[:4])} ...; name one")
    return next(iter(found.values()))


def _channels(pixels: Pixels, images: Images) -> tuple[Tensor, Tensor]:
    count = images.train.shape[1]
    if pixels == "none":
        return torch.zeros(count), torch.ones(count)
    if pixels == "data":
        return data.statistics(images.train)
    if count != 3:
        raise InputError(f"--pixels: found 'imagenet', but {images.name} has {count} channel, not 3; use 'data'")
    return IMAGENET


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
