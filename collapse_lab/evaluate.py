"""What the features of an encoder are worth: kNN and linear probe on clean images, in eval mode, nothing dropped."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from collapse_lab.collective import processes, uneven_rows
from collapse_lab.data import Images
from collapse_lab.geometry import moments
from collapse_lab.image_files import Pictures, even, pieces, stretches
from collapse_lab.monitors.probes import knn_accuracy, linear_accuracy
from collapse_lab.monitors.statistics import SPECTRUM, STANDARD, Gathered, read
from collapse_lab.networks import Encoder
from collapse_lab.objective import Objective
from collapse_lab.settings import MonitorConfig

BATCH = 512
LARGEST_LINEAR = 4096


class Value(NamedTuple):
    """One evaluated number: ``source`` is eval for statistics of eval-mode outputs, probe for accuracies."""

    source: str
    layer: str
    metric: str
    index: int  # type: ignore[assignment]
    value: float


def evaluate(
    objective: Objective, images: Images, protocol: MonitorConfig, size: tuple[int, int], *, linear: bool
) -> list[Value]:
    """Statistics of the test images' outputs, kNN of backbone and projector, and on request the backbone's linear probe.

    The bank is every labelled training image, the queries are every test image, without augmentation, resized to the
    ``size`` of a view. Of several processes the first has the values, the others none. Accuracies are fractions.
    BatchNorm uses its running statistics, so a network that has not trained is to be calibrated first. Raises
    ``FloatingPointError`` where an output is not finite.
    """
    pictures, labels = images.bank
    bank, queries = (
        outputs(objective, pictures, size, predicted=False),
        outputs(objective, images.test, size),
    )
    answers = images.test_labels
    if not all(features.isfinite().all() for features in (*bank.values(), *queries.values())):
        raise FloatingPointError("the features were not finite")
    if processes()[0]:
        return []
    values = [
        Value("eval", layer, *reading)
        for layer, features in queries.items()
        for reading in read(Gathered(moments(features)), (*STANDARD, SPECTRUM))
    ]
    values += [Value("probe", "", "k", 0, protocol.k), Value("probe", "", "temperature", 0, protocol.temperature)]
    for layer in ("backbone", "projector"):
        accuracy = knn_accuracy(
            bank[layer],
            labels,
            queries[layer],
            answers,
            k=protocol.k,
            temperature=protocol.temperature,
            classes=len(images.classes),
        )
        values.append(Value("probe", layer, "knn", 0, accuracy))
    if linear:
        accuracy = linear_accuracy(bank["backbone"], labels, queries["backbone"], answers)
        values.append(Value("probe", "backbone", "linear", 0, accuracy))
    return values


def pixel_baselines(images: Images, protocol: MonitorConfig) -> dict[str, float | None]:
    """kNN and linear accuracy of raw pixels in [0, 1]: what the data set gives away without any network.

    The linear one is None above 4,096 values an image, where its cost would exceed that of the training, and both are for
    streamed images, whose pixels are not kept.
    """
    pictures, labels = images.bank
    if not isinstance(pictures, Tensor) or not isinstance(images.test, Tensor):
        return {"knn": None, "linear": None}
    bank = pictures.flatten(1).float() / 255
    queries = images.test.flatten(1).float() / 255
    knn = knn_accuracy(
        bank,
        labels,
        queries,
        images.test_labels,
        k=protocol.k,
        temperature=protocol.temperature,
        classes=len(images.classes),
    )
    small = bank.shape[1] <= LARGEST_LINEAR
    return {"knn": knn, "linear": linear_accuracy(bank, labels, queries, images.test_labels) if small else None}


@torch.no_grad()
def outputs(
    objective: Objective, images: Pictures, size: tuple[int, int], *, predicted: bool = True
) -> dict[str, Tensor]:
    """Eval-mode features (N, width) at backbone, projector and predictor of uint8 images (N, C, H, W), float32.

    ``predicted``: with those of the predictor. Of several processes each makes its share, and all get all of them.
    """
    was_training = objective.training
    objective.eval()
    layers = ["backbone", "projector", *(["predictor"] if predicted else [])]
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    rank, count = processes()
    for chunk in stretches(images, pieces(even(len(images), count)[rank], BATCH)):
        features = objective.encoder.backbone(clean(chunk, size))
        z = objective.encoder.projector(features)
        made = [features, z, *([objective.predictor(z)] if predicted else [])]
        for layer, output in zip(parts, made, strict=True):
            parts[layer].append(output.float())
    objective.train(was_training)
    return {layer: uneven_rows(torch.cat(found), len(images)) for layer, found in parts.items()}


def calibrated(objective: Objective, images: Pictures, size: tuple[int, int]) -> Objective:
    """A copy whose BatchNorm statistics are the averages over all of the uint8 images (N, C, H, W), which are not trained on.

    A network fresh from its initialisation has running mean 0 and variance 1, which make its eval-mode output look
    collapsed; its features are to be judged with the statistics of the data.
    """
    # What the target keeps, an eta for every image, is not needed twice.
    copied = copy.deepcopy(objective, {id(objective.target): objective.target})
    _calibrate(nn.Sequential(copied.encoder, copied.predictor), images, size)
    return copied


def calibrated_encoder(encoder: Encoder, images: Pictures, size: tuple[int, int]) -> Encoder:
    """A copy of an encoder alone with its BatchNorm statistics taken from the images, as in ``calibrated``."""
    copied = copy.deepcopy(encoder)
    _calibrate(copied, images, size)
    return copied


@torch.no_grad()
def _calibrate(network: nn.Module, images: Pictures, size: tuple[int, int]) -> None:
    network.train()
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    # Chunks of equal size have equal weight in the average.
    for chunk in _everywhere(images, even(len(images), math.ceil(len(images) / BATCH))):
        network(clean(chunk, size))
    # A copy that is trained on would otherwise average over all of its training.
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _everywhere(images: Pictures, rows: Sequence[slice]) -> Iterator[Tensor]:
    """The images of one slice after the other, the same in all processes, each of which decodes its part of the files."""
    rank, count = processes()
    if isinstance(images, Tensor) or count == 1:
        return stretches(images, rows)
    lengths = [each.stop - each.start for each in rows]
    parts = [even(length, count)[rank] for length in lengths]
    mine = [slice(each.start + part.start, each.start + part.stop) for each, part in zip(rows, parts, strict=True)]
    return (uneven_rows(*found) for found in zip(stretches(images, mine), lengths, strict=True))


def clean(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images (N, C, H, W) as float32 in [0, 1], resized to ``size`` (height, width) where they are not."""
    scaled = images.float() / 255
    if images.shape[2:] == size:
        return scaled
    return interpolate(scaled, size, mode="bilinear", antialias=True)
