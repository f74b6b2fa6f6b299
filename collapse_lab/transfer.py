"""Images of one data set in the shape that an encoder of another was trained on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from collapse_lab.colour import luminance
from collapse_lab.data import Images
from collapse_lab.image_files import Pictures, chunks

CHUNK = 1024


def adapted(images: Images, channels: int, size: tuple[int, int]) -> Images:
    """The same images with so many channels (1 or 3) and of ``size`` (height, width), still uint8; labels as they are.

    Grey becomes RGB by repetition, RGB becomes grey by luminance (0.2989 R + 0.587 G + 0.114 B). Resized bilinearly with
    antialias, to the whole size: where the ratio of the sides differs, the image is stretched, not cropped. Images that
    fit already keep their bytes.
    """
    return replace(images, train=_fitted(images.train, channels, size), test=_fitted(images.test, channels, size))


def _fitted(pixels: Pictures, channels: int, size: tuple[int, int]) -> Pictures:
    if pixels.shape[1:] == (channels, *size):
        return pixels
    return torch.cat([_resized(_recoloured(part, channels), size) for part in chunks(pixels, CHUNK)])


def _recoloured(pixels: Tensor, channels: int) -> Tensor:
    if pixels.shape[1] == channels:
        return pixels
    if channels == 1:
        return luminance(pixels.float()).round().to(torch.uint8)
    return pixels.expand(-1, channels, -1, -1)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if pixels.shape[2:] == size:
        return pixels
    return interpolate(pixels.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
