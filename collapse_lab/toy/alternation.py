"""SimSiam as alternation between encoder and eta (Chen and He 2020, section 5), on the scalar toy, in closed form.

A round freezes the target ``eta`` at the current encoder and then minimises over the weights: exactly, or by k steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from collapse_lab.errors import InputError
from collapse_lab.toy.flow import DIVERGED, checked_start
from collapse_lab.toy.rule import Array


def exact_rounds(
    phi: float, theta: float, rounds: int, noise2: float = 0.0, rate: float = 1.0, weight_decay: float = 0.0
) -> Array:
    """theta after 0, 1, ... rounds (rounds + 1,), each solved exactly with the predictor: the flow run to its end.

    The inner flow keeps ``c = phi^2 - a theta^2`` and ends where ``phi theta = theta_t / (1 + s2)``, so
    ``theta_{t+1} sqrt(c + a theta_{t+1}^2) = theta_t / (1 + s2)``. With weight decay e the inner flow ends where
    ``phi^2 = a theta^2``, so ``theta_{t+1}^2 = max(|theta_t| - e / sqrt(a), 0) / ((1 + s2) sqrt(a))``. Needs phi > 0, which
    it then stays; raises ``InputError`` elsewhere.

    >>> exact_rounds(0.6, 0.1, 3).round(6).tolist()
    [0.1, 0.162961, 0.253232, 0.364441]
    """
    checked_start([phi, theta])
    if phi <= 0:
        raise InputError(f"phi: found {phi:g}, the exact inner solution is known for phi above 0")
    if rounds < 0:
        raise InputError(f"rounds: found {rounds}, must not be negative")
    if rate <= 0:
        raise InputError(f"rate: found {rate:g}, the predictor must learn: above 0")
    c, found = phi**2 - rate * theta**2, [theta]
    for _ in range(rounds if weight_decay else 0):
        square = max(abs(found[-1]) - weight_decay / np.sqrt(rate), 0.0) / ((1 + noise2) * np.sqrt(rate))
        found.append(float(np.copysign(np.sqrt(square), theta)))
    for _ in range(0 if weight_decay else rounds):
        wanted = (found[-1] / (1 + noise2)) ** 2
        root = np.sqrt(c**2 + 4 * rate * wanted)
        square = 2 * wanted / (c + root) if c > 0 else (root - c) / (2 * rate)
        found.append(float(np.copysign(np.sqrt(square), theta)))
    return np.array(found)


def contraction(end: tuple[float, float], noise2: float = 0.0, rate: float = 1.0) -> float:
    """The factor by which an exact round brings theta nearer to its limit ``end``: ``phi / (q (phi^2 + a theta^2))``.

    ``q = 1 + s2``, (phi, theta) the limit of phi and theta. Where theta lives phi is ``1 / q``; where it dies
    phi is ``sqrt(c)``, and a round multiplies theta by ``1 / (q sqrt(c))``.

    >>> round(contraction((1.0, 0.806225774829855)), 6)
    0.606061
    """
    phi, theta = end
    return float(phi / ((1 + noise2) * (phi**2 + rate * theta**2)))


def decayed_limit(theta: float, noise2: float, rate: float, weight_decay: float) -> tuple[float, float]:
    """The limit of theta under exact rounds with weight decay e > 0, and the factor by which a round nears it.

    The larger root of ``q sqrt(a) theta^2 - |theta| + e / sqrt(a) = 0``, q = 1 + s2, from starts above the smaller one,
    with factor ``1 / (2 q sqrt(a) |theta|)``; else 0, reached in a finite number of rounds: factor 0. At a = 1 the roots
    are DirectPred's p_+ and p_-.

    >>> [round(x, 8) for x in decayed_limit(0.1, 0.5, 1.0, 0.05)]
    [0.61222001, 0.54446658]
    """
    stiffness = (1 + noise2) * np.sqrt(rate)
    discriminant = 1 - 4 * (1 + noise2) * weight_decay
    if discriminant < 0 or abs(theta) <= (1 - np.sqrt(discriminant)) / (2 * stiffness):
        return 0.0, 0.0
    end = float((1 + np.sqrt(discriminant)) / (2 * stiffness))
    return float(np.copysign(end, theta)), float(1 / (2 * stiffness * end))


def k_step_rounds(
    phi: float,
    theta: float,
    k: int,
    step_size: float,
    steps: int,
    noise2: float = 0.0,
    rate: float = 1.0,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """phi and theta after each of ``steps`` steps of gradient descent (steps + 1,), the target renewed every k steps.

    k = 1 is SimSiam's descent. Where it diverges they are shorter: they end before the step that reaches 1e6.
    """
    if k < 1:
        raise InputError(f"k: found {k}, a round has at least 1 step")
    first = checked_start([phi, theta])
    found, target = np.empty((steps + 1, 2)), float(first[1])
    found[0] = first
    for step in range(steps):
        p, w = found[step].tolist()
        target = w if step % k == 0 else target
        residual = (1 + noise2) * p * w - target
        found[step + 1] = (
            p - step_size * (rate * w * residual + weight_decay * p),
            w - step_size * (p * residual + weight_decay * w),
        )
        if not np.abs(found[step + 1]).max() < DIVERGED:
            found = found[: step + 1]
            break
    return found[:, 0], found[:, 1]


def round_factor(noise2: float, step_size: float = 1.0, k: int | None = None) -> float:
    """What a round without predictor does to theta in expectation: ``1 / q + (1 - lr q)^k (1 - 1 / q)``, ``q = 1 + s2``.

    k None: the exact solution, ``1 / q``. The same for exact eta, one sample and a mean of K, whose expected gradients
    are equal; below 1 wherever there is noise and the steps converge: collapse.

    >>> round(round_factor(0.5), 6), round(round_factor(0.5, 0.1, 10), 6)
    (0.666667, 0.732291)
    """
    q = 1 + noise2
    return 1 / q if k is None else 1 / q + (1 - step_size * q) ** k * (1 - 1 / q)


class GradientMoments(NamedTuple):
    """Mean and variance over draws of one image and its views, of theta's gradient, divided by theta and its square."""

    mean: float
    variance: float


