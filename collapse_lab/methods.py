"""The named methods: sets of configuration overrides, one row each; nothing in the package asks for a method's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from collapse_lab.config import Overrides
from collapse_lab.errors import InputError


@dataclass(frozen=True)
class Method:
    """One row of the table of methods; ``paper`` is Chen & He's ImageNet linear accuracy in percent, theirs, never ours."""

    overrides: Overrides
    what: str
    source: str
    paper: str | None = None


METHODS: Mapping[str, Method] = {
    "simsiam": Method({}, "stop-gradient on the target, MLP predictor", "Chen & He (2020), eq. 4", "67.7 ± 0.1"),
    "no-stop-gradient": Method(
        {"objective.stop_gradient": "none"},
        "gradient through both branches",
        "Chen & He (2020), Figure 2",
        "0.1",
    ),
    "no-predictor": Method(
        {"network.predictor": "identity"}, "h is the identity", "Chen & He (2020), Table 1 (a)", "0.1"
    ),
    "fixed-predictor": Method(
        {"network.predictor_frozen": True}, "h stays as initialised", "Chen & He (2020), Table 1 (b)", "1.5"
    ),
    "wrong-branch": Method(
        {"objective.stop_gradient": "prediction"},
        "stop-gradient on the prediction: the encoder learns through the target alone",
        "Su (2020), eq. 3, second term",
    ),
}


def method(name: str) -> Method:
    """The row of that name; raises ``InputError`` with the names there are."""
    if name not in METHODS:
        raise InputError(f"unknown method '{name}'; the methods are {', '.join(METHODS)}")
    return METHODS[name]
