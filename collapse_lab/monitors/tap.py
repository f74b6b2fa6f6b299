"""A tap says which module of a model to watch and how its output becomes rows, one l2-normalised later."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

Key = str | int
Rows = Literal["pooled", "flattened", "class-token"]
Mode = Literal["train", "eval"]
ROWS: tuple[Rows, ...] = ("pooled", "flattened", "class-token")


@dataclass(frozen=True)
class Tap:
    """One place in a network and how to read it; a plain name stands for ``Tap(name)``.

    ``name`` is a dotted path of ``named_modules()`` or a glob. ``pick`` chooses from an output that is not a tensor: a key
    of a dict, a field of a dataclass, an index of a tuple, or a tuple of such for nested ones. A list of tensors, as
    multi-crop networks give, counts as one call after another.

    Outputs (N, D) are rows as they are. Of sequences (N, T, D), feature maps (N, D, H, W) and the like, ``rows`` takes the
    mean over positions ("pooled", in at least float32), every position as a row of its own ("flattened"), or the first
    token ("class-token"; sequences only). ``channel`` is the axis of D: 2 for three axes, else 1, unless given. The first
    ``prefix`` tokens, such as class and register tokens, are left out of pooled and flattened sequences.

    Only calls of the module in ``mode`` count. For an average teacher that runs in eval mode, say so.
    """

    name: str
    pick: Key | tuple[Key, ...] = ()
    rows: Rows = "pooled"
    channel: int | None = None
    prefix: int = 0
    mode: Mode = "train"

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ValueError(f"tap '{self.name}': rows: found '{self.rows}'; allowed are {', '.join(ROWS)}")
        if self.mode not in ("train", "eval"):
            raise ValueError(f"tap '{self.name}': mode: found '{self.mode}'; allowed are train, eval")
        if self.prefix < 0:
            raise ValueError(f"tap '{self.name}': prefix: found {self.prefix}; expected 0 or more tokens")

    def read(self, output: Any) -> list[Tensor]:
        """The rows (N, D) of a module's output, detached, one tensor per tensor; anything else raises ``ValueError``."""
        for key in self.pick if isinstance(self.pick, tuple) else (self.pick,):
            output = self._item(output, key)
        crops = output if isinstance(output, list) and output else [output]
        if not all(isinstance(crop, Tensor) and crop.is_floating_point() and crop.ndim >= 2 for crop in crops):
            raise ValueError(f"tap '{self.name}': found {_described(output)}; a tap reads floating tensors (N, D, ...)")
        return [self._rows(crop.detach()) for crop in crops]

    def _item(self, output: Any, key: Key) -> Any:
        if isinstance(output, Mapping) and key in output:
            return output[key]
        if isinstance(output, Sequence) and isinstance(key, int) and -len(output) <= key < len(output):
            return output[key]
        if isinstance(key, str) and hasattr(output, key):
            return getattr(output, key)
        raise ValueError(f"tap '{self.name}': pick: {key!r} is not in the output; found {_described(output)}")

    def _rows(self, tensor: Tensor) -> Tensor:
        if self.prefix or self.rows == "class-token":
            self._require_tokens(tensor)
        if tensor.ndim == 2:
            return tensor
        channel = self.channel if self.channel is not None else (2 if tensor.ndim == 3 else 1)
        positions = tensor.movedim(channel, -1)
        if self.rows == "class-token":
            return positions[:, 0]
        positions = positions[:, self.prefix :]
        if self.rows == "flattened":
            return positions.reshape(-1, positions.shape[-1])
        # Not in float64: float32 rounds no worse than the features themselves are, in a twentieth of the time.
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        return positions.mean(tuple(range(1, tensor.ndim - 1)), dtype=dtype)

    def _require_tokens(self, tensor: Tensor) -> None:
        if tensor.ndim != 3 or tensor.shape[2 if self.channel == 1 else 1] <= self.prefix:
            wanted = "a class token" if self.rows == "class-token" else f"a prefix of {self.prefix} tokens"
            raise ValueError(
                f"tap '{self.name}': {wanted} needs a sequence (N, T, D) with more tokens; found {tuple(tensor.shape)}"
            )


def resolve(
    model: nn.Module, layers: Sequence[str | Tap] | Mapping[str, str | Tap]
) -> dict[str, tuple[Tap, nn.Module]]:
    """Taps and their modules by label, from names, globs and taps, or from a mapping of labels to such.

    Without labels the dotted name is the label. Prefixes put there by wrappers (``module.``, ``_orig_mod.``) are ignored.
    An unknown name raises ``KeyError`` with the closest names there are; a label for several modules, or several taps
    with one label, raise ``ValueError``.
    """
    if isinstance(layers, str | Tap):
        raise TypeError(f"layers: found {layers!r} alone, expected a list: [{layers!r}]")
    if not layers:
        raise ValueError("layers: found none; name at least one layer, such as '*' for all")
    modules = {_plain(name): module for name, module in model.named_modules(remove_duplicate=False) if name}
    found: dict[str, tuple[Tap, nn.Module]] = {}
    for label, layer in layers.items() if isinstance(layers, Mapping) else ((None, layer) for layer in layers):
        tap = layer if isinstance(layer, Tap) else Tap(layer)
        names = _match(tap.name, modules)
        if label is not None and len(names) > 1:
            raise ValueError(
                f"label '{label}': '{tap.name}' names {len(names)} modules, such as {names[0]}, {names[1]}"
            )
        for name in names:
            named = replace(tap, name=name)
            if found.setdefault(label or name, (named, modules[name]))[0] != named:
                raise ValueError(f"two taps are named '{name}'; give them labels: {{'label': Tap('{name}', ...), ...}}")
    return found


def _match(pattern: str, names: Mapping[str, nn.Module]) -> list[str]:
    pattern = _plain(pattern)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or list(names)[:3]
        raise KeyError(f"no layer is named '{pattern}'; the closest are {', '.join(close)}")
    return found


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod").removeprefix("module.")


def _described(output: Any) -> str:
    """What an output is, for an error: type, dtype and shape, or the keys to pick from."""
    if isinstance(output, Tensor):
        return f"{output.dtype} {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with keys {', '.join(map(repr, output))}; choose with pick="
    if isinstance(output, Sequence) and not isinstance(output, str):
        return f"{type(output).__name__} of {', '.join(type(item).__name__ for item in output)}; choose with pick="
    fields = ", ".join(vars(output)) if hasattr(output, "__dict__") else ""
    return type(output).__name__ + (f" with fields {fields}; choose with pick=" if fields else "")
