"""Images that stay in their files until they are asked for, decoded by threads."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional

from collapse_lab.errors import InputError
from collapse_lab.machine import cores

Result = TypeVar("Result")

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


class Pictures(Protocol):
    """uint8 images (N, C, H, W), all of them in one tensor or each in its file."""

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""

    @property
    def device(self) -> torch.device:
        """Where an indexed image lies."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice, /) -> Tensor: ...


class ImageFiles:
    """Image files as if they were one uint8 tensor (N, 3, size, size): what is indexed is decoded.

    RGB, the shorter side resized to ``size`` (PIL's bilinear filter), the centre cropped. Raises ``InputError`` naming a
    file that cannot be decoded.
    """

    def __init__(self, paths: Sequence[Path], size: int, device: torch.device | str = "cpu") -> None:
        self.paths, self.size, self.device = list(paths), size, torch.device(device)

    @property
    def shape(self) -> torch.Size:
        """(N, 3, size, size)."""
        return torch.Size((len(self.paths), 3, self.size, self.size))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        images = torch.empty(len(chosen), *self.shape[1:], dtype=torch.uint8)

        def decode(row: int) -> None:
            images[row] = torch.from_numpy(fitted(self.paths[chosen[row]], self.size)).permute(2, 0, 1)

        with ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(decode, range(len(chosen))):
                pass
        return images.to(self.device)

    def to(self, device: torch.device | str) -> ImageFiles:
        """The same images, decoded on the CPU and then moved to the device."""
        return ImageFiles(self.paths, self.size, device)

    def sizes(self) -> Tensor:
        """Height and width of every image as it lies in its file, (N, 2) int64; only the headers are read."""
        with ThreadPoolExecutor(cores()) as pool:
            found = list(pool.map(lambda path: opened(path, lambda image: image.size), self.paths))
        return torch.tensor(found).flip(1)


def chunks(images: Pictures, count: int) -> Iterator[Tensor]:
    """One stretch of at most ``count`` images after the other; from files the next is decoded meanwhile."""
    yield from stretches(images, [slice(first, first + count) for first in range(0, len(images), count)])


def even(length: int, parts: int) -> list[slice]:
    """Slices of a range in so many parts, the longer ones first, no two of which differ by more than one.

    >>> even(7, 3)
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    short, longer = divmod(length, parts)
    starts = [number * short + min(number, longer) for number in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(starts)]


def stretches(images: Pictures, rows: Sequence[slice]) -> Iterator[Tensor]:
    """The images of one slice after the other; from files the next are decoded meanwhile."""
    if isinstance(images, Tensor):
        yield from (images[each] for each in rows)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(images.__getitem__, rows[0])
        for each in rows[1:]:
            made, coming = coming.result(), pool.submit(images.__getitem__, each)
            yield made
        yield coming.result()


def fitted(path: Path, size: int) -> np.ndarray:
    """An image file as uint8 (size, size, 3): RGB, shorter side resized to ``size``, centre crop."""

    def fit(image: Image.Image) -> np.ndarray:
        return np.array(functional.center_crop(functional.resize(image.convert("RGB"), size), [size, size]))

    return opened(path, fit)


def cut(path: Path, boxes: Tensor, made: Tensor) -> None:
    """Fill ``made`` (V, 3, h, w), uint8, with boxes of one image file resized with antialias, decoded once.

    ``boxes``: (V, 4) int64: top, left, height, width in pixels of the file. The filter is that of ``resample.crop``; values
    are rounded to whole levels.
    """
    # benchmarks/decode.py: torch resizes faster than PIL. torchvision.io decodes faster, but is going to be removed.
    pixels = torch.from_numpy(opened(path, lambda image: np.array(image.convert("RGB")))).permute(2, 0, 1)
    for view, (top, left, height, width) in zip(made, boxes.tolist(), strict=True):
        box = pixels[None, :, top : top + height, left : left + width]
        view[:] = interpolate(box, view.shape[1:], mode="bilinear", antialias=True)[0]


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
