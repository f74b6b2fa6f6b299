"""What can be read from frozen features, or from raw pixels: kNN and logistic regression, with their protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from collapse_lab.data import Images
from collapse_lab.evaluate import LARGEST_LINEAR
from collapse_lab.monitors.probes import HELD_OUT, PENALTIES, knn_accuracy, linear_accuracy, linear_penalty
from collapse_lab.recipes import Request
from collapse_lab.restored import Restored


class Result(NamedTuple):
    """One accuracy, a fraction of the test images of ``data``, with all that decides it.

    ``network`` is trained, start (the initial weights, BatchNorm calibrated) or pixels; ``classifier`` is knn,
    linear-fast, linear-paper-... or finetune-....
    """

    data: str
    network: str
    layer: str
    feature: str
    classifier: str
    accuracy: float
    protocol: dict[str, Any]


class Features(NamedTuple):
    """Features of one kind at one layer of one network, bank and queries made alike, of images shown as (C, H, W)."""

    network: str
    layer: str
    feature: str
    views: int | None
    shown: tuple[int, ...]
    bank: Tensor
    queries: Tensor


def pixels(run: Restored, request: Request, images: Images) -> Iterator[Result]:
    """kNN and linear-fast of raw pixels in [0, 1], of the size and colours that the images have; not of streamed ones."""
    pictures, _ = images.bank
    if not isinstance(pictures, Tensor) or not isinstance(images.test, Tensor):
        return
    raw = [split.flatten(1).float() / 255 for split in (pictures, images.test)]
    yield from classified(run, request, images, Features("pixels", "-", "clean", None, tuple(pictures.shape[1:]), *raw))


def classified(run: Restored, request: Request, images: Images, made: Features) -> Iterator[Result]:
    """knn, then linear-fast, with all that decides them; raw pixels above 4,096 values have no linear one."""
    _, labels = images.bank
    bank, queries = made.bank, made.queries
    k = request.k or min(run.config.monitor.k, len(bank))
    temperature = request.temperature or run.config.monitor.temperature
    about: dict[str, Any] = {"feature": made.feature, "views": made.views, "width": bank.shape[1], "bank": len(bank)}
    about |= {"queries": len(queries), "input": list(made.shown)}
    place = (images.name, made.network, made.layer, made.feature)
    classes = len(images.classes)
    value = knn_accuracy(bank, labels, queries, images.test_labels, k=k, temperature=temperature, classes=classes)
    yield Result(*place, "knn", value, {**about, "k": k, "temperature": temperature, "similarity": "cosine"})
    if made.network == "pixels" and bank.shape[1] > LARGEST_LINEAR:
        return
    penalty = request.penalty or linear_penalty(bank, labels)
    value = linear_accuracy(bank, labels, queries, images.test_labels, penalty=penalty)
    chosen = (
        "given" if request.penalty else f"best of {', '.join(map(str, PENALTIES))} on every {HELD_OUT}th training row"
    )
    fit = {"fit": "multinomial logistic regression, L-BFGS to the optimum", "standardised": True}
    yield Result(*place, "linear-fast", value, {**about, "penalty": penalty, "penalty_is": chosen, **fit})
