"""Where images come from: every source answers with labels first and decodes only the images that are kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, STL10, FashionMNIST, ImageFolder

from collapse_lab.decoding import UNREADABLE, one_line
from collapse_lab.errors import InputError
from collapse_lab.image_files import ImageFiles, Pictures
from collapse_lab.machine import free_memory
from collapse_lab.settings import DataConfig

Split = Literal["train", "test"]
DIGITS_TEST_IMAGES = 360


class Source(NamedTuple):
    """One split before any image is decoded: ``read`` makes uint8 (N, C, H, W) of ascending indices into ``labels``."""

    labels: Tensor
    read: Callable[[Tensor], Pictures]
    classes: tuple[str, ...]
    name: str
    place: str


def _digits(config: DataConfig, split: Split) -> Source:
    """scikit-learn's digits, 8 x 8 at 17 levels: level v becomes round(255 v / 16); one fixed stratified split."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(digits.target).long()
    parts = train_test_split(
        np.arange(len(labels)), test_size=DIGITS_TEST_IMAGES, stratify=digits.target, random_state=0
    )
    index = torch.from_numpy(np.sort(parts[split == "test"]))
    return Source(labels[index], partial(_take, images[index]), tuple("0123456789"), "digits", "digits")


def _torchvision(
    kind: Any, title: str, options: dict[Split, dict[str, Any]], config: DataConfig, split: Split
) -> Source:
    """One of torchvision's data sets; ``options`` are its arguments for either split."""
    root = _root(config, f"the folder of {title} in torchvision's layout, or data.download to fetch it there")
    if not config.download and not root.is_dir():
        raise InputError(f"data.root: folder '{root}' does not exist; data.download fetches {title} into it")
    try:
        # Standard output is for results.
        with redirect_stdout(sys.stderr):
            data = kind(root, download=config.download, **options[split])
    except UNREADABLE as error:
        cause = one_line(error)
        if config.download:
            raise InputError(f"data.download: {title} could not be fetched into '{root}': {cause}") from error
        raise InputError(
            f"data.root: '{root}' holds no complete {title} in torchvision's layout ({cause}); "
            "check the path, or data.download to fetch or unpack it there"
        ) from error
    pixels = torch.as_tensor(data.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] != 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = torch.as_tensor(data.labels if hasattr(data, "labels") else data.targets).long()
    return Source(labels, partial(_take, pixels), tuple(data.classes), title, f"data.root: '{root}'")


def _imagefolder(config: DataConfig, split: Split) -> Source:
    """Folders ``train/<class>`` and ``val/<class>``, images of any size; ``test`` is read where there is no ``val``."""
    root = _root(config, "a folder with train/<class> and val/<class>")
    folder = root / "train"
    if split == "test":
        folder = next((root / name for name in ("val", "test") if (root / name).is_dir()), root / "val")
    if not folder.is_dir():
        raise InputError(f"data.root: folder '{folder}' does not exist; needed are train/<class> and val/<class>")
    try:
        listing = ImageFolder(folder)
    except FileNotFoundError as error:
        raise InputError(f"data.root: '{folder}' is not a folder of class folders: {one_line(error)}") from error
    paths = [Path(path) for path, _ in listing.samples]
    name = f"{root.resolve().name} at {config.image_size} px"
    read = partial(_streamed if config.stream else _decode, paths, config.image_size)
    return Source(torch.tensor(listing.targets), read, tuple(listing.classes), name, f"data.root: '{folder}'")


def _npz(config: DataConfig, split: Split) -> Source:
    """Arrays ``{train,test}_images``, uint8 (N, H, W, C), ``{train,test}_labels`` and, if present, ``label_names``."""
    path = _root(config, "the .npz file")
    place = f"data.root: '{path}'"
    try:
        # Opened here: numpy leaves the file open where the archive is truncated.
        with path.open("rb") as stream:
            file = _archive(stream)
            images, labels = file[f"{split}_images"], file[f"{split}_labels"]
            named, trained = file.get("label_names"), file["train_labels"]
    except UNREADABLE as error:
        raise InputError(
            f"{place} cannot be read as npz with the arrays train_images, train_labels, test_images and test_labels, "
            f"none of them of objects: {one_line(error)}"
        ) from error
    _check_arrays(images, labels, split, place)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    classes = tuple(str(name) for name in np.ravel(range(int(trained.max()) + 1) if named is None else named))
    return Source(torch.from_numpy(labels.astype(np.int64)), partial(_take, pixels), classes, path.stem, place)


Reader = Callable[[DataConfig, Split], Source]
TRAIN_FLAG: dict[Split, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
STL10_SPLITS: dict[Split, dict[str, Any]] = {"train": {"split": "train+unlabeled"}, "test": {"split": "test"}}
SOURCES: dict[str, Reader] = {
    "digits": _digits,
    "cifar10": partial(_torchvision, CIFAR10, "CIFAR-10", TRAIN_FLAG),
    "cifar100": partial(_torchvision, CIFAR100, "CIFAR-100", TRAIN_FLAG),
    "stl10": partial(_torchvision, STL10, "STL-10", STL10_SPLITS),
    "mnist": partial(_torchvision, MNIST, "MNIST", TRAIN_FLAG),
    "fashion-mnist": partial(_torchvision, FashionMNIST, "Fashion-MNIST", TRAIN_FLAG),
    "imagefolder": _imagefolder,
    "npz": _npz,
}


def _root(config: DataConfig, needed: str) -> Path:
    if config.root is None:
        raise InputError(f"data.root: none given; data set '{config.name}' needs {needed}")
    return config.root.expanduser()


def _take(pixels: Tensor, index: Tensor) -> Tensor:
    return pixels[index].contiguous()


def _decode(paths: list[Path], size: int, index: Tensor) -> Tensor:
    """The images at ``index`` in memory."""
    bytes_needed = len(index) * 3 * size * size
    memory = free_memory(torch.device("cpu"))
    if bytes_needed > memory:
        raise InputError(
            f"data.image_size: {len(index):,} images of {size} x {size} need {bytes_needed / 2**30:,.1f} GiB as one "
            f"uint8 tensor, and this machine has {memory / 2**30:,.1f} GiB free; data.stream reads them as they "
            "are needed, or lower data.image_size or data.train_images"
        )
    return _streamed(paths, size, index)[:]


def _streamed(paths: list[Path], size: int, index: Tensor) -> ImageFiles:
    return ImageFiles([paths[number] for number in index.tolist()], size)


def _archive(stream: BinaryIO) -> Mapping[str, np.ndarray]:
    file: Mapping[str, np.ndarray] | np.ndarray = np.load(stream, allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise ValueError("it holds a single array without a name")
    return file


def _check_arrays(images: np.ndarray, labels: np.ndarray, split: Split, place: str) -> None:
    """Refuse arrays of an npz file that are not uint8 (N, H, W, C) with one whole-number label each."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or images.size == 0:
        raise InputError(
            f"{place}: {split}_images is {images.dtype} of shape {images.shape}; "
            "allowed is uint8 of shape (N, H, W, C) with C 1 or 3, N, H and W at least 1"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise InputError(
            f"{place}: {split}_labels is {labels.dtype} of shape {labels.shape}; allowed are integers of shape (N,)"
        )
    if len(images) != len(labels):
        raise InputError(f"{place}: {len(images)} {split}_images but {len(labels)} {split}_labels; one label an image")
    # Before anything is sized by the largest label.
    if labels.max() >= len(labels):
        raise InputError(
            f"{place}: {split}_labels go up to {labels.max()} with {len(labels)} images; "
            "labels are 0, 1, 2 ... and each of them needs an image"
        )
