"""Images that stay in their files until they are asked for, decoded by threads."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional

try:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
except ImportError:  # torchvision 0.29 says that a later one has no decoders; PIL does the same, see ``pixels``
    decode_jpeg = None

from collapse_lab.errors import InputError
from collapse_lab.machine import cores

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


class Decoding(NamedTuple):
    """Images as they fill up, and the threads' work on them."""

    images: Tensor
    parts: list[Future[None]]

    def finished(self) -> Tensor:
        """The images when all of them are there; ``InputError`` names the first file that cannot be decoded."""
        for part in self.parts:
            part.result()
        return self.images


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
        [images] = self.decoded([index])
        return images

    def decoded(self, rows: Sequence[Tensor | slice]) -> Iterator[Tensor]:
        """The images of one index after the other, the next decoded meanwhile.

        Whoever leaves early, by an interrupt or an error, waits for the files at hand and no others.
        """
        pool = ThreadPoolExecutor(cores())
        try:
            coming = self._begin(rows[0], pool)
            for each in rows[1:]:
                made, coming = coming, self._begin(each, pool)
                yield made.finished().to(self.device)
            yield coming.finished().to(self.device)
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, index: Tensor | slice, pool: ThreadPoolExecutor) -> Decoding:
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        images = torch.empty(len(chosen), *self.shape[1:], dtype=torch.uint8)

        def decode(row: int) -> None:
            images[row] = torch.from_numpy(fitted(self.paths[chosen[row]], self.size)).permute(2, 0, 1)

        return Decoding(images, [pool.submit(decode, row) for row in range(len(chosen))])

    def to(self, device: torch.device | str) -> ImageFiles:
        """The same images, decoded on the CPU and then moved to the device."""
        return ImageFiles(self.paths, self.size, device)

    def sizes(self) -> Tensor:
        """Height and width of every image as it lies in its file, (N, 2) int64; only the headers are read."""
        with ThreadPoolExecutor(cores()) as pool:
            found = list(pool.map(lambda path: opened(path, lambda image: image.size), self.paths))
        return torch.tensor(found).flip(1)


def even(length: int, parts: int) -> list[slice]:
    """Slices of a range in so many parts, the longer ones first, no two of which differ by more than one.

    >>> even(7, 3)
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    short, longer = divmod(length, parts)
    starts = [number * short + min(number, longer) for number in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(starts)]


def pieces(rows: slice, count: int) -> list[slice]:
    """A slice in stretches of ``count``, the last one shorter.

    >>> pieces(slice(3, 8), 2)
    [slice(3, 5, None), slice(5, 7, None), slice(7, 8, None)]
    """
    return [slice(first, min(first + count, rows.stop)) for first in range(rows.start, rows.stop, count)]


def chunks(images: Pictures, count: int) -> Iterator[Tensor]:
    """One stretch of at most ``count`` images after the other; from files the next is decoded meanwhile."""
    return stretches(images, pieces(slice(0, len(images)), count))


def stretches(images: Pictures, rows: Sequence[slice]) -> Iterator[Tensor]:
    """The images of one slice after the other; from files the next are decoded meanwhile."""
    if isinstance(images, Tensor):
        return (images[each] for each in rows)
    assert isinstance(images, ImageFiles)
    return images.decoded(rows)


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
