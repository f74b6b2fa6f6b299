"""A linear classifier trained by labels on a backbone, frozen as in linear evaluation or trained along: fine-tuning."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from collapse_lab import augment, draws
from collapse_lab.data import Images
from collapse_lab.evaluate import BATCH, clean
from collapse_lab.image_files import Pictures, chunks
from collapse_lab.optimisation import schedule
from collapse_lab.optimizers import LARS
from collapse_lab.recipes import Recipe
from collapse_lab.settings import AugmentConfig


def supervised_accuracy(
    backbone: nn.Module, images: Images, recipe: Recipe, *, size: tuple[int, int], view: int | None, seed: int
) -> float:
    """Fraction of the test images, whole, resized to ``size``, that the classifier of ``fitted`` gets right, in [0, 1].

    That of the last epoch, never of the best. Raises as ``fitted`` does.
    """
    classifier = fitted(backbone, images, recipe, size=size, view=view, seed=seed)
    return _accuracy(classifier, images, size)


def fitted(
    backbone: nn.Module, images: Images, recipe: Recipe, *, size: tuple[int, int], view: int | None, seed: int
) -> nn.Sequential:
    """Backbone and one fc layer (width -> classes) after the last epoch of a recipe.

    ``backbone`` maps images (N, C, H, W) in [0, 1] to features (N, width). The fc layer starts from weights N(0, 0.01),
    bias 0. The loss is the cross-entropy on one fresh random view (side ``view``; none: that of the image) of every
    labelled training image an epoch. Frozen: the backbone stays in eval mode without gradient, and the last batch of an
    epoch may be smaller. Else a copy of it is trained with its BatchNorm in train mode, and images that fill no batch are
    left out of the epoch. Order, views and weights are functions of ``seed``: a CPU with the same number of threads
    repeats the bits. The backbone given keeps its weights and buffers.

    Raises ``ValueError`` where the batch exceeds the images, ``FloatingPointError`` where the weights stop being finite.
    """
    pictures, labels = images.bank
    if not 1 <= recipe.batch <= len(pictures):
        raise ValueError(f"batch: found {recipe.batch}, the bank has {len(pictures)} images: choose 1..{len(pictures)}")
    classifier = _classifier(backbone, pictures, len(images.classes), recipe, size, seed)
    optimizer = _optimizer(classifier, recipe)
    config = AugmentConfig(size=view, crop_scale=recipe.crop_scale, flip=recipe.flip)
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe) * schedule(epoch, recipe.epochs, 0)
        for samples in _batches(len(pictures), recipe, seed, epoch):
            index = samples.to(pictures.device)
            (views,) = augment.views(pictures[index], samples, config, seed=seed, epoch=epoch, views=(0,))
            _step(classifier, optimizer, views, labels[index], recipe.frozen)
        if not all(weight.isfinite().all() for weight in classifier.parameters()):
            raise FloatingPointError(f"the weights stopped being finite in epoch {epoch + 1}; lower the rate")
    return classifier.eval()


def rate(recipe: Recipe) -> float:
    """The learning rate of the first epoch: base rate x batch / 256.

    >>> from collapse_lab.recipes import LINEAR
    >>> rate(LINEAR["lars"])
    0.32
    """
    return recipe.base_rate * recipe.batch / 256


def _classifier(
    backbone: nn.Module, pictures: Pictures, classes: int, recipe: Recipe, size: tuple[int, int], seed: int
) -> nn.Sequential:
    body = backbone if recipe.frozen else copy.deepcopy(backbone).requires_grad_()
    with torch.no_grad():
        width = body.eval()(clean(pictures[:1], size)).shape[1]
    # nn.Linear on its own would draw from the global generator.
    head = nn.utils.skip_init(nn.Linear, width, classes)
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(draws.key(seed, 0)))
        head.bias.zero_()
    return nn.Sequential(body, head.to(pictures.device))


def _optimizer(classifier: nn.Sequential, recipe: Recipe) -> torch.optim.Optimizer:
    weights = list((classifier[1] if recipe.frozen else classifier).parameters())
    if recipe.trust is not None:
        return LARS(
            weights, rate(recipe), momentum=recipe.momentum, weight_decay=recipe.weight_decay, trust=recipe.trust
        )
    return torch.optim.SGD(weights, rate(recipe), momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _batches(count: int, recipe: Recipe, seed: int, epoch: int) -> tuple[Tensor, ...]:
    order = draws.permutation(seed, epoch, count)
    if not recipe.frozen:
        # BatchNorm in train mode depends on the size of its batch, and fails on one of a single value.
        order = order[: count - count % recipe.batch]
    batches: tuple[Tensor, ...] = order.split(recipe.batch)
    return batches


def _step(
    classifier: nn.Sequential, optimizer: torch.optim.Optimizer, views: Tensor, labels: Tensor, frozen: bool
) -> None:
    backbone, head = classifier
    backbone.train(not frozen)
    with torch.set_grad_enabled(not frozen):
        # In eval mode an image's features do not depend on its batch, which may be 4,096.
        features = torch.cat([backbone(part) for part in views.split(BATCH if frozen else len(views))])
    optimizer.zero_grad(set_to_none=True)
    cross_entropy(head(features), labels).backward()
    optimizer.step()


@torch.no_grad()
def _accuracy(classifier: nn.Sequential, images: Images, size: tuple[int, int]) -> float:
    right = [
        (classifier(clean(chunk, size)).argmax(1) == labels).sum()
        for chunk, labels in zip(chunks(images.test, BATCH), images.test_labels.split(BATCH), strict=True)
    ]
    return float(torch.stack(right).sum()) / len(images.test)
