"""Settings that do not fit together, topic by topic: why not, and what would."""

from __future__ import annotations

from collections.abc import Iterator

from collapse_lab.sections import NetworkConfig, ObjectiveConfig, TargetConfig, TrainConfig


def conflicts(
    target: TargetConfig, objective: ObjectiveConfig, network: NetworkConfig, train: TrainConfig
) -> Iterator[str]:
    """The reason of every conflict between these sections, in a fixed order."""
    yield from _of_the_target(target, objective)
    yield from _of_the_head(target, objective, network)
    yield from _of_the_views(target, objective)
    yield from _of_the_loss(target, objective)
    yield from _of_the_steps(target, objective, network, train)


def _of_the_target(target: TargetConfig, objective: ObjectiveConfig) -> Iterator[str]:
    stop = objective.stop_gradient
    blocked = "lagged" if target.network == "lagged" else "memory" if target.estimate == "memory" else None
    if blocked is not None and stop != "target":
        yield f"objective.stop_gradient: found '{stop}', but no gradient passes through a {blocked} target; use 'target'"
    if target.estimate == "memory" and target.network == "lagged":
        yield "target.network: found 'lagged' with estimate 'memory', which keeps outputs of the encoder; use 'online'"


def _of_the_head(target: TargetConfig, objective: ObjectiveConfig, network: NetworkConfig) -> Iterator[str]:
    head, stop = target.head, objective.stop_gradient
    if head != "identity" and not (_is_plain(target) and target.network == "online" and objective.symmetric):
        yield (
            f"target.head: found '{head}', which needs network 'online', estimate 'other-view' and both views predicted"
        )
    if head != "identity" and network.predictor == "identity":
        yield f"target.head: found '{head}' with network.predictor 'identity', but it is made with the predictor"
    if head == "inverse-predictor" and stop != "target":
        yield f"objective.stop_gradient: found '{stop}' with target.head 'inverse-predictor', which needs 'target'"
    if head == "inverse-predictor" and (network.predictor == "direct" or network.predictor_frozen):
        yield (
            "target.head: found 'inverse-predictor' with a predictor that is not trained, whose inverse would not be either"
        )


def _of_the_views(target: TargetConfig, objective: ObjectiveConfig) -> Iterator[str]:
    if not _is_plain(target) and (objective.pairs > 1 or not objective.symmetric):
        yield (
            f"objective.pairs, objective.symmetric: found {objective.pairs} and {objective.symmetric} with "
            f"target.estimate '{target.estimate}', which does not distinguish views; use 1 and true"
        )


def _of_the_loss(target: TargetConfig, objective: ObjectiveConfig) -> Iterator[str]:
    loss, stop = objective.loss, objective.stop_gradient
    if loss == "nt-xent" and not (_is_plain(target) and objective.symmetric and objective.pairs == 1):
        yield (
            "objective.loss: found 'nt-xent', which contrasts the two views of one symmetric pair; it needs "
            "target.estimate 'other-view', objective.symmetric and one pair"
        )
    if loss == "info-nce" and stop != "target":
        yield (
            f"objective.stop_gradient: found '{stop}' with loss 'info-nce', whose queue holds no gradient; use 'target'"
        )


def _of_the_steps(
    target: TargetConfig, objective: ObjectiveConfig, network: NetworkConfig, train: TrainConfig
) -> Iterator[str]:
    steps, loss = train.predictor_steps, objective.loss
    if steps > 1 and loss in ("info-nce", "swapped-prediction"):
        yield (
            f"train.predictor_steps: found {steps} with loss '{loss}', whose queue or prototypes would move with every "
            "one of them; use 1"
        )
    if train.accumulate > 1 and (steps > 1 or loss in ("nt-xent", "info-nce", "swapped-prediction")):
        yield (
            f"train.accumulate: found {train.accumulate}; it needs train.predictor_steps 1 and a loss that does not "
            "compare the images of the batch"
        )
    untrained = network.predictor in ("identity", "direct") or network.predictor_frozen
    if steps > 1 and (untrained or target.head != "identity"):
        yield f"train.predictor_steps: found {steps}, needs a predictor that is trained and target.head 'identity'"


def _is_plain(target: TargetConfig) -> bool:
    return target.estimate == "other-view"
