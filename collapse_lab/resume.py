"""Which state a run goes on from: the latest checkpoint that is whole, its own, and followed by all of its table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from collapse_lab import config as configuration
from collapse_lab.errors import InputError
from collapse_lab.run_records import METRICS
from collapse_lab.settings import Config
from collapse_lab.snapshots import unsealed

CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"
REFUSED = "checkpoint-refused.pt"
# What a checkpoint says of itself: its configuration, the bytes of the table that it follows, whether every run with
# more epochs comes by this state too, and where it stands.
KNOWN = {"config": dict, "rows": int, "extensible": bool, "step": int, "epochs": int}
LOG = logging.getLogger(__name__)


def latest(directory: Path, config: Config, device: torch.device) -> dict[str, Any] | None:
    """The latest state in a run's directory that can be used; None where there is no checkpoint.

    A checkpoint that cannot be used is named in a warning of the log, with the reason, and set aside as
    ``checkpoint-refused.pt``, lest it take the place of the one before it. Raises ``InputError`` where none can be used.
    """
    newest, previous = directory / CHECKPOINT, directory / PREVIOUS
    refusals = [] if newest.exists() else [f"checkpoint '{newest}' is missing"]
    for path in (found for found in (newest, previous) if found.exists()):
        try:
            state = usable(path, config, device)
        except ValueError as error:
            refusals.append(f"checkpoint '{path}' is refused: {error}")
            continue
        if refusals:
            LOG.warning("%s; going on from %s at step %s", refusals[0], path.name, state.get("step"))
            if newest.exists():
                newest.replace(directory / REFUSED)
        return state
    if newest.exists() or previous.exists():
        raise InputError(f"{'; '.join(refusals)}; --overwrite starts afresh")
    return None


def usable(path: Path, config: Config, device: torch.device) -> dict[str, Any]:
    """The state in one checkpoint; raises ``ValueError`` with the reason why this run cannot go on from it."""
    state = _known(path, device)
    found = configuration.validate(state["config"])
    differing = configuration.differences(found, config)
    if differing and not (state["extensible"] and grown(found, config)):
        raise ValueError(f"it belongs to another run ({'; '.join(differing[:3])})")
    table = path.with_name(METRICS)
    if size(table) < state["rows"]:
        raise ValueError(f"it follows {state['rows']:,} bytes of '{table}', which has only {size(table):,}")
    return state


def extensible(directory: Path) -> bool:
    """Whether all that lies in a run's directory would lie there too if the run were to have more epochs."""
    newest = next((directory / name for name in (CHECKPOINT, PREVIOUS) if (directory / name).exists()), None)
    try:
        return newest is None or _known(newest, torch.device("cpu"))["extensible"]
    except ValueError:
        return False


def grown(found: Config, wanted: Config) -> bool:
    """Whether ``wanted`` is ``found`` with more epochs and all else equal.

    >>> short, long, other = (configuration.build("simsiam", {"train.epochs": n, "train.seed": n // 9}) for n in (2, 5, 9))
    >>> grown(short, long), grown(long, short), grown(short, other)
    (True, False, False)
    """
    others = [line for line in configuration.differences(found, wanted) if not line.startswith("train.epochs:")]
    return not others and wanted.train.epochs > found.train.epochs


def refusal(directory: Path, found: Config, wanted: Config, differing: Sequence[str]) -> str:
    """Why a directory made with one configuration is not for another: the fields, and what more epochs would need."""
    why = (
        f": its learning rates followed the schedule of {found.train.epochs} epochs, so that it cannot become a run of "
        f"{wanted.train.epochs}; epochs can be added only before the warm-up ends"
    )
    return (
        f"run directory '{directory}' was made with another configuration ({'; '.join(differing[:3])})"
        f"{why if grown(found, wanted) else ''}; choose another --name or pass --overwrite"
    )


def size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _known(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        state = unsealed(path.read_bytes(), device)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    for name, kind in KNOWN.items():
        if name not in state:
            raise ValueError(f"it holds no '{name}': another program or version wrote it")
        if type(state[name]) is not kind or (kind is int and state[name] < 0):
            raise ValueError(f"its '{name}' is {state[name]!r:.40}: another program or version wrote it")
    return state
