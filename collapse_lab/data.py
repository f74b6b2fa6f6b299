"""Training and test images, in memory or in files, chosen from a source by class, and the statistics of their channels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from collapse_lab.collective import processes, total
from collapse_lab.decoding import one_line
from collapse_lab.errors import InputError
from collapse_lab.image_files import ImageFiles, Pictures, even, pieces, stretches
from collapse_lab.settings import DataConfig
from collapse_lab.sources import SOURCES, Source

CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Images:
    """Training and test images.

    ``train`` and ``test`` are uint8 of shape (N, C, H, W) with C 1 or 3, tensors or (``data.stream``) files; the labels
    are int64 of shape (N,), indices into ``classes``. Training labels may be -1, unlabelled (stl10): such images are
    trained on, but only ``labelled`` ones can be the bank of a kNN classifier or the training set of a probe. Test images
    always have a label. ``name`` says for a caption which images these are.
    """

    train: Pictures
    train_labels: Tensor
    test: Pictures
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str

    @property
    def labelled(self) -> Tensor:
        """Indices (int64, ascending) of the training images that have a label."""
        return (self.train_labels >= 0).nonzero().flatten()

    @property
    def bank(self) -> tuple[Pictures, Tensor]:
        """The training images that have a label, and their labels."""
        index = self.labelled
        if len(index) == len(self.train):
            return self.train, self.train_labels
        return self.train[index], self.train_labels[index]

    def digest(self) -> str:
        """SHA-256 of labels and pixels; of images that stay in files, the class folders and names stand for the pixels."""
        found = hashlib.sha256()
        for pictures, labels in ((self.train, self.train_labels), (self.test, self.test_labels)):
            found.update(repr(tuple(pictures.shape)).encode())
            found.update(labels.cpu().numpy().tobytes())
            found.update(_content(pictures))
        return found.hexdigest()

    def to(self, device: torch.device | str) -> Images:
        """The same images with all four tensors on the device."""
        tensors = ("train", "train_labels", "test", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def _content(pictures: Pictures) -> Any:
    if isinstance(pictures, Tensor):
        return pictures.cpu().contiguous().numpy()
    if isinstance(pictures, ImageFiles):
        return "\n".join(f"{path.parent.name}/{path.name}" for path in pictures.paths).encode()
    raise TypeError(f"pictures: found {type(pictures).__name__}, expected a tensor or ImageFiles")


def load(config: DataConfig) -> Images:
    """The images that a configuration names, on the CPU.

    With ``validation`` > 0 a stratified share of the labelled training images, the same in every run, becomes the test
    set, and the real test set is not even read. ``train_images`` and ``test_images`` then keep the first n // classes
    of each class in the original order; where the training set has unlabelled images and n is larger than the
    labelled part, the first unlabelled ones fill up.

    Raises ``InputError`` with one line naming the path for whatever cannot be read or does not fit together.

    >>> images = load(DataConfig("digits", train_images=100))
    >>> images.train.shape, images.test.shape, images.name
    (torch.Size([100, 1, 8, 8]), torch.Size([360, 1, 8, 8]), 'digits, 100 of 1,437 training images')
    """
    train = SOURCES[config.name](config, "train")
    _require_every_class(train)
    kept = torch.arange(len(train.labels))
    if config.validation:
        test = train
        kept, tested = _split(train, config.validation)
    else:
        test = SOURCES[config.name](config, "test")
        _require_same_classes(train, test)
        tested = torch.arange(len(test.labels))
    kept_first = _first(train, kept, config.train_images, "data.train_images")
    tested_first = _first(test, tested, config.test_images, "data.test_images")
    images, test_images = train.read(kept_first), test.read(tested_first)
    if images.shape[1:] != test_images.shape[1:]:
        raise InputError(
            f"{test.place}: images of shape {tuple(test_images.shape[1:])} (C, H, W), but the training images have "
            f"{tuple(images.shape[1:])}; both splits need the same size"
        )
    name = train.name + _cut(kept_first, kept, "training") + _cut(tested_first, tested, "test")
    name += f", tested on {config.validation:g} of its training images" if config.validation else ""
    return Images(images, train.labels[kept_first], test_images, test.labels[tested_first], train.classes, name)


def statistics(train: Pictures) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over [0, 1], with which network input is normalised.

    Taken over all N x H x W values of the *training* images (N, C, H, W), uint8, divided by 255; the standard
    deviation has ddof 0. Exact up to the last rounding: computed in float64 from the counts of the 256 levels, of which
    several processes, each of which must call, make a share each. Returns two float32 tensors (C,). Raises
    ``InputError`` where a channel is constant and cannot be normalised.

    >>> mean, std = statistics(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
    >>> mean.item(), std.item()
    (0.5, 0.5)
    """
    rank, count = processes()
    mine = pieces(even(len(train), count)[rank], CHUNK)
    found = total(torch.stack([_levels(stretch) for stretch in stretches(train, mine)]).sum(0))
    levels = torch.arange(256, dtype=torch.float64, device=found.device) / 255
    counts = found.double()
    counts /= counts.sum(dim=1, keepdim=True)
    mean = counts @ levels
    variance = (counts * (levels - mean[:, None]).square()).sum(dim=1)
    for channel in (counts == 1).any(dim=1).nonzero().flatten().tolist():
        level = int(counts[channel].argmax())
        raise InputError(f"channel {channel} is {level} in every training image, so it cannot be normalised; drop it")
    return mean.float(), variance.sqrt().float()


