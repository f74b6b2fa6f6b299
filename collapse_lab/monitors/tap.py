"""A tap is one named place in a network and the moments of what flowed through it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from collapse_lab.geometry import Moments, moments
from collapse_lab.monitors.statistics import Gathered


class Tap:
    """Gathers the moments of a module's outputs while ``recording``; one forward hook, nothing else, is added.

    Rows count only from a module in training mode, and not when activation checkpointing runs the forward a second time
    inside backward.
    """

    def __init__(self, label: str, module: nn.Module) -> None:
        self.label = label
        self.recording = False
        self._moments: Moments | None = None
        self._handle = module.register_forward_hook(self._hook)

    def _hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.recording:
            return
        if not module.training or torch._C._current_graph_task_id() != -1:
            return
        fresh = moments(rows(output, self.label))
        self._moments = fresh if self._moments is None else self._moments + fresh

    def take(self) -> Gathered | None:
        """What was gathered since the last call, None where the module did not run; starts afresh."""
        taken, self._moments = self._moments, None
        return None if taken is None else Gathered(taken)

    def remove(self) -> None:
        """Take the hook off the module."""
        self._handle.remove()


def rows(output: Any, label: str) -> Tensor:
    """Outputs (N, D) as they are, feature maps (N, D, H, W) averaged over space; anything else raises ``ValueError``."""
    if isinstance(output, Tensor) and output.is_floating_point():
        detached = output.detach()
        if detached.ndim == 2:
            return detached
        if detached.ndim == 4:
            return detached.double().mean((2, 3))
    found = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(f"layer '{label}': found {found}; a tap reads floating tensors (N, D) or (N, D, H, W)")


def resolve(model: nn.Module, layers: Sequence[str] | Mapping[str, str]) -> dict[str, nn.Module]:
    """Modules by label, from dotted names or globs, or from a mapping of labels to dotted names.

    Prefixes put there by wrappers (``module.``, ``_orig_mod.``) are ignored. An unknown name raises ``KeyError`` with
    the closest names there are.
    """
    modules = {_plain(name): module for name, module in model.named_modules() if name}
    if isinstance(layers, Mapping):
        return {label: modules[_match(name, modules)[0]] for label, name in layers.items()}
    if isinstance(layers, str):
        raise TypeError(f"layers: found the string '{layers}', expected a list of names: ['{layers}']")
    return {name: modules[name] for pattern in layers for name in _match(pattern, modules)}


def _match(pattern: str, names: Mapping[str, nn.Module]) -> list[str]:
    pattern = _plain(pattern)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or list(names)[:3]
        raise KeyError(f"no layer is named '{pattern}'; the closest are {', '.join(close)}")
    return found


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod").removeprefix("module.")
