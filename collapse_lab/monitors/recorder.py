"""A recorder hangs on one module and gathers what its tap reads: moments, and rows where a statistic needs them."""

from __future__ import annotations

import sys
from collections.abc import Collection
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from collapse_lab.geometry import Moments, moments, unit_rows
from collapse_lab.monitors.statistics import Gathered, Needs
from collapse_lab.monitors.tap import Tap

MOST_ROWS = 1024


class Recorder:
    """Gathers the rows of a tap while ``recording``; one forward hook, nothing else, is added to the module.

    Calls count only in the tap's mode, and not when activation checkpointing runs the forward a second time inside
    backward. It holds D x D numbers and the rows while they are fewer than D, as many again where raw moments are
    needed, and at most 1,024 rows where rows are.
    """

    def __init__(self, label: str, tap: Tap, module: nn.Module, needs: Collection[Needs] = ()) -> None:
        self.label, self.tap = label, tap
        self.recording = False
        self._needs = needs
        self._moments: Moments | None = None
        self._raw: Moments | None = None
        self._rows: list[Tensor] = []
        # A compiled module leaves its graph here on the steps that are read, and has no trace of us on all others.
        self._outside_graphs = torch.compiler.disable(self._gather)
        self._handle = module.register_forward_hook(self._hook)

    def start_step(self, recording: bool) -> None:
        """Say whether the coming step counts; rows of earlier steps go, since they are views of other samples."""
        self.recording = recording
        self._rows = []

    def take(self) -> Gathered | None:
        """What was gathered since the last call, None where the module did not run; starts afresh."""
        if self._moments is None:
            return None
        rows = tuple(self._rows) if "rows" in self._needs else None
        gathered = Gathered(self._moments, self._raw, rows)
        self._clear()
        return gathered

    def remove(self) -> None:
        """Take the hook off the module and forget what was gathered."""
        self._handle.remove()
        self._clear()

    def _hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.recording:
            self._outside_graphs(module, output)

    def _gather(self, module: nn.Module, output: Any) -> None:
        if module.training != (self.tap.mode == "train") or inside_backward():
            return
        for rows in self.tap.read(output):
            self._add(rows)

    @torch.no_grad()
    def _add(self, rows: Tensor) -> None:
        if self._moments is not None and self._moments.dimension != rows.shape[1]:
            found, before = rows.shape[1], self._moments.dimension
            raise ValueError(
                f"layer '{self.label}': found rows of {found} channels after rows of {before} in one reading"
            )
        self._moments = moments(rows, onto=self._moments)
        if "raw" in self._needs:
            self._raw = moments(rows, normalise=False, onto=self._raw)
        if "rows" in self._needs:
            self._rows = even_share([*self._rows, unit_rows(rows[:MOST_ROWS])])

    def _clear(self) -> None:
        self._moments, self._raw, self._rows = None, None, []


def even_share(calls: list[Tensor], most: int = MOST_ROWS) -> list[Tensor]:
    """The first rows of every call, as many of each, so that they are at most ``most`` in all and views stay aligned.

    >>> [len(rows) for rows in even_share([torch.ones(6, 2), torch.ones(6, 2), torch.ones(1, 2)], most=9)]
    [3, 3, 1]
    """
    if sum(map(len, calls)) <= most:
        return calls
    share = most // len(calls)
    # A copy, lest a slice keep the whole call alive.
    return [rows[:share].clone() if len(rows) > share else rows for rows in calls]


def inside_backward() -> bool:
    """Whether autograd is running backward on this thread, as when activation checkpointing computes outputs again."""
    task = getattr(torch._C, "_current_graph_task_id", None)
    return backward_on_stack() if task is None else task() != -1


def backward_on_stack() -> bool:
    """The same without private functions of torch, from the names of torch's own Python frames; slower."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        within_torch = frame.f_globals.get("__name__", "").startswith(("torch.utils.checkpoint", "torch.autograd"))
        if within_torch and frame.f_code.co_name in ("backward", "unpack_hook", "_engine_run_backward"):
            return True
        frame = frame.f_back
    return False
