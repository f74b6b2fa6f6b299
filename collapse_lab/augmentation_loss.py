"""The blog's three losses without predictor on a network itself: is it their size or their variance that fails?

Su (2020), equations 7 to 10, with f the encoder's output as the loss compares it and eta = E_T[f(T x)]:

    (8) E|f(T x) - eta|^2        (9) E|f(T1 x) - f(T2 x)|^2        (10) E|f(T x) - f(xbar)|^2, xbar = E_T[T x].

Exactly, (9) = 2 x (8), in value and in gradient. That (10) is near (8) rests on eta = f(xbar), to first order in T x - x.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from collapse_lab.expectation import Halves, comparison, half_means, numbered_views
from collapse_lab.image_files import Pictures
from collapse_lab.networks import Encoder
from collapse_lab.settings import Config

EQUATIONS = ("eq8", "eq9", "eq10")


class GradientMoments(NamedTuple):
    """Of E gradients over draws, one a loss: inner products (E, E) of their means, and traces (E,) of their covariances."""

    products: Tensor
    variances: Tensor


class Fixed(NamedTuple):
    """What does not depend on the draw: eta (two means over views) and f(xbar), (N, D)."""

    eta: Halves
    centre: Tensor


def draw_losses(first: Tensor, second: Tensor, fixed: Fixed) -> Tensor:
    """(3,): what one draw of views says of equations (8), (9), (10), each a mean over N images and unbiased.

    ``first`` and ``second`` (N, D) are f(T1 x) and f(T2 x), independent of ``fixed``; (8) and (10) use the first.
    (8) is the mean of <f - A, f - B>, in which the noise of finitely many views does not count; so with gradients through
    all four its gradient is unbiased too. Single draws of (8) can be negative; expectations lie in [0, infinity), for unit
    rows (8) in [0, 1], (9) in [0, 2], (10) in [0, 4]; complete collapse: all 0.

    >>> first, second = torch.tensor([[1.0]]), torch.tensor([[-1.0]])
    >>> draw_losses(first, second, Fixed(Halves(torch.zeros(1, 1), torch.zeros(1, 1)), torch.zeros(1, 1))).tolist()
    [1.0, 4.0, 1.0]
    """
    a, b = fixed.eta
    rows = ((first - a) * (first - b), (first - second).square(), (first - fixed.centre).square())
    return torch.stack([row.sum(-1).mean() for row in rows])


def first_order_error(fixed: Fixed) -> Tensor:
    """E|eta - f(xbar)|^2, a scalar, unbiased: the mean of <f(xbar) - A, f(xbar) - B>; 0 where f is linear.

    Beside (8), the spread of f(T x) around eta, it says how good eta = f(xbar) is. The views of xbar are to be others than
    those of eta. Range in expectation [0, infinity), at most 4 for unit rows; complete collapse: 0. Su (2020).
    """
    return ((fixed.centre - fixed.eta.a) * (fixed.centre - fixed.eta.b)).sum(-1).mean()


def gradient_moments(draws: Iterable[Tensor]) -> GradientMoments:
    """Moments of gradients, (E, P) a draw, of independent draws; without the upward bias of their noise.

    ``products`` (E, E) are means of products of the means over even and over odd draws: estimates of <E g_i, E g_j>, whose
    diagonal is |E g|^2 and can come out negative where noise drowns it. ``variances`` (E,) are tr Cov g, ddof 1. float64; only
    sums are kept. Raises ``ValueError`` for an odd number of draws or fewer than 2.

    >>> found = gradient_moments([torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])])
    >>> found.products.tolist(), found.variances.tolist()
    ([[3.0]], [2.0])
    """
    sums: list[Tensor] = []
    squares: Tensor | None = None
    count = 0
    for gradients in draws:
        doubled = gradients.double()
        if count < 2:
            sums.append(doubled.clone())
        else:
            sums[count % 2] += doubled
        norms = doubled.square().sum(1)
        squares = norms if squares is None else squares + norms
        count += 1
    if squares is None or count % 2:
        raise ValueError(f"draws: found {count}; two equal halves need an even number, 2 or more")
    even, odd = (total / (count / 2) for total in sums)
    mean = (even + odd) / 2
    products = (even @ odd.T + odd @ even.T) / 2
    return GradientMoments(products, (squares - count * mean.square().sum(1)) / (count - 1))


def augmentation_losses(
    encoder: Encoder, images: Pictures, config: Config, *, views: int, draws: int, count: int, batch_statistics: bool
) -> dict[str, float]:
    """Equations (8), (9), (10) on an encoder, over ``count`` evenly spaced ones of the uint8 images (N, C, H, W).

    For EQ in eq8, eq9, eq10: ``EQ_loss``, its mean over draws; ``EQ_loss_noise``, std over draws / mean; ``EQ_gradient``,
    the norm of the mean gradient by the encoder's weights; ``EQ_gradient_variance``, the trace of its covariance over draws
    of T, images the same; ``EQ_gradient_noise``, sqrt(variance) / norm, which no learning rate changes and which falls with
    1 / sqrt(count). ``cosine_EQ_EQ`` is that of two mean gradients, corrected for noise, so that it can end a little above
    1. ``first_order_error``: see there. What the draws cannot tell from 0 / 0 is left out.

    eta are ``views`` views in two halves, xbar is the mean of ``views`` others, each draw has two more; the gradient of (8)
    goes through eta too, as in the equation, and the noise in eta raises its variance, for linear f by a share of
    2 / ``views``. f is z / |z|, under mse z, under cross-entropy its softmax. With BatchNorm's running statistics f is a
    function of one image, as in the equations, and a network that has not trained is to be calibrated first; with
    ``batch_statistics``, those of the ``count`` images of each view and of xbar, it is what training sees. The encoder is left
    as it is. Raises ``ValueError`` where views or draws are odd or below 2.
    """
    f, view = comparison(config.objective.loss).f, numbered_views(images, config, count)
    copied = copy.deepcopy(encoder).train(batch_statistics)

    def output(number: int) -> Tensor:
        return f(copied(view(number)))

    centre = torch.stack([view(number) for number in range(views, 2 * views)]).mean(0)
    fixed = Fixed(half_means(output, views), f(copied(centre)))
    losses: list[Tensor] = []

    def gradients(number: int) -> Tensor:
        drawn = draw_losses(output(number), output(number + 1), fixed)
        losses.append(drawn.detach())
        return _gradients(drawn, copied)

    moments = gradient_moments(map(gradients, range(2 * views, 2 * (views + draws), 2)))
    found = _named(torch.stack(losses), moments)
    return {**found, "first_order_error": float(first_order_error(fixed).detach())}


def _gradients(losses: Tensor, encoder: Encoder) -> Tensor:
    """The gradient of each of the E losses by all weights that learn, (E, P); the graph is kept."""
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    rows = [torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True) for loss in losses]
    return torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])


def _named(losses: Tensor, moments: GradientMoments) -> dict[str, float]:
    """The measures of (draws, E) losses and of their gradients' moments by name, those that are finite."""
    norms, mean = moments.products.diagonal().sqrt(), losses.mean(0)
    columns: dict[str, Callable[[int], Tensor]] = {
        "loss": lambda i: mean[i],
        "loss_noise": lambda i: losses[:, i].std() / mean[i],
        "gradient": lambda i: norms[i],
        "gradient_variance": lambda i: moments.variances[i],
        "gradient_noise": lambda i: moments.variances[i].sqrt() / norms[i],
    }
    found = {f"{name}_{what}": float(value(i)) for i, name in enumerate(EQUATIONS) for what, value in columns.items()}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        cosine = float(moments.products[i, j] / (norms[i] * norms[j]))
        found[f"cosine_{EQUATIONS[i]}_{EQUATIONS[j]}"] = cosine
    return {name: value for name, value in found.items() if torch.tensor(value).isfinite()}
