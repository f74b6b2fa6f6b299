"""One update of an objective's weights: optimizer, schedule of the learning rate, and the step itself."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from collapse_lab.collective import average
from collapse_lab.objective import Objective
from collapse_lab.optimizers import LARS
from collapse_lab.settings import TrainConfig


def optimizer(objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or LARS with momentum over what learns; the predictor is a group of its own, with its own rate and schedule."""
    predictor = [weight for weight in objective.predictor.parameters() if weight.requires_grad]
    apart = {id(weight) for weight in predictor}
    rest = [weight for weight in objective.parameters() if weight.requires_grad and id(weight) not in apart]
    groups = [
        {"params": rest, "constant": False, "factor": 1.0},
        {"params": predictor, "constant": config.predictor_lr == "constant", "factor": config.predictor_rate},
    ]
    groups = [group for group in groups if group["params"]]
    momentum, decay = config.momentum, config.weight_decay
    if config.optimizer == "lars":
        return LARS(groups, lr=config.base_lr, momentum=momentum, weight_decay=decay)
    # One kernel for all weights on a GPU; a loop over lists of them on a CPU.
    fused = rest[0].is_cuda
    return torch.optim.SGD(groups, config.base_lr, momentum, weight_decay=decay, foreach=not fused, fused=fused)


def set_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int, warmup: int) -> None:
    """The learning rates of a step counted from 0: base_lr x batch / 256, scheduled."""
    for group in optimizer.param_groups:
        decay = 1.0 if group["constant"] else schedule(step, steps, warmup)
        group["lr"] = config.base_lr * config.batch / 256 * group["factor"] * decay


def schedule(step: int, steps: int, warmup: int) -> float:
    """The factor of the learning rate at a step counted from 0: linear warm-up, then half a cosine to 0.

    >>> [round(schedule(step, 4, 0), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def update(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    index: Tensor,
    step: int,
    *,
    predictor_steps: int = 1,
    accumulate: int = 1,
    half: bool = False,
) -> Tensor:
    """Make the ``step``-th update, counted from 1, and return the loss before it, a scalar without graph.

    ``predictor_steps`` - 1 updates of the predictor alone, on the same outputs of the encoder, come first. ``accumulate``
    parts of the batch, of equal size, go through the networks one after the other, and their gradients are averaged. ``half``
    lets the networks compute in bfloat16. Of several processes each has its share of the batch, all of the same size, and
    gets the loss of its share; the gradients are averaged, so that all of them keep the same weights.
    """
    # One context for every pass: weights are cast once in a context, and would not be seen to change.
    mixed = partial(torch.autocast, views.device.type, torch.bfloat16, enabled=half)
    losses = []
    _forget(optimizer)
    for part, rows in zip(views.chunk(accumulate, dim=1), index.chunk(accumulate), strict=True):
        with mixed():
            z = objective.encode(part)
            t = objective.match(part, z, rows)
        for _ in range(predictor_steps - 1):
            with mixed():
                loss = objective.compare(z.detach(), t.detach())
            loss.backward()
            _step(optimizer)
            _forget(optimizer)
        with mixed():
            loss = objective.compare(z, t)
        (loss / accumulate).backward()
        losses.append(loss.detach())
    _step(optimizer)
    objective.after_step(step)
    return torch.stack(losses).mean()


def _forget(optimizer: torch.optim.Optimizer) -> None:
    # Weights without a gradient are left alone, by momentum and weight decay too.
    optimizer.zero_grad(set_to_none=True)


def _step(optimizer: torch.optim.Optimizer) -> None:
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    average([weight.grad for weight in weights if weight.grad is not None])
    optimizer.step()
