"""Of what a method is made: where it differs from SimSiam, in words, with a test of every part; and what its parts cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from collapse_lab.config import build, flat
from collapse_lab.methods import METHODS, Method
from collapse_lab.settings import Config

FAMILIES = ("target", "loss", "stop-gradient", "views", "predictor")


class Part(NamedTuple):
    """A part that SimSiam has otherwise: ``what`` is filled in from the settings, ``test`` states what the part has to do."""

    family: str
    what: str
    test: str


class Passes(NamedTuple):
    """Passes of the encoder over the batch in one step, with and without a graph for the backward pass.

    >>> passes(build("simsiam"))
    Passes(graph=2, bare=0)
    """

    graph: int
    bare: int


_SIMSIAM = flat(build("simsiam", METHODS["simsiam"].settings))

ANY = "any value"
BASE = "tests/test_objective.py::test_the_loss_is_the_papers_symmetrised_equation"
# Values of parts, which their words name.
OPTIONS = ("target.momentum", "target.every", "target.eta_momentum", "target.views", "objective.temperature")
_TARGETS, _OBJECTIVE, _LOSSES = "tests/test_targets.py", "tests/test_objective.py", "tests/test_losses.py"
_SPLIT = f"{_TARGETS}::test_centring_and_decorrelation_split_what_tells_the_target_from_the_prediction"
_MEMORY = f"{_TARGETS}::test_eta_is_the_moving_average_of_what_each_image_gave"
_LAGGED = f"{_TARGETS}::test_k_step_alternation_is_caching_the_targets_of_k_batches_and_taking_k_steps"
_DIRECT = f"{_TARGETS}::test_direct_predictor_has_the_eigenvectors_of_the_moment_and_the_stated_eigenvalues"

PARTS: Mapping[tuple[str, object], Part] = {
    ("objective.stop_gradient", "none"): Part(
        "stop-gradient", "no stop-gradient", f"{_OBJECTIVE}::test_exactly_the_parts_that_should_learn_get_a_gradient"
    ),
    ("objective.stop_gradient", "prediction"): Part(
        "stop-gradient", "stop-gradient on the prediction", f"{_OBJECTIVE}::test_the_two_stop_gradients_add_up_to_none"
    ),
    ("objective.symmetric", False): Part(
        "views",
        "first view of a pair predicted",
        f"{_TARGETS}::test_asymmetric_predicts_first_views_and_its_mirror_the_second",
    ),
    ("objective.pairs", ANY): Part(
        "views",
        "{objective.pairs} pairs of views",
        f"{_TARGETS}::test_two_pairs_are_the_mean_of_two_asymmetric_losses",
    ),
    ("objective.loss", "mse"): Part("loss", "squared distance", f"{_LOSSES}::test_mse_sums_channels_and_averages_rows"),
    ("objective.loss", "cross-entropy"): Part(
        "loss",
        "cross-entropy of channels",
        f"{_LOSSES}::test_cross_entropy_is_least_at_the_target_where_it_is_its_entropy",
    ),
    ("objective.loss", "nt-xent"): Part(
        "loss",
        "NT-Xent (T = {objective.temperature:g})",
        f"{_TARGETS}::test_nt_xent_on_aligned_targets_is_the_matrix_of_all_views",
    ),
    ("objective.loss", "info-nce"): Part(
        "loss",
        "InfoNCE, queue of {objective.queue} (T = {objective.temperature:g})",
        f"{_TARGETS}::test_the_queue_holds_the_latest_targets_and_none_of_the_present_ones",
    ),
    ("objective.loss", "swapped-prediction"): Part(
        "loss",
        "Sinkhorn codes of {objective.prototypes} prototypes (T = {objective.temperature:g})",
        f"{_TARGETS}::test_prototypes_learn_and_their_length_does_not_matter",
    ),
    ("network.predictor", "identity"): Part(
        "predictor", "no predictor", f"{_OBJECTIVE}::test_without_predictor_the_stop_gradient_halves_the_gradient"
    ),
    ("network.predictor", "linear"): Part(
        "predictor", "linear predictor", f"{_OBJECTIVE}::test_exactly_the_parts_that_should_learn_get_a_gradient"
    ),
    ("network.predictor", "bias"): Part(
        "predictor", "predictor u + b", f"{_TARGETS}::test_the_bias_predictor_starts_as_the_unit_row"
    ),
    ("network.predictor", "direct"): Part("predictor", "linear predictor from the eigenbasis of E[zz']", _DIRECT),
    ("network.predictor_frozen", True): Part(
        "predictor", "predictor frozen", "tests/test_networks.py::test_a_frozen_predictor_has_nothing_to_learn"
    ),
    ("train.predictor_lr", "decayed"): Part(
        "predictor",
        "predictor's rate decayed",
        "tests/test_trainer.py::test_the_predictors_rate_is_constant_or_decays",
    ),
    ("train.predictor_steps", ANY): Part(
        "predictor",
        "{train.predictor_steps} predictor steps for one of the encoder",
        f"{_TARGETS}::test_more_predictor_steps_are_updates_of_the_predictor_alone_before_the_common_one",
    ),
    ("target.network", "lagged"): Part(
        "target", "lagged weights (m = {target.momentum:g}, every {target.every})", _LAGGED
    ),
    ("target.estimate", "mean-output"): Part(
        "target",
        "mean output of {target.views} views",
        f"{_TARGETS}::test_mean_output_is_the_mean_of_unit_outputs_and_leaves_the_running_statistics_alone",
    ),
    ("target.estimate", "mean-input"): Part(
        "target",
        "output of the mean of {target.views} views",
        f"{_TARGETS}::test_mean_input_passes_the_gradient_to_the_weights_it_shares",
    ),
    ("target.estimate", "memory"): Part(
        "target", "moving average of outputs per image (m = {target.eta_momentum:g})", _MEMORY
    ),
    ("target.head", "predictor"): Part(
        "target",
        "target through the predictor",
        f"{_TARGETS}::test_the_symmetric_predictor_matches_predictions_with_predictions",
    ),
    ("target.head", "inverse-predictor"): Part(
        "target",
        "target through the predictor and its learned inverse",
        f"{_TARGETS}::test_the_inverse_predictor_learns_and_sends_no_gradient_to_the_encoder",
    ),
    ("target.head", "centring"): Part("target", "prediction plus mean difference as target", _SPLIT),
    ("target.head", "decorrelation"): Part("target", "prediction plus residual difference as target", _SPLIT),
}


def passes(config: Config) -> Passes:
    """How many passes the parts need: one with a graph for each predicted view, and those that only the target needs."""
    own, target = config.views, config.target
    predicted = own if config.objective.symmetric else own // 2
    needed = {
        "other-view": predicted if target.network == "lagged" else own - predicted,
        "mean-output": target.views,
        "mean-input": 1,
        "memory": 0,
    }[target.estimate]
    with_graph = 0 if config.objective.stop_gradient == "target" else needed
    return Passes(predicted + with_graph, needed - with_graph)


def parts(row: Method) -> list[Part]:
    """The parts in which a method differs from SimSiam, the table's first row, filled in with its settings.

    Raises ``KeyError`` with the setting for a value that no part describes.

    >>> [part.what for part in parts(METHODS["byol"])]
    ['lagged weights (m = 0.99, every 1)']
    """
    config = build("simsiam", row.settings)
    changed = [(key, value) for key, value in row.settings.items() if value != _SIMSIAM[key]]
    found = [PARTS.get((key, value)) or PARTS[key, ANY] for key, value in changed if key not in OPTIONS]
    found.sort(key=lambda part: FAMILIES.index(part.family))
    return [part._replace(what=part.what.format(**vars(config))) for part in found]


def pointers(row: Method) -> list[str]:
    """Where a method's parts are tested, each ``file::test`` once; SimSiam's own equation for SimSiam."""
    return list(dict.fromkeys(part.test for part in parts(row))) or [BASE]


def family(row: Method) -> str:
    """The first of ``FAMILIES`` that a method changes; "-" for SimSiam itself.

    >>> family(METHODS["mocov2"]), family(METHODS["simsiam"])
    ('target', '-')
    """
    changed = {part.family for part in parts(row)}
    return next((name for name in FAMILIES if name in changed), "-")
