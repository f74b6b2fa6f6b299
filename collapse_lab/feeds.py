"""Where the views of a training step come from: images in memory, or files decoded by threads while the step before runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from collapse_lab import augment
from collapse_lab.image_files import ImageFiles, Pictures, cut
from collapse_lab.machine import cores
from collapse_lab.settings import Config
from collapse_lab.view_parameters import Parameters, parameters

AHEAD = 3  # batches under way beside the one that is trained on


class MemoryFeed:
    """Views of images that lie in one tensor, on its device."""

    waited: float | None = None

    def __init__(self, images: Tensor, config: Config, views: int) -> None:
        self._images, self._config, self._views = images, config, range(views)

    def expect(self, batches: Sequence[Tensor], epoch: int) -> None:
        """Say which views will be asked for; nothing is done ahead."""

    def views(self, samples: Tensor, epoch: int) -> Tensor:
        """The views (V, N, C, S, S) of the images ``samples`` (N,), int64 on the CPU, as ``augment.views`` makes them."""
        pictures = self._images[samples.to(self._images.device, non_blocking=True)]
        seed = self._config.train.seed
        return augment.views(pictures, samples, self._config.augment, seed=seed, epoch=epoch, views=self._views)

    def close(self) -> None:
        """Nothing is under way."""


class Cropping(NamedTuple):
    """One batch under way: what is drawn for it, its crops as they fill up, and the threads' work on them."""

    samples: Tensor
    epoch: int
    drawn: Parameters
    crops: Tensor
    parts: list[Future[None]]


class FileFeed:
    """Views of images in files, cut out of each whole photograph.

    Threads decode and crop ``AHEAD`` batches before they are asked for; flip, rotation, colour and blur are done on the
    device. A view is the same function of (seed, epoch, sample, number) as in memory, where the image in the file and the
    one in memory are the same, but for rounding to whole levels after the crop. ``waited`` counts the seconds that
    ``views`` stood still for files; on a GPU, which may still be computing meanwhile, that is at most what was lost.
    """

    def __init__(self, images: ImageFiles, config: Config, views: int) -> None:
        self._images, self._config, self._views = images, config, range(views)
        self._sizes = images.sizes()
        self._coming: Iterator[Tensor] = iter(())
        self._under_way: deque[Cropping] = deque()
        self._pool = ThreadPoolExecutor(cores(), "decode")
        self.waited = 0.0

    def expect(self, batches: Sequence[Tensor], epoch: int) -> None:
        """Say which views will be asked for, in this order; the work on the first ones begins."""
        self._drop()
        self._coming = iter(batches)
        self._advance(epoch)

    def views(self, samples: Tensor, epoch: int) -> Tensor:
        """The views (V, N, 3, S, S) of the images ``samples`` (N,), int64 on the CPU; ``InputError`` names a damaged file."""
        expected = self._under_way.popleft() if self._under_way else None
        if expected is None or expected.epoch != epoch or not torch.equal(expected.samples, samples):
            self._drop()
            expected = self._start(samples, epoch)
        self._advance(epoch)
        started = time.perf_counter()
        for part in expected.parts:
            part.result()
        self.waited += time.perf_counter() - started
        crops = expected.crops.to(self._images.device, non_blocking=True)
        made = augment.finished(crops.flatten(0, 1), expected.drawn)
        return made.view(crops.shape)

    def close(self) -> None:
        """End the threads; what they have not begun is left."""
        self._drop()
        self._pool.shutdown(cancel_futures=True)

    def _advance(self, epoch: int) -> None:
        while len(self._under_way) < AHEAD and (samples := next(self._coming, None)) is not None:
            self._under_way.append(self._start(samples, epoch))

    def _start(self, samples: Tensor, epoch: int) -> Cropping:
        config = self._config
        drawn = parameters(
            samples,
            config.augment,
            self._sizes[samples],
            seed=config.train.seed,
            epoch=epoch,
            views=self._views,
        )
        side = config.augment.size or self._images.size
        shape = (len(self._views), len(samples), 3, side, side)
        crops = torch.empty(shape, dtype=torch.uint8, pin_memory=self._images.device.type == "cuda")
        boxes = drawn.box.view(*shape[:2], 4)
        parts = [
            self._pool.submit(cut, self._images.paths[sample], boxes[:, row], crops[:, row])
            for row, sample in enumerate(samples.tolist())
        ]
        return Cropping(samples, epoch, drawn, crops, parts)

    def _drop(self) -> None:
        for batch in self._under_way:
            for part in batch.parts:
                part.cancel()
        self._under_way.clear()
        self._coming = iter(())


def feed(images: Pictures, config: Config, views: int) -> MemoryFeed | FileFeed:
    """What makes ``views`` views of training images for a run of that configuration."""
    if isinstance(images, ImageFiles):
        return FileFeed(images, config, views)
    if isinstance(images, Tensor):
        return MemoryFeed(images, config, views)
    raise TypeError(f"images: found {type(images).__name__}, expected a tensor or ImageFiles")
