"""Momentum eta without a predictor: each image's target is a moving average of its own outputs.

A visit moves an image's memory by ``eta <- m eta + (1 - m) z``; images are visited once per epoch in random order, so
the mean memory follows ``d eta / dt = beta (E z - eta)``, ``beta = (1 - m) / epoch``, with t in units of one over the
learning rate and ``epoch`` the gradient time of one pass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.errors import InputError
from collapse_lab.toy.cosine import checked_agreement
from collapse_lab.toy.flow import Trajectory, checked_start, integrate
from collapse_lab.toy.rule import Array


def memory_rate(momentum: float, epoch: float) -> float:
    """beta; raises ``InputError`` unless ``0 <= m <= 1`` and ``0.001 <= epoch <= 10000``."""
    if not 0 <= momentum <= 1:
        raise InputError(f"momentum: found {momentum}, must lie in [0, 1]")
    if not 1e-3 <= epoch <= 1e4:
        raise InputError(f"epoch: found {epoch}, the gradient time of an epoch must lie in [0.001, 10000]")
    return (1 - momentum) / epoch


def scalar_matrix(noise2: float, beta: float) -> Array:
    """The generator of (theta, eta) with the squared loss: ``[[-(1 + s2), 1], [beta, -beta]]``.

    Its determinant is ``beta s2``: with noise both decay, however slowly. Raises ``InputError`` for a negative beta.

    >>> np.linalg.eigvals(scalar_matrix(0.5, 0.1)).max().round(6).item()
    -0.031885
    """
    if not 0 <= beta < np.inf:
        raise InputError(f"beta: found {beta}, must be finite and not negative")
    return np.array([[-(1 + noise2), 1.0], [beta, -beta]])


def slow_rate(agreement: ArrayLike, beta: ArrayLike) -> Array:
    """The rate at which a mode of agreement r vanishes beside one of agreement 1, under the cosine loss, ``||w|| = 1``.

    Near collapse ``(w_k, eta_k)`` has the generator ``[[-1, rho], [beta rho, -beta]]``; its slow eigenvalue is minus
    ``((1 + beta) - sqrt((1 + beta)^2 - 4 beta (1 - r))) / 2``, about ``beta (1 - r) / (1 + beta)``: positive for every
    m < 1, so momentum delays collapse in proportion to ``1 / (1 - m)`` and does not prevent it.

    >>> slow_rate(0.5, [0.02, 0.1]).round(6).tolist()
    [0.0099, 0.047506]
    """
    r, beta = checked_agreement(agreement), np.asarray(beta, dtype=np.float64)
    return np.asarray(2 * beta * (1 - r) / ((1 + beta) + np.sqrt((1 + beta) ** 2 - 4 * beta * (1 - r))))


def flow(agreement: ArrayLike, encoder: ArrayLike, momentum: float, epoch: float, times: ArrayLike) -> Trajectory:
    """The flow of (eta, w), states (T, 2, M), under the cosine loss and without predictor.

    ``dw_k/dt = rho_k eta_k / (||w|| ||eta||) - (sum_j rho_j w_j eta_j) w_k / (||w||^3 ||eta||)``, which keeps ``||w||``;
    the memory holds normalised outputs and starts at their mean, ``rho * w / ||w||``. The fluctuation of a memory around
    its mean is left out: with many modes it only adds a common constant to ``||eta||^2``.
    """
    rho, beta = np.sqrt(checked_agreement(agreement)), memory_rate(momentum, epoch)
    w = checked_start(encoder)
    start = np.concatenate([rho * w / np.linalg.norm(w), w])

    def field(t: float, y: Array) -> Array:
        eta, w = y.reshape(2, -1)
        norm, pull = np.linalg.norm(w), rho * eta / np.linalg.norm(eta)
        dw = pull / norm - np.dot(pull, w) * w / norm**3
        return np.concatenate([beta * (rho * w / norm - eta), dw])

    # The memory is far slower than the encoder: stiff.
    found = integrate(field, start, times, encoder=slice(w.size, None), method="LSODA", rtol=1e-9, atol=1e-12)
    states = found.states.reshape(-1, 2, w.size)
    return Trajectory(found.times, states, found.collapsed_at, found.converged_at, found.diverged_at)


def time_to_energy(share: float, trajectory: Trajectory) -> float:
    """The first time, interpolated, at which the largest mode holds ``share`` of the energy; infinite if it never does."""
    w = trajectory.states[:, 1]
    most = np.max(w**2, axis=1) / np.sum(w**2, axis=1)
    after = np.flatnonzero(most >= share)
    if not after.size:
        return float("inf")
    last = int(after[0])
    if last == 0:
        return float(trajectory.times[0])
    return float(np.interp(share, most[last - 1 : last + 1], trajectory.times[last - 1 : last + 1]))
