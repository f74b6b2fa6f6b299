"""What several processes gathered, joined to what one process would have gathered from all their rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from collapse_lab.geometry import Moments
from collapse_lab.monitors.recorder import even_share
from collapse_lab.monitors.statistics import Gathered


def all_reduced(gathered: Gathered | None) -> Gathered | None:
    """The sum over all ranks of the default process group; every rank must call it, and every rank gets it.

    None on every rank where the module did not run on one of them, so that all of them can say so instead of one waiting
    for ever. Rows of the same call are joined in the order of ranks, at most 1,024 in all.
    """
    everywhere = all(_from_all_ranks(gathered is not None))
    if gathered is None or not everywhere:
        return None
    raw = None if gathered.raw is None else _summed(gathered.raw)
    rows = None if gathered.rows is None else _joined(gathered.rows)
    return Gathered(_summed(gathered.moments), raw, rows)


def _summed(moments: Moments) -> Moments:
    count = moments.total.new_tensor([moments.count])
    packed = torch.cat([count, moments.total, moments.second.flatten()])
    distributed.all_reduce(packed)
    dimension = moments.dimension
    return Moments(int(packed[0]), packed[1 : dimension + 1], packed[dimension + 1 :].view(dimension, dimension))


def _joined(rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    ranks = _from_all_ranks([call.cpu() for call in rows])
    if len({len(calls) for calls in ranks}) > 1:
        raise RuntimeError(
            f"ranks called a watched module {[len(calls) for calls in ranks]} times; rows cannot be joined"
        )
    return tuple(
        call.to(rows[0].device) for call in even_share([torch.cat(calls) for calls in zip(*ranks, strict=True)])
    )


def _from_all_ranks(value: Any) -> list[Any]:
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
