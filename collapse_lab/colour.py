"""Colour operations on a batch of images, each image with its own amount.

Images are (N, C, H, W) float32 in [0, 1], amounts (N, 1, 1, 1). ``blend`` and ``rotate_hue`` work in place: on small
images the passes over memory are the cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601, to the digits that PIL and torchvision use.
RED, GREEN, BLUE = 0.2989, 0.587, 0.114


def luminance(images: Tensor) -> Tensor:
    """Gray value of each pixel, (N, 1, H, W): 0.2989 R + 0.587 G + 0.114 B; images of one channel are their own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (red * RED).add_(green, alpha=GREEN).add_(blue, alpha=BLUE)[:, None]


def blend(images: Tensor, factor: Tensor, gray: Tensor, mean: Tensor) -> None:
    """Set each image x to clamp(factor x + gray Y + mean E[Y], 0, 1), with Y its luminance.

    One formula holds torchvision's three: brightness f is (f, 0, 0), saturation (f, 1 - f, 0), contrast (f, 0, 1 - f).
    """
    values = luminance(images)
    target = values * gray + values.mean((2, 3), keepdim=True) * mean
    torch.addcmul(target, images, factor, out=images).clamp_(0, 1)


def brighten(images: Tensor, factor: Tensor) -> None:
    """Set each image x to clamp(factor x, 0, 1): ``blend`` without its luminance."""
    images.mul_(factor).clamp_(0, 1)


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images with the hue of HSV moved on by ``turns`` of the full circle, (N, 3, H, W); turns in [-0.5, 0.5].

    Value V = max(R, G, B) and chroma V - min stay. With hue h in [0, 6), channels are min + chroma times
    clamp(|h - 3| - 1), clamp(2 - |h - 2|), clamp(2 - |h - 4|), each held in [0, 1].
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(red, green).minimum(blue)
    high = torch.maximum(red, green).maximum(blue)
    chroma = high - low
    # A gray pixel has no hue: its differences are 0, and so is what is divided here.
    scale = chroma.clamp(min=torch.finfo(chroma.dtype).tiny).reciprocal_()
    hue = torch.where(high == green, (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4))
    hue = torch.where(high == red, (green - blue).mul_(scale), hue)
    hue = hue.add_(turns[:, 0] * 6).remainder_(6)
    result = torch.empty_like(images)
    for channel, (centre, sign, offset) in enumerate(((3, 1, -1), (2, -1, 2), (4, -1, 2))):
        share = (hue - centre).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(low, share, chroma, out=result[:, channel])
    return result
