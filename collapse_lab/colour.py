"""Colour operations on a batch of images, each image with its own amount.

Images are (N, C, H, W) float32 in [0, 1]. The passes over memory are the cost, and on a CPU
comparisons cost several times what sums do: hence one matrix for three operations, and a hue without cases.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Red, green, blue of ITU-R BT.601, to the digits that PIL and torchvision use.
_LUMA = (0.2989, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """Gray value of each pixel, (N, 1, H, W): 0.2989 R + 0.587 G + 0.114 B; images of one channel are their own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])[:, None]


def blend(images: Tensor, matrices: Tensor) -> Tensor:
    """clamp(A x + B E[x], 0, 1) for every pixel x of an image, E[x] its mean; ``matrices``: (N, 2, C, C), A and B."""
    own, of_mean = matrices.unbind(1)
    shift = of_mean @ images.mean((2, 3))[..., None]
    return torch.baddbmm(shift, own, images.flatten(2)).clamp_(0, 1).view(images.shape)


def blend_matrices(factor: Tensor, gray: Tensor, mean: Tensor, channels: int) -> Tensor:
    """The (N, 2, C, C) float32 matrices with which ``blend`` gives clamp(factor x + gray Y + mean E[Y], 0, 1).

    Y is the luminance of x; the amounts are (N,). One formula holds torchvision's three: brightness f is (f, 0, 0),
    saturation (f, 1 - f, 0), contrast (f, 0, 1 - f).
    """
    luma = torch.tensor(_LUMA if channels == 3 else [1 / channels] * channels, dtype=factor.dtype).expand(channels, -1)
    factor, gray, mean = (amount[:, None, None] for amount in (factor, gray, mean))
    return torch.stack([factor * torch.eye(channels) + gray * luma, mean * luma], 1).float()


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images of 3 channels, the hue of HSV moved on by ``turns`` (N,) of the full circle; value and chroma stay.

    With low and high the extreme channels and chroma = high - low, the hue in [-3, 3] is, from red, a distance
    (high - 2 low + G + B - R) / chroma towards the greater of G and B. In [0, 6) it gives back each channel as
    low + chroma times |hue - 3| - 1, 2 - |hue - 2| and 2 - |hue - 4|, each held in [0, 1].
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(red, green).minimum(blue)
    high = torch.maximum(red, green).maximum(blue)
    chroma = high - low
    distance = (green + blue).sub_(red).add_(high).sub_(low, alpha=2)
    # A gray pixel has distance 0 and no hue: any divisor will do.
    hue = (
        distance.div_(chroma.clamp(min=torch.finfo(chroma.dtype).tiny))
        .copysign_(green - blue)
        .add_(turns[:, None, None] * 6)
    )
    hue.sub_(hue.mul(1 / 6).floor_(), alpha=6)
    made = torch.empty_like(images)
    torch.addcmul(low.sub_(chroma), (hue - 3).abs_().clamp_(1, 2), chroma, out=made[:, 0])
    high.add_(chroma)
    torch.addcmul(high, (hue - 2).abs_().clamp_(1, 2), chroma, value=-1, out=made[:, 1])
    torch.addcmul(high, (hue - 4).abs_().clamp_(1, 2), chroma, value=-1, out=made[:, 2])
    return made
