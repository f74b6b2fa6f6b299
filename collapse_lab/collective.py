"""Rows of a batch that is spread over processes, joined; one process alone finds its own rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def processes() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) where no process group was made."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def all_rows(rows: Tensor) -> Tensor:
    """(N, ...) of this process to (R N, ...) of all R processes in order of ranks; every one must call it.

    All processes have equally many rows. The gradient of a row is the sum of the gradients that the processes have for
    it, so that the mean over processes of the parameters' gradients is the gradient of the mean of their losses.
    """
    if processes()[1] == 1:
        return rows
    gathered: Tensor = _AllRows.apply(rows)
    return gathered


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(processes()[1])]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rank, count = processes()
        total = gradient.clone()
        distributed.all_reduce(total)
        return total.chunk(count)[rank]
