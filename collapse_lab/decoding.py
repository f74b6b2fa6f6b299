"""One image file: opened, decoded to 8-bit RGB, fitted to a square or cut into crops; refused by name where it cannot be."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional

from collapse_lab.errors import InputError

try:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
except ImportError:  # torchvision 0.29 says that a later one has no decoders; PIL does the same, see ``pixels``
    decode_jpeg = None

Result = TypeVar("Result")

# Pixels of one image on its way to a square, 200 MB of them: a strip one pixel high grows to its longer side squared.
LARGEST = 2**26
JPEG = (".jpg", ".jpeg")

# What a damaged or foreign file makes the libraries raise.
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    SyntaxError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)


def fitted(path: Path, size: int) -> np.ndarray:
    """An image file as uint8 (size, size, 3): RGB, shorter side resized to ``size``, centre crop."""

    def fit(image: Image.Image) -> np.ndarray:
        grown = size * size * max(image.size) // min(image.size)
        if grown > LARGEST:
            shape = " x ".join(map(str, image.size))
            raise ValueError(
                f"{shape} pixels resized to a shorter side of {size} are {grown:,}, allowed are {LARGEST:,}"
            )
        return np.array(functional.center_crop(functional.resize(rgb(image), size), [size, size]))

    return opened(path, fit)


def cut(path: Path, boxes: Tensor, made: Tensor) -> None:
    """Fill ``made`` (V, 3, h, w), uint8, with boxes of one image file resized with antialias, decoded once.

    ``boxes``: (V, 4) int64: top, left, height, width in pixels of the file. The filter is that of ``resample.crop``; values
    are rounded to whole levels.
    """
    whole = pixels(path)[None]
    for view, (top, left, height, width) in zip(made, boxes.tolist(), strict=True):
        box = whole[..., top : top + height, left : left + width]
        if not box.numel():
            size = f"{whole.shape[2]} x {whole.shape[3]}"
            raise InputError(
                f"data.root: image '{path}' is {size} pixels by now, smaller than it was when the run began"
            )
        view.copy_(interpolate(box, view.shape[1:], mode="bilinear", antialias=True)[0])


def pixels(path: Path) -> Tensor:
    """An image file as uint8 (3, H, W), RGB; ``InputError`` naming the file where it cannot be decoded.

    Where torchvision decodes JPEG its pixels are those of PIL to the byte. It lets other threads run meanwhile, PIL for
    three quarters of the time only, so that more than four threads would not help (benchmarks/streaming.py).
    """
    if decode_jpeg is not None and path.suffix.lower() in JPEG:
        # Damaged or foreign: PIL reads it, or says what is wrong.
        with suppress(RuntimeError):
            found: Tensor = decode_jpeg(read_file(os.fspath(path)), mode=ImageReadMode.RGB)
            return found
    return opened(path, lambda image: torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1))


def rgb(image: Image.Image) -> Image.Image:
    """The image with 8 bits for each of red, green and blue, transparency dropped; raises ``ValueError`` for deeper greys."""
    # PIL would clip them at 255: a white image.
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode is {image.mode}, greys of more than 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def opened(path: Path, read: Callable[[Image.Image], Result]) -> Result:
    """What ``read`` makes of an image file; ``InputError`` naming the file where it cannot."""
    try:
        with Image.open(path) as image:
            return read(image)
    except UNREADABLE as error:
        raise InputError(
            f"data.root: image '{path}' cannot be decoded: {one_line(error)}; repair or remove it"
        ) from error


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