def _levels(images: Tensor) -> Tensor:
    """How often each of the 256 levels occurs in each channel, (C, 256)."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])


def _require_every_class(source: Source) -> None:
    """Refuse a label outside the classes (-1 is unlabelled) and a class without an image."""
    low, high, count = int(source.labels.min()), int(source.labels.max()), len(source.classes)
    if low < -1 or high >= count:
        raise InputError(f"{source.place}: labels from {low} to {high}; allowed are 0 to {count - 1}")
    sizes = _sizes(source.labels, count)
    empty = [name for name, size in zip(source.classes, sizes, strict=True) if size == 0]
    if empty:
        raise InputError(f"{source.place}: no image of class {', '.join(empty)}; every class needs at least one")


def _require_same_classes(train: Source, test: Source) -> None:
    missing = [name for name in train.classes if name not in test.classes]
    unknown = [name for name in test.classes if name not in train.classes]
    if missing:
        raise InputError(f"{test.place}: no class folder for {', '.join(missing)}, which the training images have")
    if unknown:
        raise InputError(f"{test.place}: classes {', '.join(unknown)} are not among the training images")
    if (test.labels < 0).any():
        raise InputError(f"{test.place}: unlabelled test images (-1); every test image needs a label")
    _require_every_class(test)


def _split(source: Source, share: float) -> tuple[Tensor, Tensor]:
    """Indices of the images that stay for training, unlabelled ones included, and of a stratified share held out."""
    labelled = (source.labels >= 0).nonzero().flatten().numpy()
    labels = source.labels[labelled]
    try:
        _, held = train_test_split(labelled, test_size=share, stratify=labels, random_state=0)
    except ValueError as error:
        raise InputError(
            f"data.validation: {share:g} of {len(labelled)} labelled images in {len(source.classes)} classes "
            f"cannot be held out: {one_line(error)}"
        ) from error
    mask = torch.ones(len(source.labels), dtype=torch.bool)
    mask[torch.from_numpy(held)] = False
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()


def _first(source: Source, index: Tensor, count: int | None, key: str) -> Tensor:
    """The first count // classes of each class among ``index``, unlabelled ones filling up; all where count is none."""
    if count is None:
        return index
    labels, classes = source.labels[index], len(source.classes)
    sizes = _sizes(labels, classes)
    unlabelled = index[labels < 0]
    if len(unlabelled) and sum(sizes) < count <= len(index):
        return torch.cat([index[labels >= 0], unlabelled[: count - sum(sizes)]]).sort().values
    each = count // classes
    if each < 1 or each > min(sizes) or count % classes:
        most = classes * min(sizes)
        extra = f", or up to {len(index)} with unlabelled images" if len(unlabelled) else ""
        raise InputError(
            f"{key}: found {count}; allowed are multiples of {classes} up to {most}: the same number of each class, "
            f"the smallest of which has {min(sizes)} images{extra}"
        )
    return torch.cat([index[labels == label][:each] for label in range(classes)]).sort().values


def _sizes(labels: Tensor, classes: int) -> list[int]:
    """The number of images of every class; unlabelled ones (-1) are not counted."""
    sizes: list[int] = torch.bincount(labels + 1, minlength=classes + 1)[1:].tolist()
    return sizes


def _cut(kept: Tensor, available: Tensor, split: str) -> str:
    return f", {len(kept):,} of {len(available):,} {split} images" if len(kept) < len(available) else ""
