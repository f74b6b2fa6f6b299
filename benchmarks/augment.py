"""Views per second of the CIFAR augmentation on one thread: this package beside what a user would take instead.

    python benchmarks/augment.py --images cifar10.npz

Every contender turns the same uint8 images into two float32 views each, (2, N, 3, 32, 32) in [0, 1]. Contenders take
turns, round by round, so that a busy moment of the machine hits all of them. kornia and lightly come with
`pip install -e ".[benchmark]"`; one that is absent is named and left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, commit, machine, summary, versions
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from collapse_lab import augment
from collapse_lab.config import build
from collapse_lab.presets import AUGMENT
from collapse_lab.settings import AugmentConfig

SIZE = 32
Contender = Callable[[Tensor], Tensor]


def ours(config: AugmentConfig) -> Contender:
    """This package: one batched pass, each image with its own draw."""
    epoch = iter(range(10**9))

    def run(images: Tensor) -> Tensor:
        samples = torch.arange(len(images))
        return augment.views(images, samples, config, seed=0, epoch=next(epoch), views=(0, 1))

    return run


def kornia(config: AugmentConfig) -> Contender:
    """kornia's batched augmentations: each image its own factors, the order of the colour operations one per batch.

    Of its two ways to crop, the faster one here.
    """
    import kornia.augmentation as k

    pipeline = k.AugmentationSequential(
        k.RandomResizedCrop((SIZE, SIZE), config.crop_scale, config.crop_ratio, cropping_mode="resample"),
        k.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue, p=config.jitter),
        k.RandomGrayscale(p=config.grayscale),
        k.RandomHorizontalFlip(p=config.flip),
    )
    return lambda images: pipeline(images.repeat(2, 1, 1, 1).float() / 255).view(2, *images.shape)


def torchvision_on_pil(config: AugmentConfig, t: Any, end: list[Any]) -> Contender:
    """torchvision's transforms, version 1 or 2, on one PIL image after another."""
    jitter = t.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    pipeline = t.Compose(
        [
            t.RandomResizedCrop(SIZE, config.crop_scale, config.crop_ratio),
            t.RandomApply([jitter], config.jitter),
            t.RandomGrayscale(config.grayscale),
            t.RandomHorizontalFlip(config.flip),
            *end,
        ]
    )
    return lambda images: torch.stack([torch.stack([pipeline(image), pipeline(image)]) for image in pil(images)], 1)


def lightly(config: AugmentConfig) -> Contender:
    """lightly's SimSiamTransform on one PIL image after another, without blur and normalisation."""
    from lightly.transforms import SimSiamTransform

    pipeline = SimSiamTransform(
        input_size=SIZE,
        cj_prob=config.jitter,
        cj_bright=config.brightness,
        cj_contrast=config.contrast,
        cj_sat=config.saturation,
        cj_hue=config.hue,
        min_scale=config.crop_scale[0],
        random_gray_scale=config.grayscale,
        gaussian_blur=config.blur,
        hf_prob=config.flip,
        normalize=None,
    )
    return lambda images: torch.stack([torch.stack(pipeline(image)) for image in pil(images)], 1)


def pil(images: Tensor) -> list[Image.Image]:
    """The images as PIL images, made anew each time, as torchvision's CIFAR10 makes them."""
    return [Image.fromarray(array) for array in images.permute(0, 2, 3, 1).contiguous().numpy()]


def contenders(config: AugmentConfig) -> tuple[dict[str, Contender], list[str]]:
    """Contenders by name, and the packages that are not installed."""
    found = {
        "collapse_lab": ours(config),
        "torchvision v2 on PIL": torchvision_on_pil(config, v2, [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        "torchvision v1 on PIL": torchvision_on_pil(config, v1, [v1.ToTensor()]),
    }
    optional = {"kornia": ("kornia, batched", kornia), "lightly": ("lightly SimSiamTransform", lightly)}
    missing = [package for package in optional if find_spec(package) is None]
    return found | {name: make(config) for package, (name, make) in optional.items() if package not in missing}, missing


def measure(runs: dict[str, Contender], images: Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """Views per second of each contender: mean, standard deviation, number of rounds, after one that is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            made = run(images)
            rates[name].append(2 * len(images) / (time.perf_counter() - start))
            if made.shape != (2, *images.shape) or made.dtype != torch.float32:
                raise SystemExit(f"{name} made {made.dtype} {tuple(made.shape)}")
    return {name: summary(r[1:]) for name, r in rates.items()}


def load(path: Path | None, batch: int) -> tuple[Tensor, str]:
    """The first images of an npz of uint8 NHWC ``train_images``, or random ones, and what they are."""
    if path is None:
        return torch.randint(256, (batch, 3, SIZE, SIZE), dtype=torch.uint8), "random pixels"
    with np.load(path) as arrays:
        array = arrays["train_images"][:batch]
    if array.shape != (batch, SIZE, SIZE, 3):
        raise SystemExit(f"{path}: train_images[:{batch}] has shape {array.shape}, needs ({batch}, {SIZE}, {SIZE}, 3)")
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(), f"train_images of {path.name}"


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="npz of uint8 NHWC train_images; without it, random pixels")
    parser.add_argument("--batch", type=int, default=512, help="images, two views of each")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "augment.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, source = load(arguments.images, arguments.batch)
    runs, missing = contenders(build("simsiam", AUGMENT["cifar"]).augment)
    for package in missing:
        print(f'{package} is not installed and left out; pip install -e ".[benchmark]" brings it')
    named = f"--images {arguments.images.name} " if arguments.images else ""
    command = f"python benchmarks/augment.py {named}--batch {arguments.batch} --rounds {arguments.rounds}"
    results = measure(runs, images, arguments.rounds)
    report = {
        "what": f"views per second, preset cifar, {len(images)} images x 2 views of {SIZE} x {SIZE}, one thread",
        "images": source,
        "views_per_second": results,
        "not_installed": missing,
        "machine": machine() | versions("kornia"),
        "commit": commit(),
        "command": command,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{report['what']}; images: {source}")
    for name, r in sorted(results.items(), key=lambda item: -item[1]["mean"]):
        print(f"{name:28s} {r['mean']:9.0f} +- {r['std']:6.0f} views/s  n = {r['n']}")


if __name__ == "__main__":
    main()
