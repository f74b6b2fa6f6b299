"""Optimisers that PyTorch does not have: LARS, for batches of thousands of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


class LARS(torch.optim.Optimizer):
    """SGD whose rate is scaled layer by layer, so that a step is a given share of the layer's weights.

    For every parameter tensor w with gradient g::

        s = trust |w| / (|g| + weight_decay |w| + epsilon)     1 where |w| or |g| is 0
        v = momentum v + s (g + weight_decay w)                 v = 0 before the first step
        w = w - lr v

    Norms are Euclidean, over the whole tensor. You, Gitman and Ginsburg (2017), with the rate outside the buffer v, as
    in ``torch.optim.SGD``: the same while ``lr`` is constant; under a schedule the buffer keeps no old rates. NVIDIA's
    LARC with ``clip=False`` and ``trust`` 0.001 is this formula over SGD, but for tensors whose gradient is 0, which it
    does not decay. Nothing waits for the device.

    ``exclude_1d``: tensors of at most one dimension (biases, BatchNorm's scale and shift) get plain SGD, s = 1 and no
    weight decay, as SimCLR and BYOL do. Off by default, as in the two sources above.
    ``state_dict`` holds the buffers as ``momentum_buffer``. Raises ``ValueError`` for a negative ``lr`` or
    ``weight_decay``, ``momentum`` outside [0, 1), and ``trust`` or ``epsilon`` not above 0.

    A first step without weight decay has the length lr trust |w|, whatever the scale of the gradient:

    >>> w = torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> w.grad = torch.tensor([[0.0, 7.0]])
    >>> LARS([w], lr=100.0, trust=0.001).step()
    >>> w.detach()
    tensor([[3.0000, 3.5000]])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        epsilon: float = 1e-8,
        exclude_1d: bool = False,
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and 0 <= momentum < 1 and trust > 0 and epsilon > 0):
            raise ValueError(
                f"lr, momentum, weight_decay, trust, epsilon: found {lr}, {momentum}, {weight_decay}, {trust}, {epsilon}; "
                "expected lr >= 0, momentum in [0, 1), weight_decay >= 0, trust > 0, epsilon > 0"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "epsilon": epsilon,
            "exclude_1d": exclude_1d,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change every parameter that has a gradient; a closure, if given, is called first for the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        scaled = gradient
        if not (group["exclude_1d"] and weight.ndim <= 1):
            scaled = _scaled(weight, gradient, group["weight_decay"], group["trust"], group["epsilon"])
        state = self.state[weight]
        if "momentum_buffer" in state:
            scaled = state["momentum_buffer"].mul_(group["momentum"]).add_(scaled)
        elif group["momentum"]:
            state["momentum_buffer"] = scaled.clone()
        weight.sub_(group["lr"] * scaled)


def _scaled(weight: Tensor, gradient: Tensor, weight_decay: float, trust: float, epsilon: float) -> Tensor:
    norm, steepness = weight.norm(), gradient.norm()
    ratio = trust * norm / (steepness + weight_decay * norm + epsilon)
    return torch.where((norm > 0) & (steepness > 0), ratio, 1) * (gradient + weight_decay * weight)
