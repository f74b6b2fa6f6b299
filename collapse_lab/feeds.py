"""Where the views of a training step come from: images in memory, or files decoded by threads while the step before runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from collapse_lab import augment
from collapse_lab.decoding import cut
from collapse_lab.image_files import ImageFiles, Pictures
from collapse_lab.machine import cores
from collapse_lab.settings import Config
from collapse_lab.view_parameters import parameters

AHEAD = 3  # batches of files under way beside the one that is trained on


class Batch(NamedTuple):
    """Views under way: the images they are of, their epoch, the threads' work on them, and what gives them after it."""

    samples: Tensor
    epoch: int
    work: Sequence[Future[Any]]
    made: Callable[[], Tensor]


# Begins the work on the views of some images, by index, in an epoch.
Begin: TypeAlias = Callable[[Tensor, int], Batch]


class Feed:
    """Views of training images, ``ahead`` batches of which threads begin before they are asked for.

    A view is the same function of (seed, epoch, sample, number) whatever was expected. ``waited`` counts the seconds that
    ``wait`` stood still for the threads; on a GPU, which may still be computing meanwhile, that is at most what was lost.
    """

    def __init__(self, begin: Begin, pool: ThreadPoolExecutor | None = None, ahead: int = 0) -> None:
        self._begin, self._pool, self._ahead = begin, pool, ahead
        self._coming: Iterator[Tensor] = iter(())
        self._under_way: deque[Batch] = deque()
        self.waited = 0.0

    def expect(self, batches: Sequence[Tensor], epoch: int) -> None:
        """Say which views will be asked for, in this order; the work on the first ones begins."""
        self._drop()
        self._coming = iter(batches)
        self._advance(epoch)

    def wait(self, samples: Tensor, epoch: int) -> None:
        """Stand still until the threads have done their part for these views; ``InputError`` names a damaged file."""
        head = self._under_way[0] if self._under_way else None
        if head is None or head.epoch != epoch or not torch.equal(head.samples, samples):
            self._drop()
            head = self._begin(samples, epoch)
            self._under_way.append(head)
        started = time.perf_counter()
        for part in head.work:
            part.result()
        self.waited += time.perf_counter() - started

    def views(self, samples: Tensor, epoch: int) -> Tensor:
        """The views (V, N, C, S, S) of the images ``samples`` (N,), int64 on the CPU; ``wait`` is called first."""
        self.wait(samples, epoch)
        batch = self._under_way.popleft()
        self._advance(epoch)
        return batch.made()

    def close(self) -> None:
        """End the threads; what they have not begun is left."""
        self._drop()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _advance(self, epoch: int) -> None:
        while len(self._under_way) < self._ahead and (samples := next(self._coming, None)) is not None:
            self._under_way.append(self._begin(samples, epoch))

    def _drop(self) -> None:
        for batch in self._under_way:
            for part in batch.work:
                part.cancel()
        self._under_way.clear()
        self._coming = iter(())


def feed(images: Pictures, config: Config, views: int) -> Feed:
    """What makes ``views`` views of training images for a run of that configuration.

    Images in memory on a CPU get a thread of their own where there are more cores than the run computes with. On a GPU the
    work is only queued, so that nothing is gained by beginning earlier.
    """
    if isinstance(images, ImageFiles):
        pool = ThreadPoolExecutor(cores(), "decode")
        return Feed(from_files(images, config, views, pool), pool, AHEAD)
    if not isinstance(images, Tensor):
        raise TypeError(f"images: found {type(images).__name__}, expected a tensor or ImageFiles")
    if images.device.type != "cpu" or cores() <= config.train.threads:
        return Feed(from_memory(images, config, views))
    pool = ThreadPoolExecutor(1, "views")
    return Feed(in_thread(from_memory(images, config, views), pool), pool, ahead=1)


def from_memory(images: Tensor, config: Config, views: int) -> Begin:
    """Views of images in one tensor, made on its device when they are asked for."""

    def make(samples: Tensor, epoch: int) -> Tensor:
        pictures, seed = images[samples.to(images.device, non_blocking=True)], config.train.seed
        return augment.views(pictures, samples, config.augment, seed=seed, epoch=epoch, views=range(views))

    return lambda samples, epoch: Batch(samples, epoch, (), partial(make, samples, epoch))


def in_thread(begin: Begin, pool: ThreadPoolExecutor) -> Begin:
    """What ``begin`` leaves to be made when it is asked for, made in a thread."""

    def begun(samples: Tensor, epoch: int) -> Batch:
        making = pool.submit(begin(samples, epoch).made)
        return Batch(samples, epoch, [making], making.result)

    return begun


def from_files(images: ImageFiles, config: Config, views: int, pool: ThreadPoolExecutor) -> Begin:
    """Views cut out of each whole photograph: threads decode and crop, the device does what follows.

    Where the image in the file and the one in memory are the same, so are the views, but for rounding to whole levels
    after the crop.
    """
    sizes, side = images.sizes(), config.augment.size or images.size

    def begin(samples: Tensor, epoch: int) -> Batch:
        seed = config.train.seed
        drawn = parameters(samples, config.augment, sizes[samples], seed=seed, epoch=epoch, views=range(views))
        shape = (views, len(samples), 3, side, side)
        crops = torch.empty(shape, dtype=torch.uint8, pin_memory=images.device.type == "cuda")
        boxes = drawn.box.view(*shape[:2], 4)
        work = [
            pool.submit(cut, images.paths[sample], boxes[:, row], crops[:, row])
            for row, sample in enumerate(samples.tolist())
        ]

        def made() -> Tensor:
            on_device = crops.to(images.device, non_blocking=True)
            return augment.finished(on_device.flatten(0, 1), drawn).view(shape)

        return Batch(samples, epoch, work, made)

    return begin
