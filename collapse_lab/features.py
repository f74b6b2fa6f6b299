"""Which output of an encoder is the feature of an image: of the image, of its mean view, or the mean over its views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from collapse_lab import augment
from collapse_lab.evaluate import BATCH, clean
from collapse_lab.image_files import Pictures
from collapse_lab.networks import Encoder
from collapse_lab.recipes import KINDS, Kind
from collapse_lab.settings import AugmentConfig

Layers = dict[str, Tensor]
Reading = Callable[[Encoder, Tensor], Layers]


class Views(NamedTuple):
    """Which K views a feature is a mean over: how they are drawn, how many, and the key of their draws."""

    config: AugmentConfig
    number: int
    seed: int
    epoch: int = 0


@torch.no_grad()
def features(
    encoder: Encoder, images: Pictures, kinds: Sequence[Kind], size: tuple[int, int], views: Views
) -> dict[Kind, Layers]:
    """Features (N, width), float32, of uint8 images (N, C, H, W) at backbone f and projector, F = projector of f, by kind.

    - ``clean``: F(x), x the whole image resized to ``size`` (height, width);
    - ``mean-input``: F(mean_k T_k x), the output at the mean of K augmented views;
    - ``mean-output``: mean_k F(T_k x), the mean of the outputs, not normalised before or after: an estimate of E_T[F(T x)].

    Both means are over the same K views, which are functions of (``views.seed``, ``views.epoch``, row, number) alone. With
    one view the two are equal; with views that leave the image as it is, all three are. The encoder reads in eval mode
    and is put back as it was. Raises ``ValueError`` for an unknown kind and for fewer than one view, ``FloatingPointError``
    where an output is not finite.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"kinds: found {unknown[0]!r}, expected some of {', '.join(KINDS)}")
    if views.number < 1:
        raise ValueError(f"views: found {views.number}, a mean needs at least 1")
    was_training = encoder.training
    encoder.eval()
    whole = (clean(images[rows], size) for rows in _chunks(images, BATCH))
    found = _gathered(encoder, whole, {"clean": layers} if "clean" in kinds else {})
    readings = {kind: reading for kind, reading in MEANS.items() if kind in kinds}
    found |= _gathered(encoder, _drawn(images, views) if readings else (), readings)
    encoder.train(was_training)
    for kind, outputs in found.items():
        for layer, rows in outputs.items():
            if not rows.isfinite().all():
                raise FloatingPointError(f"{kind} features of the {layer} are not finite; has the run diverged?")
    return {kind: found[kind] for kind in kinds}


def layers(encoder: Encoder, images: Tensor) -> Layers:
    """Backbone and projector outputs (N, width) of images (N, C, H, W) in [0, 1]."""
    at_backbone = encoder.backbone(images)
    return {"backbone": at_backbone.float(), "projector": encoder.projector(at_backbone).float()}


def _mean_input(encoder: Encoder, drawn: Tensor) -> Layers:
    return layers(encoder, drawn.mean(0))


def _mean_output(encoder: Encoder, drawn: Tensor) -> Layers:
    outputs = layers(encoder, drawn.flatten(0, 1))
    return {layer: rows.unflatten(0, drawn.shape[:2]).mean(0) for layer, rows in outputs.items()}


MEANS: dict[Kind, Reading] = {"mean-input": _mean_input, "mean-output": _mean_output}


def _drawn(images: Pictures, views: Views) -> Iterator[Tensor]:
    """Views (K, n, C, S, S) of one chunk of the images after another."""
    for rows in _chunks(images, max(1, BATCH // views.number)):
        yield augment.views(
            images[rows],
            torch.arange(rows.start, rows.stop),
            views.config,
            seed=views.seed,
            epoch=views.epoch,
            views=range(views.number),
        )


def _gathered(encoder: Encoder, chunks: Iterable[Tensor], readings: dict[Kind, Reading]) -> dict[Kind, Layers]:
    parts: dict[Kind, list[Layers]] = {kind: [] for kind in readings}
    if readings:
        for chunk in chunks:
            for kind, reading in readings.items():
                parts[kind].append(reading(encoder, chunk))
    return {
        kind: {layer: torch.cat([part[layer] for part in found]) for layer in found[0]} for kind, found in parts.items()
    }


def _chunks(images: Pictures, count: int) -> Iterator[slice]:
    for first in range(0, len(images), count):
        yield slice(first, min(first + count, len(images)))