def sampled_eta(noise2: float, samples: int | None) -> GradientMoments:
    """Without predictor, eta the mean of ``samples`` further views (None: the exact eta), Gaussian image and views.

    The gradient is ``theta (n1 - nbar) (x + n1)``: mean ``s2``, variance ``s2 + 2 s2^2 + s2 (1 + s2) / K``. Mean-input,
    the target ``F(xbar)`` of Su 2020 (eq 10), is the exact eta in a linear model.
    """
    more = 0.0 if samples is None else noise2 * (1 + noise2) / samples
    return GradientMoments(noise2, noise2 + 2 * noise2**2 + more)


def plain_siamese(noise2: float) -> GradientMoments:
    """Without predictor and stop-gradient: the gradient is ``theta (n1 - n2)^2``, mean ``2 s2``, variance ``8 s2^2``."""
    return GradientMoments(2 * noise2, 8 * noise2**2)


def mean_input(theta: float, noise2: float, times: Array) -> Array:
    """theta over time under Su's eq 10 without predictor: ``theta exp(-s2 t)``, with and without stop-gradient.

    The target F(xbar) shares no noise with the prediction, and the gradient through it has mean zero: collapse.
    """
    return np.asarray(theta * np.exp(-noise2 * np.asarray(times)))


Draw = Callable[[Array, Array, Array], Array]


def over_draws(gradient: Draw, noise2: float) -> GradientMoments:
    """Mean and variance of ``gradient(x, n1, n2)``, a polynomial up to degree 5, over image and noise of two views.

    By Gauss-Hermite quadrature in each of the three, exact up to rounding: what closed forms are checked with.

    >>> over_draws(lambda x, n1, n2: (n1 - n2) ** 2, 0.5)  # the plain siamese gradient
    GradientMoments(mean=1.0, variance=2.0)
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    x, n1, n2 = np.meshgrid(nodes, np.sqrt(noise2) * nodes, np.sqrt(noise2) * nodes, indexing="ij")
    chance, values = np.einsum("i,j,k->ijk", weights, weights, weights), gradient(x, n1, n2)
    mean = float(np.sum(chance * values))
    return GradientMoments(round(mean, 12), round(float(np.sum(chance * (values - mean) ** 2)), 12))
