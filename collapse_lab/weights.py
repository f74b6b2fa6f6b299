"""The weights in a checkpoint that nobody vouches for: only tensors are unpickled, and where they lie is found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collapse_lab.arrays import refused
from collapse_lab.errors import InputError

DEEPEST = 6


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its dotted place in it; compiled modules lose their ``_orig_mod.``.

    Loaded with ``weights_only=True``: a file that would run code is refused. Raises ``InputError``.
    """
    with refused(f"checkpoint '{path}' cannot be read as weights alone; torch.save its state_dict"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {_plain(name): tensor for name, tensor in _tensors(content, "", DEEPEST)}
    if not tensors:
        raise InputError(f"checkpoint '{path}' holds {type(content).__name__} without tensors; save a state_dict")
    return tensors


def _tensors(content: Any, place: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield place, content
    elif isinstance(content, Mapping) and depth:
        for key, value in content.items():
            yield from _tensors(value, f"{place}.{key}" if place else str(key), depth - 1)


def fitting(
    network: nn.Module, tensors: Mapping[str, Tensor], path: Path, prefix: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """The part of a checkpoint that fills the whole ``state_dict`` of a network, and the prefix where it lies.

    Without ``prefix`` there must be exactly one such part. Raises ``InputError`` naming what is missing or ambiguous.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> fitting(model, {"state_dict.model.weight": torch.ones(1, 2)}, Path("a.pt"))[1]
    'state_dict.model'
    """
    names = {_plain(name): name for name in network.state_dict()}
    needed = {_plain(name): tensor for name, tensor in network.state_dict().items()}
    if not needed:
        raise InputError("--model: the model has no weights, so there is nothing that the checkpoint could fill")
    prefixes = _prefixes(needed, tensors) if prefix is None else [f"{prefix.rstrip('.')}." if prefix else ""]
    missing = {at: [name for name in needed if at + name not in tensors] for at in prefixes}
    complete = [at for at in prefixes if not missing[at]]
    if len(complete) > 1:
        found = ", ".join(f"'{at.rstrip('.')}'" for at in complete)
        raise InputError(
            f"checkpoint '{path}' holds several sets of weights that fit, {found}; choose one with --prefix"
        )
    if not complete:
        raise InputError(_misfit(path, needed, tensors, missing))
    for name in needed:
        tensor = tensors[complete[0] + name]
        if tensor.shape != needed[name].shape:
            raise InputError(
                f"checkpoint '{path}': '{complete[0]}{name}' has shape {tuple(tensor.shape)}, the model's has "
                f"{tuple(needed[name].shape)}; does --model build the model that was saved?"
            )
    return {names[name]: tensors[complete[0] + name] for name in needed}, complete[0].rstrip(".")


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "")


def _prefixes(needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    # The longest name is the one least likely to end another by chance.
    probe = max(needed, key=len)
    return [name.removesuffix(probe) for name in tensors if name == probe or name.endswith(f".{probe}")]


def _misfit(
    path: Path, needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], missing: Mapping[str, list[str]]
) -> str:
    nearest = min(missing, key=lambda at: len(missing[at]), default=None)
    absent = list(needed) if nearest is None else missing[nearest]
    return (
        f"checkpoint '{path}' lacks {len(absent)} of the model's {len(needed)} tensors, '{nearest or ''}{absent[0]}' first; "
        f"it holds {len(tensors)}, the first '{next(iter(tensors))}': does --model build the model that was saved?"
    )
