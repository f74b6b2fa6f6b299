"""The named methods: sets of configuration overrides, one row each; nothing in the package asks for a method's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from collapse_lab.config import Overrides
from collapse_lab.errors import InputError


@dataclass(frozen=True)
class Method:
    """One row of the table of methods.

    ``overrides`` make the method, and no flag may change them; ``defaults`` are its values that may be changed, such as m
    or K. ``paper`` is the key of Chen & He's ImageNet accuracy, theirs, never ours.
    """

    overrides: Overrides
    what: str
    source: str
    paper: str | None = None
    defaults: Overrides = field(default_factory=dict)

    @property
    def settings(self) -> Overrides:
        """Defaults and overrides together."""
        return {**self.defaults, **self.overrides}


def _row(
    what: str, source: str, *changes: Overrides, paper: str | None = None, defaults: Overrides | None = None
) -> Method:
    """SimSiam with the changes."""
    overrides = dict(_SIMSIAM)
    for change in changes:
        overrides |= change
    return Method(overrides, what, source, paper, defaults or {})


_SIMSIAM: Overrides = {
    "objective.stop_gradient": "target",
    "objective.symmetric": True,
    "objective.pairs": 1,
    "network.predictor": "mlp",
    "network.predictor_frozen": False,
    "target.network": "online",
    "target.estimate": "other-view",
    "target.head": "identity",
}

_THROUGH: Overrides = {"objective.stop_gradient": "none"}
_NO_PREDICTOR: Overrides = {"network.predictor": "identity"}
_LAGGED: Overrides = {"target.network": "lagged"}
_SIMCLR: Overrides = {"objective.loss": "nt-xent"}
_SWAV: Overrides = {"objective.loss": "swapped-prediction"}
_MEAN_INPUT: Overrides = {"target.estimate": "mean-input"}
_MSE: Overrides = {"objective.loss": "mse"}
_MEAN_OUTPUT: Overrides = {"target.estimate": "mean-output"}


def _alternation(every: int | str) -> Overrides:
    return {**_LAGGED, "target.momentum": 0.0, "target.every": every}


_CHEN, _SU, _ZHANG, _TIAN = "Chen & He (2020)", "Su (2020)", "Zhang et al. (2022)", "Tian et al. (2021)"

METHODS: Mapping[str, Method] = {
    "simsiam": _row("stop-gradient on the target, MLP predictor", f"{_CHEN}, eq. 4", paper="table-1/c"),
    "no-stop-gradient": _row(
        "gradient through both branches", f"{_CHEN}, Figure 2", _THROUGH, paper="figure-2/no-stop-gradient"
    ),
    "no-predictor": _row("h is the identity", f"{_CHEN}, Table 1 (a)", _NO_PREDICTOR, paper="table-1/a"),
    "fixed-predictor": _row(
        "h stays as initialised", f"{_CHEN}, Table 1 (b)", {"network.predictor_frozen": True}, paper="table-1/b"
    ),
    "decayed-predictor": _row(
        "the predictor's rate decays as the encoder's",
        f"{_CHEN}, Table 1, baseline",
        {"train.predictor_lr": "decayed"},
        paper="table-1/baseline",
    ),
    "wrong-branch": _row(
        "stop-gradient on the prediction: the encoder learns through the target alone",
        f"{_SU}, eq. 3, second term",
        {"objective.stop_gradient": "prediction"},
    ),
    "asymmetric": _row(
        "only the first view is predicted",
        f"{_CHEN}, section 4.6",
        {"objective.symmetric": False},
        paper="section-4.6/asymmetric",
    ),
    "asymmetric-2x": _row(
        "only the first view is predicted, two pairs of views",
        f"{_CHEN}, section 4.6",
        {"objective.symmetric": False, "objective.pairs": 2},
        paper="section-4.6/asymmetric-2x",
    ),
    "cross-entropy": _row(
        "cross-entropy of softmax over channels",
        f"{_CHEN}, section 4.5",
        {"objective.loss": "cross-entropy"},
        paper="section-4.5/cross-entropy",
    ),
    "mse": _row("squared distance, not normalised", f"{_SU}, eq. 2", _MSE),
    "byol": _row(
        "target of a moving average of the weights",
        "Grill et al. (2020)",
        _LAGGED,
        {"target.every": 1},
        paper="table-4/byol/100",
        defaults={"target.momentum": 0.99},
    ),
    "alternation-1": _row(
        "targets of a copy that follows every step: SimSiam",
        f"{_CHEN}, section 5.2",
        _alternation(1),
        paper="section-5.2/1-step",
    ),
    "alternation-10": _row(
        "targets fixed for 10 steps", f"{_CHEN}, section 5.2", _alternation(10), paper="section-5.2/10-step"
    ),
    "alternation-100": _row(
        "targets fixed for 100 steps", f"{_CHEN}, section 5.2", _alternation(100), paper="section-5.2/100-step"
    ),
    "alternation-epoch": _row(
        "targets fixed for an epoch", f"{_CHEN}, section 5.2", _alternation("epoch"), paper="section-5.2/1-epoch"
    ),
    "momentum-eta": _row(
        "a moving average of outputs per image as target, no predictor",
        f"{_CHEN}, section 5.2",
        _NO_PREDICTOR,
        {"target.estimate": "memory"},
        paper="section-5.2/moving-average",
        defaults={"target.eta_momentum": 0.8},
    ),
    "exact-eta": _row(
        "the mean output of K views under the weights of up to k steps ago, no predictor",
        f"{_CHEN}, eq. 9",
        _NO_PREDICTOR,
        _MEAN_OUTPUT,
        _LAGGED,
        {"target.momentum": 0.0},
        defaults={"target.every": 10},
    ),
    "mean-output": _row(
        "the mean output of K views of this step, no predictor", f"{_CHEN}, eq. 9", _NO_PREDICTOR, _MEAN_OUTPUT
    ),
    "mean-input": _row(
        "the output of the mean of K views, no predictor", f"{_SU}, eq. 10", _NO_PREDICTOR, _MEAN_INPUT, defaults=_MSE
    ),
    "mean-input-none": _row(
        "the same, gradient through both branches",
        f"{_SU}, eq. 10",
        _NO_PREDICTOR,
        _MEAN_INPUT,
        _THROUGH,
        defaults=_MSE,
    ),
    "mean-input-predictor": _row(
        "the output of the mean of K views, with predictor", f"{_SU}, eq. 10", _MEAN_INPUT, defaults=_MSE
    ),
    "mean-input-predictor-none": _row(
        "the same, gradient through both branches", f"{_SU}, eq. 10", _MEAN_INPUT, _THROUGH, defaults=_MSE
    ),
    "simclr": _row(
        "NT-Xent, no predictor",
        "Chen et al. (2020)",
        _SIMCLR,
        _NO_PREDICTOR,
        _THROUGH,
        paper="section-6.2/simclr",
        defaults={"objective.temperature": 0.2},
    ),
    "simclr-predictor": _row(
        "NT-Xent with predictor",
        f"{_CHEN}, section 6.2",
        _SIMCLR,
        _THROUGH,
        paper="section-6.2/simclr-predictor",
        defaults={"objective.temperature": 0.2},
    ),
    "simclr-predictor-stop-gradient": _row(
        "NT-Xent with predictor and stop-gradient",
        f"{_CHEN}, section 6.2",
        _SIMCLR,
        paper="section-6.2/simclr-predictor-stop-gradient",
        defaults={"objective.temperature": 0.2},
    ),
    "swav": _row(
        "codes of the other view predicted, no predictor",
        "Caron et al. (2020)",
        _SWAV,
        _NO_PREDICTOR,
        paper="section-6.2/swav",
    ),
    "swav-predictor": _row(
        "the same, predictor before the prototypes", f"{_CHEN}, section 6.2", _SWAV, paper="section-6.2/swav-predictor"
    ),
    "swav-no-stop-gradient": _row(
        "gradient through the codes",
        f"{_CHEN}, section 6.2",
        _SWAV,
        _NO_PREDICTOR,
        _THROUGH,
        paper="section-6.2/swav-no-stop-gradient",
    ),
    "mocov2": _row(
        "InfoNCE with a queue, target of a moving average of the weights",
        "Chen et al. (2020b)",
        {"objective.loss": "info-nce", "objective.symmetric": False, "target.every": 1},
        _NO_PREDICTOR,
        _LAGGED,
        paper="table-4/mocov2/100",
        defaults={"target.momentum": 0.99, "objective.temperature": 0.2},
    ),
    "linear-predictor": _row("h is a linear map", f"{_TIAN}, section 4", {"network.predictor": "linear"}),
    "directpred": _row(
        "h is linear, computed from the eigenbasis of E[z z']",
        f"{_TIAN}, section 4",
        {"network.predictor": "direct"},
    ),
    "predictor-steps-3": _row(
        "three updates of the predictor for one of the encoder", f"{_SU}, fast predictor", {"train.predictor_steps": 3}
    ),
    "predictor-steps-10": _row(
        "ten updates of the predictor for one of the encoder", f"{_SU}, fast predictor", {"train.predictor_steps": 10}
    ),
    "centring": _row(
        "the target keeps the prediction and the mean difference only", _ZHANG, {"target.head": "centring"}
    ),
    "decorrelation": _row(
        "the target keeps the prediction and the residual difference only", _ZHANG, {"target.head": "decorrelation"}
    ),
    "bias-predictor": _row("h adds one learned vector", _ZHANG, {"network.predictor": "bias"}),
    "symmetric-predictor": _row("both branches go through h", _ZHANG, {"target.head": "predictor"}),
    "inverse-predictor": _row(
        "the target goes through h and its learned inverse", _ZHANG, {"target.head": "inverse-predictor"}
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
            wanted = {**row.overrides, key: value}
            others = [other for other, candidate in METHODS.items() if candidate.overrides == wanted]
            hint = f"; the method with that setting is {others[0]}" if others else ""
            raise InputError(f"{key}: found '{value}', method '{name}' is made by '{row.overrides[key]}'{hint}")
