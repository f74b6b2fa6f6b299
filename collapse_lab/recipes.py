"""What an evaluation does to a finished run, with the published settings: plain values, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Kind = Literal["clean", "mean-input", "mean-output"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Recipe:
    """How a linear classifier, and with ``frozen`` false the backbone below it, is trained on labels.

    The rate is ``base_rate`` x ``batch`` / 256 and falls along half a cosine, epoch by epoch. ``trust`` none is SGD,
    a number is LARS with this trust coefficient. Views are random resized crops, flipped with probability ``flip``.
    """

    base_rate: float
    batch: int
    epochs: int
    frozen: bool
    trust: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5


# Chen and He (2021), linear evaluation, 90 epochs. Their text: LARS, base rate 0.02, batch 4096; or SGD, 30 and 256, about
# a point lower. Their code: LARC without clipping, trust 0.001, base rate 0.1, and the crop scale of torchvision.
LINEAR: Mapping[str, Recipe] = {
    "sgd": Recipe(base_rate=30.0, batch=256, epochs=90, frozen=True),
    "lars": Recipe(base_rate=0.02, batch=4096, epochs=90, frozen=True, trust=0.001),
    "larc": Recipe(base_rate=0.1, batch=4096, epochs=90, frozen=True, trust=0.001),
}

# No published row: chosen once for small images, never on test images, so that nothing is tuned to a data set.
FINETUNE = Recipe(base_rate=0.05, batch=128, epochs=30, frozen=False, weight_decay=5e-4, crop_scale=(0.2, 1.0))


@dataclass(frozen=True)
class Request:
    """What to evaluate: features of ``kinds``, means over ``views``; none for k and T takes those of the run.

    ``linear_paper`` holds recipes by name; ``finetune`` needs images to transfer to; ``flip`` takes the place of that of
    the recipes, none: theirs, but 0 where the run's own views are never flipped; ``baselines`` adds the initial network,
    BatchNorm calibrated, and raw pixels.
    """

    kinds: tuple[Kind, ...] = ("clean",)
    views: int = 16
    k: int | None = None
    temperature: float | None = None
    penalty: float | None = None
    linear_paper: Mapping[str, Recipe] = field(default_factory=dict)
    finetune: Recipe | None = None
    flip: float | None = None
    baselines: bool = True
