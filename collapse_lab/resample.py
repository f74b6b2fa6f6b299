"""Crop, blur and rotation of a batch of images, each image with its own parameters.

Crop and blur are linear along each axis, so an image becomes A x B^T with a small matrix for its rows and one for its
columns: two batched matrix products, in which antialias and flip cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

_RADIUS = 4


def crop(images: Tensor, box: Tensor, flip: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Boxes of uint8 images resized to ``size`` (height, width), flipped where told: (N, C, *size) float32 in [0, 1].

    ``box``: (N, 4) int64 on the CPU: top, left, height, width. Bilinear with antialias, as torchvision's
    ``resized_crop(antialias=True)``: the filter is a triangle of half-width max(1, box / output), cut off at the box's
    edge.
    """
    top, left, height, width = moved(box.float(), images.device).unbind(1)
    mirrored = None if flip is None else moved(flip, images.device)
    rows = resize_matrix(top, height, images.shape[2], size[0]).div_(255)
    columns = resize_matrix(left, width, images.shape[3], size[1], mirrored)
    return _separable(images.float(), rows, columns)


def resize_matrix(start: Tensor, length: Tensor, size: int, made: int, mirrored: Tensor | None = None) -> Tensor:
    """Weights (N, made, size) that resize pixels start .. start + length - 1 of a line of ``size`` pixels to ``made``.

    Rows sum to 1. ``start``, ``length``: (N,) float32, whole numbers; ``mirrored``: (N,) bool.
    """
    scale = length / made
    step, origin = scale, start
    if mirrored is not None:
        step, origin = torch.where(mirrored, -scale, scale), torch.where(mirrored, start + length, start)
    centres = origin[:, None] + step[:, None] * (torch.arange(made, device=start.device) + 0.5)
    pixels = torch.arange(size, device=start.device) + 0.5
    distance = (pixels - centres[..., None]).abs_()
    weights = distance.div_(-scale.clamp(min=1)[:, None, None]).add_(1).clamp_(min=0)
    inside = (pixels - (start + length / 2)[:, None]).abs_() < length[:, None] / 2
    weights.mul_(inside.float()[:, None])
    return weights.div_(weights.sum(2, keepdim=True))


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (N, C, H, W) float32 after a Gaussian of ``sigma`` pixels, (N,) float64 on the CPU, edges reflected.

    The kernel reaches 4 sigma, rounded up, on either side, at most the image's side less 1: the normalised kernel of
    torchvision's ``gaussian_blur`` with kernel size 2 ceil(4 sigma) + 1.
    """
    spread = moved(sigma.float(), images.device)
    return _separable(images, blur_matrix(spread, images.shape[2]), blur_matrix(spread, images.shape[3]))


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Weights (N, size, size) of a Gaussian along a line of ``size`` pixels, reflected about the edge pixels."""
    offsets = torch.arange(2 * size - 1, device=sigma.device)
    reach = (sigma * _RADIUS).ceil().clamp(max=size - 1)[:, None]
    kernel = (offsets / sigma[:, None]).square_().mul_(-0.5).exp_() * (offsets <= reach)
    made, pixel = offsets[:size, None], offsets[:size]
    last = size - 1
    weights = kernel[:, (made - pixel).abs()]
    weights += kernel[:, made + pixel] * (pixel > 0)
    weights += kernel[:, 2 * last - made - pixel] * (pixel < last)
    return weights.div_(weights.sum(2, keepdim=True))


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Images (N, C, H, W) turned counter-clockwise about their centre by ``angle`` degrees, (N,) float64 on the CPU.

    Bilinear; what comes from outside the image is 0. torchvision's ``rotate`` without ``expand``.
    """
    height, width = images.shape[2:]
    radians = moved(angle.deg2rad().float(), images.device)[:, None, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    cos, sin = radians.cos(), radians.sin()
    grid = torch.stack([(x * cos - y * sin) * (2 / width), (x * sin + y * cos) * (2 / height)], -1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def mirrored(images: Tensor, flip: Tensor | None) -> Tensor:
    """Images (N, C, H, W), those with ``flip`` (N,), bool on the CPU, mirrored left to right."""
    if flip is None:
        return images
    return torch.where(moved(flip, images.device)[:, None, None, None], images.flip(3), images)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on another device, without waiting for what runs there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows[n] images[n, c] columns[n]^T for every n and c."""
    across = torch.bmm(images.flatten(1, 2), columns.mT).view(*images.shape[:3], columns.shape[1])
    return rows[:, None] @ across
