"""Does the predictor fill in the expectation over augmentations? How far h(z) is from eta = E_T[f(T x)], along a run.

Chen & He (2020, section 5.1) suppose that it does. f is the encoder's output as the loss compares it. eta is estimated by two
means A and B over views of their own, so that the noise of finitely many views cancels instead of reading as distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor
from torch.nn.functional import normalize

from collapse_lab import augment
from collapse_lab.data import Images
from collapse_lab.evaluate import Value
from collapse_lab.geometry import unit_rows
from collapse_lab.image_files import Pictures
from collapse_lab.objective import Objective
from collapse_lab.settings import Config

MOST_IMAGES = 512
# Training counts its epochs from 1.
NO_EPOCH = 0
PENALTIES = np.logspace(-6, 2, 17)


class Halves(NamedTuple):
    """Means over views of f(T x), (N, D) float64 each, from two disjoint sets of views of the same N images."""

    a: Tensor
    b: Tensor


class Comparison(NamedTuple):
    """How a loss reads an output: f, a differentiable function of (..., D), and the distance that belongs to it."""

    f: Callable[[Tensor], Tensor]
    gaps: Callable[[Tensor, Halves], Tensor]


def squared_gaps(guess: Tensor, eta: Halves) -> Tensor:
    """Per image <c - A, c - B>, an unbiased estimate of |c - eta|^2 for a guess c that is independent of A and B.

    guess (N, D) of any floating dtype, as it is. Returns (N,) float64. In expectation in [0, inf), 0 where c = eta; single
    rows may be negative, as the noise of A and B is not squared. The mean over images has the standard error std / sqrt(N).
    Raises ``ValueError`` where shapes differ.

    >>> eta = Halves(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    >>> squared_gaps(torch.tensor([[0.5, 0.5]]), eta).tolist()
    [-0.5]
    """
    c = _fitting(guess, eta)
    return ((c - eta.a) * (c - eta.b)).sum(1)


def direction_gaps(guess: Tensor, eta: Halves) -> Tensor:
    """Per image <A, B> - (u.A)(u.B), u = c / |c|: an unbiased estimate of |eta|^2 sin^2 of the angle between c and eta.

    It is the squared distance from eta to the nearest multiple of the guess c, which is all that a cosine loss can ask for: a
    loss of -u.eta exceeds its least, -|eta|, by about gap / (2 |eta|). guess (N, D), any floating dtype, independent of A and
    B. Returns (N,) float64; in expectation in [0, 1] for unit f, 0 where c points along eta (or against it: see
    ``cosines``), |eta|^2 where it is orthogonal or zero. Raises ``ValueError`` where shapes differ.

    >>> one = torch.tensor([[0.6, 0.8]])
    >>> round(direction_gaps(torch.tensor([[2.0, 0.0]]), Halves(one, one)).item(), 6)
    0.64
    """
    u = unit_rows(_fitting(guess, eta))
    return (eta.a * eta.b).sum(1) - (u * eta.a).sum(1) * (u * eta.b).sum(1)


def cosines(guess: Tensor, eta: Halves) -> Tensor:
    """Per image the cosine of the guess (N, D) and (A + B) / 2; (N,) float64 in [-1, 1], 0 where either is zero.

    Not corrected for the noise of the mean over K views, which lowers it by a factor of about
    1 - (E|f|^2 - |eta|^2) / (2 K |eta|^2). Complete collapse reads 1 whatever the guess. Raises ``ValueError`` where shapes
    differ.

    >>> one = torch.tensor([[0.6, 0.8]])
    >>> round(cosines(torch.tensor([[-2.0, 0.0]]), Halves(one, one)).item(), 6)
    -0.6
    """
    return (unit_rows(_fitting(guess, eta)) * unit_rows((eta.a + eta.b) / 2)).sum(1)


UNIT = Comparison(lambda output: normalize(output.double(), dim=-1), direction_gaps)
# Every other loss compares directions.
COMPARISONS: Mapping[str, Comparison] = {
    "mse": Comparison(lambda output: output.double(), squared_gaps),
    "cross-entropy": Comparison(lambda output: output.double().softmax(-1), squared_gaps),
}


def comparison(loss: str) -> Comparison:
    """How the loss of that name reads outputs: mse as they are, cross-entropy by their softmax, others by their direction."""
    return COMPARISONS.get(loss, UNIT)


def fitted(z: Tensor, eta: Halves) -> dict[str, Tensor]:
    """``constant`` and ``linear`` guesses of eta from z (N, D), each image's from a fit on the other half of the images.

    Halves are the even and the odd rows. ``constant`` is the mean of eta; ``linear`` is affine, fitted by ridge with the
    penalty of least leave-one-out error within the fitting half. Both (N, D) float64 on z's device. A constant z makes both
    alike. With N/2 not well above D it is not the best affine map there is, only the best that N/2 images can tell. Raises
    ``ValueError`` where shapes differ or N < 4.

    >>> z = torch.arange(8.0)[:, None]
    >>> fitted(z, Halves(2 * z + 1, 2 * z + 1))["linear"].flatten().round(decimals=3).tolist()
    [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]
    """
    rows = _fitting(z, eta).cpu().numpy()
    if len(rows) < 4:
        raise ValueError(f"z: found {len(rows)} rows; a fit on half of them needs at least 4")
    target = ((eta.a + eta.b) / 2).cpu().numpy()
    constant, linear = np.empty_like(target), np.empty_like(target)
    for fit, score in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        mean, spread = rows[fit].mean(0), rows[fit].std(0)
        scale = float(np.sqrt(np.square(spread).mean())) or 1.0
        constant[score] = target[fit].mean(0)
        model = RidgeCV(alphas=PENALTIES * len(rows[fit]))
        model.fit((rows[fit] - mean) / scale, target[fit])
        linear[score] = model.predict((rows[score] - mean) / scale).reshape(target[score].shape)
    return {name: torch.from_numpy(guess).to(z.device) for name, guess in (("constant", constant), ("linear", linear))}


@torch.no_grad()
def expectation_values(objective: Objective, images: Images, config: Config, views: int) -> list[Value]:
    """How far four guesses, made from one fresh view x1, are from eta on up to 512 test images; eval mode.

    ``expectation_gap_NAME`` is the mean of ``direction_gaps`` of f(z) = z / |z|, or of ``squared_gaps`` under mse (f(z) = z)
    and cross-entropy (softmax); ``expectation_cosine_NAME`` that of ``cosines``. NAME is ``predictor``, h(z1); ``identity``,
    z1 itself: no predictor; ``linear`` and ``constant``: see ``fitted``. ``expectation_energy`` is E|eta|^2;
    ``expectation_floor`` is E|A - B|^2, four times the noise that would add to a squared gap were it not cancelled.

    A gap means something against that of the constant: the predictor fills in the expectation where its gap is far below
    identity's, a matrix would have done as well where linear's is no larger, and where constant's is near 0 eta no longer
    depends on the image: complete collapse reads 0 in all four. h(z1) knows x through z1 alone, so no guess reaches 0.

    K = ``views`` in two halves, numbered with x1 by ``numbered_views``, so every epoch of a run is read with the same ones.
    BatchNorm uses its running statistics, so a network that has not trained is to be calibrated first. Raises ``ValueError``
    where K is odd or below 2, ``FloatingPointError`` where an output is not finite. Chen & He (2020), section 5.1.
    """
    compared = comparison(config.objective.loss)
    view = numbered_views(images.test, config, MOST_IMAGES)
    was_training = objective.training
    objective.eval()
    z = objective.encoder(view(views)).float()
    p = objective.predictor(z).float()
    eta = half_means(lambda number: compared.f(objective.encoder(view(number)).float()), views)
    objective.train(was_training)
    if not all(tensor.isfinite().all() for tensor in (z, p, *eta)):
        raise FloatingPointError("the outputs for views of the test images were not finite")
    guesses = {"predictor": compared.f(p), "identity": compared.f(z), **fitted(compared.f(z), eta)}
    found = {
        "energy": (eta.a * eta.b).sum(1),
        "floor": (eta.a - eta.b).square().sum(1),
        **{f"gap_{name}": compared.gaps(guess, eta) for name, guess in guesses.items()},
        **{f"cosine_{name}": cosines(guess, eta) for name, guess in guesses.items()},
    }
    return [Value("probe", "predictor", f"expectation_{name}", 0, float(rows.mean())) for name, rows in found.items()]


def half_means(output: Callable[[int], Tensor], views: int) -> Halves:
    """Means of ``output`` (N, D) over the even and over the odd numbers below ``views``, an even number, 2 or more.

    >>> [float(half) for half in half_means(lambda number: torch.tensor(1.0 * number), 4)]
    [1.0, 2.0]
    """
    if views < 2 or views % 2:
        raise ValueError(f"views: found {views}; two equal halves need an even number, 2 or more, such as 64")
    even, odd = (torch.stack([output(number) for number in range(first, views, 2)]).mean(0) for first in (0, 1))
    return Halves(even, odd)


def numbered_views(images: Pictures, config: Config, most: int) -> Callable[[int], Tensor]:
    """A function from a number to that view of min(N, ``most``) evenly spaced ones of the uint8 images (N, C, H, W).

    A view depends on the run's seed, the number and the image alone, and is none of those that training sees.
    """
    chosen = spread(len(images), most)
    pictures = images[chosen.to(images.device)]

    def view(number: int) -> Tensor:
        made = augment.views(pictures, chosen, config.augment, seed=config.train.seed, epoch=NO_EPOCH, views=(number,))
        return made[0]

    return view


def spread(count: int, most: int) -> Tensor:
    """min(count, most) evenly spaced indices below ``count``, int64 on the CPU: of images sorted by class, all classes.

    >>> spread(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()


def _fitting(guess: Tensor, eta: Halves) -> Tensor:
    """The guess in float64; raises ``ValueError`` unless it and both halves are of one shape (N, D)."""
    shapes = [tuple(tensor.shape) for tensor in (guess, *eta)]
    if guess.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(f"guess, A, B: found shapes {shapes}; expected three times the same (N, D)")
    return guess.double()
