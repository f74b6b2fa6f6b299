"""Whether a configuration fits the images and the machine."""

from __future__ import annotations

import torch

from collapse_lab import augment
from collapse_lab.collective import processes
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.machine import free_memory, pick_device
from collapse_lab.settings import Config


def check(config: Config, images: Images) -> None:
    """Raise ``InputError`` where a configuration does not fit the images or this machine."""
    pick_device(config.train)
    require_fitting(config, images)
    require_memory(config, len(images.train))


def require_fitting(config: Config, images: Images) -> None:
    """Raise ``InputError`` where a configuration does not fit the images, whatever machine is to train on them."""
    augment.require_channels(config.augment, images.train.shape[1])
    count, bank = len(images.train), len(images.labelled)
    if config.train.batch > count:
        raise InputError(f"train.batch: found {config.train.batch}, the training images are only {count}")
    world = processes()[1]
    parts = world * config.train.accumulate
    if config.train.batch % parts:
        nearest = config.train.batch // parts * parts
        raise InputError(
            f"train.batch: found {config.train.batch}, which {world} processes (torchrun) x "
            f"{config.train.accumulate} parts (train.accumulate) cannot share equally; "
            f"{f'{nearest} and ' * (nearest > 0)}{nearest + parts} they can"
        )
    if min(len(images.test), bank) < world:
        raise InputError(
            f"data: found {len(images.test)} test images and {bank} labelled training images, must be at least one for each "
            f"of the {world} processes (torchrun)"
        )
    if config.monitor.probe and len(images.train_labels[images.labelled].unique()) < 2:
        raise InputError("monitor.probe: found true, the training labels are of one class; a linear probe needs two")
    if config.monitor.k > bank:
        raise InputError(f"monitor.k: found {config.monitor.k}, the bank has only {bank} labelled training images")


def require_memory(config: Config, images: int, available: int | None = None) -> None:
    """Raise ``InputError`` where the etas of so many images exceed the bytes ``available``, those free on the device."""
    if config.target.estimate != "memory":
        return
    width = torch.finfo(getattr(torch, config.target.eta_dtype)).bits // 8
    dim = config.network.projector_dim
    need = images * dim * width
    free = free_memory(pick_device(config.train)) if available is None else available
    if need > free:
        raise InputError(
            f"target.estimate: found 'memory', whose etas of {images} images take {need / 1e9:.3g} GB, and there are "
            f"{free / 1e9:.3g} GB free; choose target.eta_dtype float16, network.projector_dim less than {dim}, or fewer images"
        )
