"""The named methods: sets of configuration overrides, one row each; nothing in the package asks for a method's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from collapse_lab.config import Overrides
from collapse_lab.errors import InputError


@dataclass(frozen=True)
class Method:
    """One row of the table of methods: the settings that make it, all of them, so that no flag can turn it into another.

    ``paper`` is Chen & He's ImageNet linear accuracy in percent, theirs, never ours.
    """

    overrides: Overrides
    what: str
    source: str
    paper: str | None = None


_SIMSIAM: Overrides = {
    "objective.stop_gradient": "target",
    "network.predictor": "mlp",
    "network.predictor_frozen": False,
}

METHODS: Mapping[str, Method] = {
    "simsiam": Method(_SIMSIAM, "stop-gradient on the target, MLP predictor", "Chen & He (2020), eq. 4", "67.7 ± 0.1"),
    "no-stop-gradient": Method(
        {**_SIMSIAM, "objective.stop_gradient": "none"},
        "gradient through both branches",
        "Chen & He (2020), Figure 2",
        "0.1",
    ),
    "no-predictor": Method(
        {**_SIMSIAM, "network.predictor": "identity"}, "h is the identity", "Chen & He (2020), Table 1 (a)", "0.1"
    ),
    "fixed-predictor": Method(
        {**_SIMSIAM, "network.predictor_frozen": True}, "h stays as initialised", "Chen & He (2020), Table 1 (b)", "1.5"
    ),
    "wrong-branch": Method(
        {**_SIMSIAM, "objective.stop_gradient": "prediction"},
        "stop-gradient on the prediction: the encoder learns through the target alone",
        "Su (2020), eq. 3, second term",
    ),
}


def method(name: str) -> Method:
    """The row of that name; raises ``InputError`` with the names there are."""
    if name not in METHODS:
        raise InputError(f"unknown method '{name}'; the methods are {', '.join(METHODS)}")
    return METHODS[name]


def require_consistent(name: str, overrides: Overrides) -> None:
    """Raise ``InputError`` where settings would turn a method into another one under the old name."""
    row = method(name)
    for key, value in overrides.items():
        if key in row.overrides and value != row.overrides[key]:
            others = [other for other, candidate in METHODS.items() if candidate.overrides[key] == value]
            hint = f"; a method with that setting is {' or '.join(others)}" if others else ""
            raise InputError(f"{key}: found '{value}', method '{name}' is made by '{row.overrides[key]}'{hint}")
