"""Random views of a batch of images, made on the images' device, each image with its own draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from collapse_lab import resample
from collapse_lab.colour import blend, blend_matrices, luminance, rotate_hue
from collapse_lab.errors import InputError
from collapse_lab.resample import moved
from collapse_lab.settings import AugmentConfig
from collapse_lab.view_parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION, Parameters, parameters, view_size

# Images and one amount each, the amounts on the CPU.
Operation: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# Elements of one piece of the batch: what stays in a core's cache, and what is a small part of a GPU's memory.
_CPU_PIECE, _GPU_PIECE = 2**19, 2**26


def views(
    images: Tensor, samples: Tensor, config: AugmentConfig, *, seed: int, epoch: int, views: Sequence[int]
) -> Tensor:
    """Random views of images, (V, N, C, S, S) float32 in [0, 1], S = ``config.size`` (none: that of the images).

    ``images``: (N, C, H, W) uint8 on any device; ``samples``: (N,) int64, their indices in the data set; ``views``:
    which views, by number. A view is a function of the image and of (seed, epoch, sample, number), whatever the batch,
    but for the last bits, which matrix products may round in another way for a batch of another size. Nothing waits for
    the device while ``samples`` is on the CPU. Raises ``ValueError`` for images of another type, and for operations
    that their number of channels does not allow.
    """
    _check(images, samples, config)
    height, width = images.shape[2:]
    drawn = parameters(samples, config, (height, width), seed=seed, epoch=epoch, views=views)
    size = view_size(config, images.shape)
    made = apply(images.repeat(len(views), 1, 1, 1), drawn, size)
    return made.view(len(views), *images.shape[:2], *size)


def apply(images: Tensor, drawn: Parameters, size: tuple[int, int]) -> Tensor:
    """Views (M, C, *size) float32 in [0, 1] of images (M, C, H, W) uint8, on their device, one view each.

    In this order: crop, resized with antialias; rotation; colour operations; grayscale; Gaussian blur; horizontal flip.
    (The flip is made with the crop; it commutes with all but the rotation, whose angle is turned round for it.)
    """

    def crop(rows: slice) -> Tensor:
        return resample.crop(images[rows], drawn.box[rows], None if drawn.flip is None else drawn.flip[rows], size)

    return _made(images, drawn, size, crop)


def finished(crops: Tensor, drawn: Parameters) -> Tensor:
    """Views (M, C, h, w) float32 in [0, 1] of what the boxes cut out, uint8 and resized already, on its device.

    What ``apply`` does after the crop, so equal to it but for the crop's rounding to whole levels.
    """

    def flip(rows: slice) -> Tensor:
        return resample.mirrored(crops[rows].float().div_(255), None if drawn.flip is None else drawn.flip[rows])

    height, width = crops.shape[2:]
    return _made(crops, drawn, (height, width), flip)


def _made(images: Tensor, drawn: Parameters, size: tuple[int, int], crop: Callable[[slice], Tensor]) -> Tensor:
    """Views, a piece of the batch after the other, from what ``crop`` makes of a piece's images."""
    made = images.new_empty((len(images), images.shape[1], *size), dtype=torch.float32)
    piece_size = _CPU_PIECE if images.device.type == "cpu" else _GPU_PIECE
    count = max(1, piece_size // max(1, images[:1].numel(), made[:1].numel()))
    steps = list(_steps(drawn, images.shape[1]))
    with _without_autocast(images.device.type):
        for start in range(0, len(images), count):
            rows = slice(start, start + count)
            piece = crop(rows)
            for operation, amount in steps:
                piece = operation(piece, amount[rows])
            torch.clamp(piece, 0, 1, out=made[rows])
    return made


def _without_autocast(device: str) -> AbstractContextManager[None]:
    # Whoever leaves such a context empties a cache of all threads, with the casts of a step that another is at.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _steps(p: Parameters, channels: int) -> Iterator[tuple[Operation, Tensor]]:
    """What is done after the crop, each step with its amounts for all images."""
    if p.angle is not None:
        yield resample.rotate, p.angle if p.flip is None else torch.where(p.flip, -p.angle, p.angle)
    if p.order is not None:
        yield from _jitter(p, p.order, channels)
    if p.grayscale is not None:
        yield partial(_some, _gray), p.grayscale
    if p.sigma is not None:
        yield partial(_some, resample.blur), p.sigma


def _jitter(p: Parameters, order: Tensor, channels: int) -> Iterator[tuple[Operation, Tensor]]:
    """Blends in each image's order; between them, hue for the images whose turn it is."""
    factors = {BRIGHTNESS: p.brightness, CONTRAST: p.contrast, SATURATION: p.saturation}
    present = {operation: factor for operation, factor in factors.items() if factor is not None}
    place = order.argsort(1)
    blends = place[:, list(present)]
    before_hue = (blends < place[:, HUE:]).sum(1)
    for step in range(len(present) + 1):
        if p.hue is not None:
            yield partial(_some, _hue), p.hue * (before_hue == step)
        if step < len(present):
            which = blends.argsort(1)[:, step, None]
            factor = torch.stack(list(present.values()), 1).gather(1, which)[:, 0]
            operation = torch.tensor(list(present))[which][:, 0]
            gray, mean = (1 - factor) * (operation == SATURATION), (1 - factor) * (operation == CONTRAST)
            yield _blend, blend_matrices(factor, gray, mean, channels)


def _some(operation: Operation, images: Tensor, amount: Tensor) -> Tensor:
    """Put operation(images, amount) in the place of the images whose ``amount`` (M,), on the CPU, is not 0."""
    chosen = amount.nonzero()[:, 0]
    rows = moved(chosen, images.device)
    return images.index_copy_(0, rows, operation(images.index_select(0, rows), amount[chosen]))


def _blend(images: Tensor, matrices: Tensor) -> Tensor:
    return blend(images, moved(matrices, images.device))


def _hue(images: Tensor, turns: Tensor) -> Tensor:
    return rotate_hue(images, moved(turns.float(), images.device))


def _gray(images: Tensor, _: Tensor) -> Tensor:
    return luminance(images).expand_as(images)


def _check(images: Tensor, samples: Tensor, config: AugmentConfig) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(samples):
        found = f"{images.dtype} of shape {tuple(images.shape)} with {len(samples)} samples"
        raise ValueError(f"images: found {found}, must be uint8 of shape (N, C, H, W) with N samples")
    require_channels(config, images.shape[1])


def require_channels(config: AugmentConfig, channels: int) -> None:
    """Raise ``InputError`` where a colour operation is asked for that images of so many channels do not allow."""
    allowed = {"contrast": (1, 3), "saturation": (3,), "hue": (3,), "grayscale": (3,)}
    for name, counts in allowed.items():
        amount = getattr(config, name)
        if amount and (config.jitter or name == "grayscale") and channels not in counts:
            need = " or ".join(map(str, counts))
            raise InputError(
                f"augment.{name}: found {amount} on images of {channels} channels, needs {need}; set it to 0"
            )
