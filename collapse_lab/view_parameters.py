"""What is done to an image to make a view of it: drawn by key, before any pixel is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from collapse_lab import draws
from collapse_lab.settings import AugmentConfig

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_OPERATIONS = ("brightness", "contrast", "saturation", "hue")
_TRIES = 10

# Columns of the uniform numbers behind one view. They do not move with the configuration: a step that is switched off
# leaves the draws of the others as they were.
_AREA, _RATIO = slice(0, _TRIES), slice(_TRIES, 2 * _TRIES)
_TOP, _LEFT, _FLIP, _ANGLE, _JITTER, _GRAYSCALE, _BLUR, _SIGMA = range(2 * _TRIES, 2 * _TRIES + 8)
_FACTORS, _ORDER = slice(2 * _TRIES + 8, 2 * _TRIES + 12), slice(2 * _TRIES + 12, 2 * _TRIES + 16)
_COLUMNS = 2 * _TRIES + 16


@dataclass(frozen=True)
class Parameters:
    """What is done to each of M images, on the CPU; ``None`` where the configuration leaves the step out."""

    box: Tensor  # (M, 4) int64: top, left, height, width of the crop in pixels
    flip: Tensor | None = None  # (M,) bool
    angle: Tensor | None = None  # (M,) float64, degrees counter-clockwise
    order: Tensor | None = None  # (M, 4) int64, operations 0 brightness, 1 contrast, 2 saturation, 3 hue, first to last
    brightness: Tensor | None = None  # (M,) float64, factor; 1 changes nothing
    contrast: Tensor | None = None  # (M,) float64, factor; 1 changes nothing
    saturation: Tensor | None = None  # (M,) float64, factor; 1 changes nothing
    hue: Tensor | None = None  # (M,) float64, turns of the circle; 0 changes nothing
    grayscale: Tensor | None = None  # (M,) bool
    sigma: Tensor | None = None  # (M,) float64, blur in pixels of the view; 0 changes nothing


def view_size(config: AugmentConfig, shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of a view of images of ``shape`` (..., H, W): ``config.size`` twice, or H and W where it is none.

    >>> view_size(AugmentConfig(), (320, 1, 8, 12)), view_size(AugmentConfig(size=16), (320, 1, 8, 12))
    ((8, 12), (16, 16))
    """
    height, width = shape[-2:]
    return config.size or height, config.size or width


def parameters(
    samples: Tensor,
    config: AugmentConfig,
    size: tuple[int, int] | Tensor,
    *,
    seed: int,
    epoch: int,
    views: Sequence[int],
) -> Parameters:
    """Parameters of V views of N images of ``size`` (height, width), M = V N, view by view.

    ``size`` is that of all images or (N, 2) int64 on the CPU, one row for each.

    The distributions are torchvision's: area uniform in ``crop_scale``, logarithm of the ratio uniform in
    ``crop_ratio``, the first of ten tries that fits the image, else the largest central crop; factors uniform in
    [max(0, 1 - b), 1 + b], hue in [-h, h], the order of the four uniform; sigma uniform in ``blur_sigma``; angle
    uniform in [-rotation, rotation].
    """
    u = torch.cat([draws.uniforms(seed, epoch, view, samples.cpu(), _COLUMNS) for view in views])
    amounts = {name: getattr(config, name) if config.jitter else 0.0 for name in _OPERATIONS}
    jittered = u[:, _JITTER] < config.jitter
    factors = {
        name: torch.where(jittered, _factor(number, name, amounts[name]), float(name != "hue"))
        for name, number in zip(_OPERATIONS, u[:, _FACTORS].unbind(1), strict=True)
        if amounts[name]
    }
    blurred = torch.where(u[:, _BLUR] < config.blur, _between(u[:, _SIGMA], *config.blur_sigma), 0.0)
    return Parameters(
        box=_boxes(u, config, torch.as_tensor(size).expand(len(samples), 2).repeat(len(views), 1)),
        flip=u[:, _FLIP] < config.flip if config.flip else None,
        angle=_between(u[:, _ANGLE], -config.rotation, config.rotation) if config.rotation else None,
        order=u[:, _ORDER].argsort(1) if factors else None,
        grayscale=u[:, _GRAYSCALE] < config.grayscale if config.grayscale else None,
        sigma=blurred if config.blur else None,
        **factors,
    )


def _boxes(u: Tensor, config: AugmentConfig, size: Tensor) -> Tensor:
    area = size.prod(1, keepdim=True) * _between(u[:, _AREA], *config.crop_scale)
    low, high = torch.tensor(config.crop_ratio, dtype=torch.float64).log().tolist()
    ratio = _between(u[:, _RATIO], low, high).exp()
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], -1).round().long()
    fits = ((sides > 0) & (sides <= size[:, None])).all(-1)
    first = sides[torch.arange(len(u)), fits.int().argmax(1)]
    found = fits.any(1, keepdim=True)
    sides = torch.where(found, first, _central(size, *config.crop_ratio))
    slack = size - sides
    drawn = (u[:, [_TOP, _LEFT]] * (slack + 1)).floor().long()
    return torch.cat([torch.where(found, drawn, slack // 2), sides], 1)


def _central(size: Tensor, low: float, high: float) -> Tensor:
    """Sides (M, 2) of the largest central crops of images (M, 2) whose ratio of width to height is allowed."""
    height, width = size.double().unbind(1)
    sides = torch.stack([torch.minimum(height, width / low), torch.minimum(width, height * high)], 1)
    return sides.round().long()


def _factor(u: Tensor, name: str, amount: float) -> Tensor:
    return _between(u, -amount, amount) if name == "hue" else _between(u, max(0.0, 1 - amount), 1 + amount)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u
