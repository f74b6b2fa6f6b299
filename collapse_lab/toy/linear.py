"""DirectPred's linear networks: encoder W, predictor W_p and EMA target W_a as matrices under the slot rule.

Tian, Chen and Ganguli 2021 (2102.06810): ``J = E ||W_p W x1 - W_a x2||^2 / 2`` with ``X = E[xbar xbar^T]`` and
``X' = E Cov(x' | x)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from collapse_lab.errors import InputError
from collapse_lab.toy.flow import check_numbers, checked_start, checked_times, integrate
from collapse_lab.toy.rule import Array, SlotGradient, slots_of, velocity

STIFF = 1e5


class Weights(NamedTuple):
    """Encoder (D, C), predictor (D, D) and target (D, C); over time each has a leading axis T."""

    encoder: Array
    predictor: Array
    target: Array


@dataclass(frozen=True)
class Linear:
    """What decides the field. ``data`` X and ``augmentation`` X' are (C, C).

    ``rate`` a_p; ``weight_decay`` e; ``ema_rate`` b, None for SimSiam, whose target is the encoder; ``symmetric``
    symmetrises the predictor's flow, as the paper's theory does; ``predictor_of`` maps ``F = W X W^T`` to the predictor
    and takes the place of training it. Raises ``InputError`` for shapes that do not fit, negative numbers, and an EMA
    target whose gradient is asked for.
    """

    data: Array
    augmentation: Array
    variant: str = "stop-gradient"
    rate: float = 1.0
    weight_decay: float = 0.0
    ema_rate: float | None = None
    symmetric: bool = False
    predictor_of: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.data.shape != self.augmentation.shape or self.data.ndim != 2:
            raise InputError(
                f"data and augmentation: found {self.data.shape} and {self.augmentation.shape}, need (C, C)"
            )
        if slots_of(self.variant).target and self.ema_rate is not None:
            raise InputError(f"ema_rate: found {self.ema_rate} with '{self.variant}'; an EMA target passes no gradient")
        check_numbers(rate=self.rate, weight_decay=self.weight_decay, ema_rate=self.ema_rate or 0.0)


@dataclass(frozen=True)
class LinearTrajectory:
    """Weights over ``times`` (T,), with the times of the events as in ``flow.Trajectory``."""

    times: Array
    weights: Weights
    collapsed_at: float
    converged_at: float
    diverged_at: float


def slot_loss(system: Linear, weights: Weights) -> float:
    """``E ||W_p W x1 - W_a x2||^2 / 2`` with the encoder in the prediction slot and the target in the other."""
    second = system.data + system.augmentation
    prediction = weights.predictor @ weights.encoder
    own = np.trace(prediction @ second @ prediction.T) + np.trace(weights.target @ second @ weights.target.T)
    return float(own / 2 - np.trace(prediction @ system.data @ weights.target.T))


def slot_gradient(system: Linear, weights: Weights) -> SlotGradient:
    """The gradients of ``slot_loss``: predictor (D, D), encoder in the prediction and in the target slot (D, C)."""
    second = system.data + system.augmentation
    predictor, encoder, target = weights.predictor, weights.encoder, weights.target
    residual = predictor @ encoder @ second - target @ system.data
    return SlotGradient(
        residual @ encoder.T, predictor.T @ residual, target @ second - predictor @ encoder @ system.data
    )


def field(system: Linear, weights: Weights) -> Weights:
    """The velocity of encoder, predictor and target; the predictor's is 0 where ``predictor_of`` sets it."""
    encoder, predictor, target = weights
    dpredictor, dencoder = velocity(slot_gradient(system, weights), system.variant, system.rate)
    if system.symmetric:
        dpredictor = (dpredictor + dpredictor.T) / 2
    moved = dpredictor - system.weight_decay * predictor
    dpredictor = moved if system.predictor_of is None else np.zeros_like(predictor)
    dencoder = dencoder - system.weight_decay * encoder
    return Weights(dencoder, dpredictor, dencoder if system.ema_rate is None else system.ema_rate * (encoder - target))


def flow(
    system: Linear, encoder: ArrayLike, predictor: ArrayLike, times: ArrayLike, target: ArrayLike | None = None
) -> LinearTrajectory:
    """The flow from encoder (D, C), predictor (D, D) and, under EMA, target (D, C), at ``times`` (T,).

    The predictor's start is not used where ``predictor_of`` sets it. Raises ``InputError`` for starts that are not
    finite or do not fit.
    """
    first, head = checked_start(encoder), checked_start(predictor)
    if first.ndim != 2 or first.shape[1] != len(system.data) or head.shape != (len(first),) * 2:
        raise InputError(
            f"encoder and predictor: found {first.shape} and {head.shape}, need (D, {len(system.data)}) and (D, D)"
        )
    memory = first if target is None else checked_start(target)
    start = np.concatenate([first.ravel(), head.ravel(), memory.ravel()])

    def rate(t: float, y: Array) -> Array:
        moved = field(system, _unpacked(system, y[None], first.shape, single=True))
        return np.concatenate([part.ravel() for part in moved])

    fastest = (1 + system.rate) * max(1.0, float(np.sum(first**2)) + float(np.sum(head**2)))
    method: Literal["LSODA", "DOP853"] = "LSODA" if fastest * checked_times(times)[-1] > STIFF else "DOP853"
    found = integrate(rate, start, times, encoder=slice(0, first.size), method=method, rtol=1e-11, atol=1e-13)
    weights = _unpacked(system, found.states, first.shape)
    events = (float(at) for at in (found.collapsed_at, found.converged_at, found.diverged_at))
    return LinearTrajectory(found.times, weights, *events)


def _unpacked(system: Linear, states: Array, shape: tuple[int, int], single: bool = False) -> Weights:
    """States (T, n) as weights; the parts that are functions of the encoder are computed from it."""
    rows, size = shape[0], shape[0] * shape[1]
    encoder = states[:, :size].reshape(-1, *shape)
    predictor = states[:, size : size + rows**2].reshape(-1, rows, rows)
    if system.predictor_of is not None:
        predictor = np.stack([system.predictor_of(each) for each in correlation(system, encoder)])
    target = encoder if system.ema_rate is None else states[:, size + rows**2 :].reshape(-1, *shape)
    weights = Weights(encoder, predictor, target)
    return Weights(*(part[0] for part in weights)) if single else weights


def correlation(system: Linear, encoder: Array) -> Array:
    """``F = W X W^T``, (..., D, D): the uncentred second moment of the representation without augmentation."""
    return np.asarray(encoder @ system.data @ np.swapaxes(encoder, -1, -2))


def direct_pred(epsilon: float = 0.1) -> Callable[[Array], Array]:
    """DirectPred: ``W_p = U diag(sqrt(s_j) + epsilon max_j s_j) U^T`` from the eigenpairs (s, U) of F."""

    def predictor_of(correlation: Array) -> Array:
        values, vectors = np.linalg.eigh(correlation)
        values = np.maximum(values, 0.0)
        return np.asarray((vectors * (np.sqrt(values) + epsilon * values.max())) @ vectors.T)

    return predictor_of


def direct_copy(epsilon: float = 0.1) -> Callable[[Array], Array]:
    """DirectCopy (Wang, Chen, Du and Tian 2021, 2110.04947): ``W_p = F + epsilon I``, without an eigendecomposition."""

    def predictor_of(correlation: Array) -> Array:
        return correlation + epsilon * np.eye(len(correlation))

    return predictor_of
