"""Images that stay in their files until they are asked for, decoded by threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from collapse_lab.decoding import fitted, opened
from collapse_lab.machine import cores


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
