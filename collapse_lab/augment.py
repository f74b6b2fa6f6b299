"""Random views of a batch of images, made on the images' device, each image with its own draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from collapse_lab import resample
from collapse_lab.colour import blend, brighten, luminance, rotate_hue
from collapse_lab.config import AugmentConfig
from collapse_lab.view_parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION, Parameters, parameters

# Elements of one piece of the batch: what stays in a core's cache, and what is a small part of a GPU's memory.
_PIECE = {"cpu": 2**19}
_PIECE_ELSEWHERE = 2**26


def views(
    images: Tensor, samples: Tensor, config: AugmentConfig, *, seed: int, epoch: int, views: Sequence[int]
) -> Tensor:
    """Random views of images, (V, N, C, S, S) float32 in [0, 1], S = ``config.size`` (none: the height and width found).

    ``images``: (N, C, H, W) uint8 on any device; ``samples``: (N,) int64, their indices in the data set; ``views``:
    which views, by number. A view is a function of the image and of (seed, epoch, sample, number): ``parameters`` are
    drawn, ``apply`` does what they say. Nothing waits for the device while ``samples`` is on the CPU. Raises
    ``ValueError`` for images of another type, and for operations that their number of channels does not allow.
    """
    _check(images, samples, config)
    height, width = images.shape[2:]
    drawn = parameters(samples, config, (height, width), seed=seed, epoch=epoch, views=views)
    size = (height, width) if config.size is None else (config.size, config.size)
    made = apply(images.repeat(len(views), 1, 1, 1), drawn, size)
    return made.view(len(views), *images.shape[:2], *size)


def apply(images: Tensor, drawn: Parameters, size: tuple[int, int]) -> Tensor:
    """Views (M, C, *size) float32 in [0, 1] of images (M, C, H, W) uint8, on their device, one view each.

    In this order: crop, resized with antialias; rotation; colour operations; grayscale; Gaussian blur; horizontal flip.
    (The flip is made with the crop; it commutes with all but the rotation, whose angle is turned round for it.)
    """
    made = images.new_empty((len(images), images.shape[1], *size), dtype=torch.float32)
    count = max(1, _PIECE.get(images.device.type, _PIECE_ELSEWHERE) // max(images[:1].numel(), made[:1].numel()))
    with torch.autocast(images.device.type, enabled=False):
        for start in range(0, len(images), count):
            rows = slice(start, start + count)
            _apply(images[rows], drawn[rows], made[rows])
    return made


def _apply(images: Tensor, p: Parameters, out: Tensor) -> None:
    made = resample.crop(images, p.box, p.flip, (out.shape[2], out.shape[3]))
    if p.angle is not None:
        made = resample.rotate(made, p.angle if p.flip is None else torch.where(p.flip, -p.angle, p.angle))
    if p.order is not None:
        made = _jitter(made, p, p.order)
    if p.grayscale is not None:
        _replace(made, p.grayscale, lambda chosen, _: luminance(chosen).expand_as(chosen))
    if p.sigma is not None:
        _replace(made, p.sigma, resample.blur)
    torch.clamp(made, 0, 1, out=out)


def _jitter(images: Tensor, p: Parameters, order: Tensor) -> Tensor:
    """Blends in each image's order; between them, hue for the images whose turn it is."""
    factors = {BRIGHTNESS: p.brightness, CONTRAST: p.contrast, SATURATION: p.saturation}
    present = {operation: factor for operation, factor in factors.items() if factor is not None}
    place = order.argsort(1)
    blends = place[:, list(present)]
    before_hue = (blends < place[:, HUE:]).sum(1)
    for step in range(len(present) + 1):
        if p.hue is not None:
            _replace(images, p.hue * (before_hue == step), _hue)
        if step < len(present):
            images = _blend(images, present, blends.argsort(1)[:, step])
    return images


def _blend(images: Tensor, present: dict[int, Tensor], which: Tensor) -> Tensor:
    """The blend that is each image's next: ``which`` (M,) counts through the operations present."""
    factor = torch.stack(list(present.values()), 1).gather(1, which[:, None])
    operation = torch.tensor(list(present))[which][:, None]
    weights = torch.cat([factor, (1 - factor) * (operation == SATURATION), (1 - factor) * (operation == CONTRAST)], 1)
    own, gray, mean = _amounts(weights, images.device).unbind(1)
    return brighten(images, own) if list(present) == [BRIGHTNESS] else blend(images, own, gray, mean)


def _hue(images: Tensor, turns: Tensor) -> Tensor:
    return rotate_hue(images, _amounts(turns, images.device))


def _amounts(values: Tensor, device: torch.device) -> Tensor:
    return resample.moved(values.float(), device)[..., None, None, None]


def _replace(images: Tensor, amount: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Put operation(images, amount) in the place of the images whose ``amount`` (M,), on the CPU, is not 0."""
    chosen = amount.nonzero()[:, 0]
    rows = resample.moved(chosen, images.device)
    images.index_copy_(0, rows, operation(images.index_select(0, rows), amount[chosen]))


def _check(images: Tensor, samples: Tensor, config: AugmentConfig) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(samples):
        found = f"{images.dtype} of shape {tuple(images.shape)} with {len(samples)} samples"
        raise ValueError(f"images: found {found}, must be uint8 of shape (N, C, H, W) with N samples")
    channels = images.shape[1]
    allowed = {"contrast": (1, 3), "saturation": (3,), "hue": (3,), "grayscale": (3,)}
    for name, counts in allowed.items():
        amount = getattr(config, name)
        if amount and (config.jitter or name == "grayscale") and channels not in counts:
            need = " or ".join(map(str, counts))
            raise ValueError(
                f"augment.{name}: found {amount} on images of {channels} channels, needs {need}; set it to 0"
            )
