"""BatchNorm over the batch of all processes, on the CPU too, where torch's own refuses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from collapse_lab.collective import processes


class SyncBatchNorm(_BatchNorm):
    """BatchNorm whose statistics in training are those of the rows of all processes, which have equally many.

    y = (x - E x) / sqrt(Var x + eps) w + b per channel of x (N, C, ...), Var biased; the running variance follows the
    unbiased one. Differentiable through the statistics. With one process, and in eval mode, it is torch's BatchNorm.
    Statistics in float32. Equal to ``torch.nn.SyncBatchNorm`` up to rounding.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"input: found {input.ndim} dimensions, needs at least 2")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) to the same."""
        count = processes()[1]
        if not self.training or count == 1:
            normalised: Tensor = super().forward(input)
            return normalised
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        rows = input.float()
        total = rows.numel() // rows.shape[1] * count
        mean = _sum(rows.sum(axes)) / total
        centred = rows - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / total
        self._follow(mean.detach(), variance.detach() * total / (total - 1))
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with every BatchNorm in it synchronised, parameters and buffers the same objects; as it is in one process."""
    if processes()[1] == 1:
        return module
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for name, child in module.named_children():
        setattr(module, name, synchronised(child, device))
    return _synchronised(module) if isinstance(module, _BatchNorm) else module


def _synchronised(norm: _BatchNorm) -> SyncBatchNorm:
    # Built without tensors of its own, so that those of the original can be put in their place.
    made = SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
    )
    made._parameters, made._buffers, made.training = norm._parameters, norm._buffers, norm.training
    return made


def _sum(tensor: Tensor) -> Tensor:
    summed: Tensor = _AllReduce.apply(tensor)
    return summed


class _AllReduce(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total
