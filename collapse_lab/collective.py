"""Rows of a batch that is spread over processes, joined; one process alone finds its own rows."""

from __future__ import annotations

from collections.abc import Sequence
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


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors, in place, by their means over all processes; one process alone leaves them as they are."""
    count = processes()[1]
    if count == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, mean in zip(tensors, flat.div_(count).split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def total(counts: Tensor) -> Tensor:
    """The sum over all processes of a tensor, which lies on any device; every one must call it."""
    if processes()[1] == 1:
        return counts
    # NCCL knows only tensors on a GPU.
    told = counts.to("cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(told)
    return told.to(counts.device)


def barrier() -> None:
    """Wait for all processes."""
    if processes()[1] > 1:
        distributed.barrier()


def any_of(flag: bool) -> bool:
    """Whether any process says so; every one must ask."""
    return bool(total(torch.tensor(int(flag))))


def uneven_rows(rows: Tensor, total: int) -> Tensor:
    """``total`` rows (N, ...) of which each process has its part of ``tensor_split``, joined in order of ranks."""
    count = processes()[1]
    if count == 1:
        return rows
    most = -(-total // count)
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    parts = all_rows(padded).split(most)
    return torch.cat([part[: total // count + (other < total % count)] for other, part in enumerate(parts)])


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
