"""The one rule behind every vector field: the loss reads the encoder in two slots, and a variant keeps some of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from collapse_lab.errors import InputError

Array = NDArray[np.float64]


class Slots(NamedTuple):
    """The slots through which the encoder's gradient flows, as factors 0 or 1."""

    prediction: float
    target: float


class SlotGradient(NamedTuple):
    """Gradients of one loss: of the predictor, of the encoder in the prediction, of the encoder in the target."""

    predictor: Array
    prediction: Array
    target: Array


VARIANTS: Mapping[str, Slots] = MappingProxyType(
    {"stop-gradient": Slots(1.0, 0.0), "both-terms": Slots(1.0, 1.0), "second-term-only": Slots(0.0, 1.0)}
)


def slots_of(variant: str) -> Slots:
    """The slots that a variant keeps; raises ``InputError`` for a name that is none of ``VARIANTS``.

    >>> slots_of("stop-gradient")
    Slots(prediction=1.0, target=0.0)
    """
    if variant not in VARIANTS:
        close = difflib.get_close_matches(variant, VARIANTS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise InputError(f"variant: found '{variant}', allowed are {', '.join(VARIANTS)}{hint}")
    return VARIANTS[variant]


def velocity(gradient: SlotGradient, variant: str, rate: Array | float = 1.0) -> tuple[Array, Array]:
    """Gradient flow of predictor and encoder: ``-rate * g.predictor`` and minus the sum of the slots that are kept.

    The predictor learns by the same equation in every variant; ``rate`` is its learning rate over the encoder's.
    Arrays have any shape, the encoder's two gradients the same one.
    """
    keep = slots_of(variant)
    return -rate * gradient.predictor, -(keep.prediction * gradient.prediction + keep.target * gradient.target)
