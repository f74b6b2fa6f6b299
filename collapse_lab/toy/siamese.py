"""Without a predictor, exact eta, sampled eta and the plain siamese loss share one expected gradient: on a small MLP.

``F(x) = B tanh(A x)`` with a finite set of views per image, so that every expectation is a finite sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from collapse_lab.toy.rule import Array


class Mlp(NamedTuple):
    """A (H, C) and B (D, H)."""

    first: Array
    second: Array


def outputs(network: Mlp, views: Array) -> Array:
    """F of views (N, T, C): (N, T, D)."""
    return np.asarray(np.tanh(views @ network.first.T) @ network.second.T)


def pulled_back(network: Mlp, views: Array, slope: Array) -> Array:
    """The gradient of the weights, flat, from the loss's gradient ``slope`` (N, T, D) of the outputs."""
    hidden = np.tanh(views @ network.first.T)
    inner = (slope @ network.second) * (1 - hidden**2)
    second, first = np.einsum("ntd,nth->dh", slope, hidden), np.einsum("nth,ntc->hc", inner, views)
    return np.concatenate([first.ravel(), second.ravel()])


def exact_eta(network: Mlp, views: Array) -> Array:
    """The gradient of ``E ||F(T x) - eta||^2`` at ``eta = E_T F(T x)``, held fixed."""
    z = outputs(network, views)
    return pulled_back(network, views, 2 * (z - z.mean(axis=1, keepdims=True)) / z[..., 0].size)


def profile(network: Mlp, views: Array) -> Array:
    """The gradient of ``E ||F - E_T F||^2`` through F and through its mean."""
    z = outputs(network, views)
    residual = z - z.mean(axis=1, keepdims=True)
    return pulled_back(network, views, 2 * (residual - residual.mean(axis=1, keepdims=True)) / z[..., 0].size)


def sampled_eta(network: Mlp, views: Array) -> Array:
    """The mean over all pairs of views of the gradient of ``||F(T x) - F(T' x)||^2`` with the second held fixed."""
    return _over_pairs(network, views, both=False)


def plain_siamese(network: Mlp, views: Array) -> Array:
    """The same through both views: no stop-gradient."""
    return _over_pairs(network, views, both=True)


def _over_pairs(network: Mlp, views: Array, both: bool) -> Array:
    z, count = outputs(network, views), views.shape[1]
    total = np.zeros(network.first.size + network.second.size)
    for one in range(count):
        for other in range(count):
            difference = 2 * (z[:, [one]] - z[:, [other]]) / (len(views) * count**2)
            total += pulled_back(network, views[:, [one]], difference)
            if both:
                total -= pulled_back(network, views[:, [other]], difference)
    return total


def drawn(
    seed: int, images: int = 12, views: int = 6, channels: int = 5, hidden: int = 16, dim: int = 4
) -> tuple[Mlp, Array]:
    """A network and views (images, views, channels) from a seed: standard normal images, noise of variance 1/4."""
    generator = np.random.default_rng(seed)
    network = Mlp(
        generator.standard_normal((hidden, channels)) / np.sqrt(channels),
        generator.standard_normal((dim, hidden)) / np.sqrt(hidden),
    )
    noise = generator.standard_normal((images, views, channels)) / 2
    return network, generator.standard_normal((images, 1, channels)) + noise
