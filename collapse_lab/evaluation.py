"""What the features of a finished run are worth, by every classifier that was asked for, each with its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from collapse_lab import draws
from collapse_lab.classified import Features, Result, classified, pixels
from collapse_lab.data import Images
from collapse_lab.environment import device_name, environment
from collapse_lab.errors import InputError
from collapse_lab.features import Views, features
from collapse_lab.machine import threads
from collapse_lab.networks import Encoder
from collapse_lab.recipes import Kind, Recipe, Request
from collapse_lab.restored import Restored
from collapse_lab.supervised import rate, supervised_accuracy
from collapse_lab.transfer import adapted

# Parts of the key of what an evaluation draws; the initialisation of the networks has 0 and 1.
VIEWS_KEY, LINEAR_KEY, FINETUNE_KEY = 16, 17, 18
BANK, QUERIES = 0, 1


def evaluated(
    run: Restored,
    request: Request,
    transfer: Images | None = None,
    listen: Callable[[Result, float], None] | None = None,
) -> dict[str, Any]:
    """Every result of a request as plain values for JSON, with the run and what computed them; no time is in it.

    ``listen`` is told each result with the seconds that it took. Raises as ``results`` does.
    """
    found = []
    with threads(run.config.train.threads):
        began = time.perf_counter()
        for result in results(run, request, transfer):
            ended = time.perf_counter()
            if listen:
                listen(result, ended - began)
            found.append(result._asdict())
            began = ended
    about = {name: value for name, value in environment().items() if name in ("python", "packages", "commit")}
    return {
        "run": str(run.directory),
        "method": run.config.method,
        "seed": run.config.train.seed,
        **{name: run.status[name] for name in ("state", "verdict")},
        "step": run.step,
        "view_size": list(run.size),
        "device": device_name(run.device),
        "threads": run.config.train.threads,
        **about,
        "transfer": transfer and _adaptation(run, transfer),
        "results": found,
    }


def _adaptation(run: Restored, images: Images) -> dict[str, Any]:
    return {
        "data": images.name,
        "classes": len(images.classes),
        "image": list(images.train.shape[1:]),
        "input": [run.images.train.shape[1], *run.size],
        "adapted": "grey repeated as RGB, RGB to luminance where the encoder is grey; resized bilinearly with antialias",
        "normalised": "channel statistics of the run's own training images",
    }


def results(run: Restored, request: Request, transfer: Images | None = None) -> Iterator[Result]:
    """The results of a request, one after the other: on the run's own images, then on those to transfer to.

    On the run's own images: kNN and linear-fast of every kind of feature at backbone and projector, then the paper's
    linear evaluation. On others, which are adapted to the encoder: clean backbone features, then fine-tuning. Raises
    ``InputError`` for k or a batch above the number of labelled images, fewer than two classes, features that are not
    finite and weights that stop being so.
    """
    other = transfer and adapted(transfer, run.images.train.shape[1], run.size).to(run.device)
    _require_fit(request, run.images, request.linear_paper)
    if other:
        _require_fit(request, other, {"finetune": request.finetune} if request.finetune else {})
    encoders = {"trained": run.encoder} | ({"start": run.start()} if request.baselines else {})
    try:
        yield from _frozen(run, encoders, request, run.images, request.kinds, ("backbone", "projector"))
        if request.baselines:
            yield from pixels(run, request, run.images)
        for name, recipe in request.linear_paper.items():
            yield from _supervised(run, encoders, request, run.images, f"linear-paper-{name}", recipe)
        if other:
            yield from _frozen(run, encoders, request, other, ("clean",), ("backbone",))
        if transfer and request.baselines:
            yield from pixels(run, request, transfer)
        if other and request.finetune:
            yield from _supervised(run, encoders, request, other, "finetune", request.finetune)
    except FloatingPointError as error:
        raise InputError(f"run '{run.directory}': {error}") from None


def _require_fit(request: Request, images: Images, recipes: Mapping[str, Recipe]) -> None:
    bank = len(images.labelled)
    if len(images.classes) < 2:
        raise InputError(f"'{images.name}' has one class, {images.classes[0]}; a classifier needs at least two")
    if request.k is not None and request.k > bank:
        raise InputError(f"--k: found {request.k}, '{images.name}' has only {bank} labelled training images")
    for name, recipe in recipes.items():
        if recipe.batch > bank:
            flag = "--finetune.batch" if name == "finetune" else "--linear.batch"
            raise InputError(
                f"{flag}: found {recipe.batch} for {name}, '{images.name}' has only {bank} labelled training images"
            )


def _frozen(
    run: Restored,
    encoders: Mapping[str, Encoder],
    request: Request,
    images: Images,
    kinds: tuple[Kind, ...],
    layers: tuple[str, ...],
) -> Iterator[Result]:
    """kNN and linear-fast of the features of every network."""
    pictures, _ = images.bank
    for network, encoder in encoders.items():
        sides = []
        for side, split in ((BANK, pictures), (QUERIES, images.test)):
            key = draws.key(run.config.train.seed, VIEWS_KEY)
            views = Views(run.config.augment, request.views, key, side)
            sides.append(features(encoder, split, kinds, run.size, views))
        bank, queries = sides
        for kind in kinds:
            count = None if kind == "clean" else request.views
            for layer in layers:
                shown = (pictures.shape[1], *run.size)
                made = Features(network, layer, kind, count, shown, bank[kind][layer], queries[kind][layer])
                yield from classified(run, request, images, made)


def _supervised(
    run: Restored, encoders: Mapping[str, Encoder], request: Request, images: Images, name: str, recipe: Recipe
) -> Iterator[Result]:
    """The paper's linear evaluation, or fine-tuning, of the backbone of every network."""
    flip = request.flip if request.flip is not None else recipe.flip if run.config.augment.flip else 0.0
    recipe = replace(recipe, flip=flip)
    seed = draws.key(run.config.train.seed, LINEAR_KEY if recipe.frozen else FINETUNE_KEY)
    for network, encoder in encoders.items():
        try:
            value = supervised_accuracy(
                encoder.backbone, images, recipe, size=run.size, view=run.config.augment.size, seed=seed
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"{name} of the {network} network: {error}") from None
        yield Result(images.name, network, "backbone", "augmented views", name, value, _protocol(run, recipe, images))


def _protocol(run: Restored, recipe: Recipe, images: Images) -> dict[str, Any]:
    return {
        "optimizer": "SGD" if recipe.trust is None else "LARS",
        "rate": rate(recipe),
        **asdict(recipe),
        "schedule": "half a cosine, set each epoch",
        "backbone": "eval mode, no gradient" if recipe.frozen else "trained, BatchNorm in train mode",
        "head": "one fc layer, weights N(0, 0.01), bias 0",
        "train_images": len(images.labelled),
        "queries": len(images.test),
        "input": [images.test.shape[1], *run.size],
        "test_images": "whole, resized to the view",
        "accuracy_of": "last epoch",
    }
