"""The flags of ``collapse-lab evaluate`` and the request that they make; no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from collapse_lab.errors import InputError
from collapse_lab.flags import configured_data, data_flags
from collapse_lab.recipes import FINETUNE, KINDS, LINEAR, Kind, Recipe, Request
from collapse_lab.settings import DataConfig, DataName

Function = TypeVar("Function", bound=Callable[..., Any])

COUNT, POSITIVE = click.IntRange(min=1), click.FloatRange(min=0, min_open=True)
# Above, a step would not fit into float32.
BASE_RATE = click.FloatRange(min=0, min_open=True, max=1e30)
PATH = click.Path(path_type=Path)
RATE = "for 256 images; the rate is this x batch / 256"
OPTIONS = (
    click.option("--features", default="clean", metavar="KIND,...", help=f"some of {', '.join(KINDS)} [clean]"),
    click.option("--views", type=COUNT, default=16, help="K, over which the means are [16]"),
    click.option("--k", type=COUNT, help="neighbours of the kNN classifier [the run's]"),
    click.option("--temperature", type=POSITIVE, help="T of the kNN weights exp(s/T) [the run's]"),
    click.option("--penalty", type=POSITIVE, help="of linear-fast [chosen on held-out training images]"),
    click.option(
        "--linear-paper", type=click.Choice(list(LINEAR)), multiple=True, help="the linear evaluation of Chen & He, too"
    ),
    click.option("--linear.epochs", "linear__epochs", type=COUNT, help="of linear-paper [90]"),
    click.option("--linear.batch", "linear__batch", type=COUNT, help="of linear-paper [256; lars, larc 4096]"),
    click.option("--linear.rate", "linear__base_rate", type=BASE_RATE, help=f"{RATE} [30; lars 0.02, larc 0.1]"),
    click.option("--transfer", metavar="NAME|PATH", help="other images: a data set's name, an .npz file or a folder"),
    click.option("--finetune", is_flag=True, help="train all weights on the images of --transfer, too"),
    click.option("--finetune.epochs", "finetune__epochs", type=COUNT, help=f"[{FINETUNE.epochs}]"),
    click.option("--finetune.batch", "finetune__batch", type=COUNT, help=f"[{FINETUNE.batch}]"),
    click.option("--finetune.rate", "finetune__base_rate", type=BASE_RATE, help=f"{RATE} [{FINETUNE.base_rate:g}]"),
    click.option(
        "--flip",
        type=click.FloatRange(0, 1),
        help="of linear-paper and finetune [0.5; 0 where the run's own views are never flipped]",
    ),
    click.option("--baselines/--no-baselines", default=True, help="the initial network and raw pixels, too [yes]"),
    click.option("--last-checkpoint", is_flag=True, help="take a run that diverged or is not at its end as it is"),
    click.option("--root", type=PATH, help="where the run's own images lie now [as its configuration says]"),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="[auto]"),
    click.option("--out", type=PATH, metavar="FILE", help="where the document is written [RUN/evaluation.json]"),
)


def evaluation_flags(command: Function) -> Function:
    """Add the flags of an evaluation, and those of the section ``data`` for ``--transfer``, to a click command."""
    command = data_flags(command)
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def requested(values: dict[str, Any]) -> Request:
    """The request that the flags make, ``values`` being as click gives them; raises ``InputError``."""
    kinds = tuple(name.strip() for name in values["features"].split(","))
    if unknown := [name for name in kinds if name not in KINDS]:
        raise InputError(f"--features: found '{unknown[0]}'; expected some of {', '.join(KINDS)}, with commas between")
    for name in ("temperature", "penalty"):
        if not math.isfinite(values[name] or 0):
            raise InputError(f"--{name}: found {values[name]}; expected a positive number")
    changes = {section: _changes(section, values) for section in ("linear", "finetune")}
    if changes["linear"] and not values["linear_paper"]:
        raise InputError("--linear.epochs, --linear.batch and --linear.rate belong to --linear-paper sgd|lars|larc")
    if changes["finetune"] and not values["finetune"]:
        raise InputError("--finetune.epochs, --finetune.batch and --finetune.rate belong to --finetune")
    if values["finetune"] and values["transfer"] is None:
        raise InputError("--finetune: no images; --transfer names the data set to fine-tune on")
    known: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind in kinds)
    linear: dict[str, Recipe] = {name: replace(LINEAR[name], **changes["linear"]) for name in values["linear_paper"]}
    return Request(
        kinds=known,
        **{name: values[name] for name in ("views", "k", "temperature", "penalty", "flip", "baselines")},
        linear_paper=linear,
        finetune=replace(FINETUNE, **changes["finetune"]) if values["finetune"] else None,
    )


def transfer_images(values: dict[str, Any]) -> DataConfig | None:
    """The images of ``--transfer``, none without it; raises ``InputError`` for data flags that belong to nothing."""
    source = values["transfer"]
    if source is not None:
        names = get_args(DataName)
        if source not in names and not Path(source).exists():
            raise InputError(
                f"--transfer: found '{source}', which does not exist; expected an .npz file, a folder, or {', '.join(names)}"
            )
        return configured_data(source, values)
    for name, value in values.items():
        if name.startswith("data__") and value is not None:
            flag = name.replace("__", ".")
            raise InputError(f"--{flag}: belongs to --transfer; the run's own images are those it was trained on")
    return None


def _changes(section: str, values: dict[str, Any]) -> dict[str, Any]:
    given = {name: values[f"{section}__{name}"] for name in ("epochs", "batch", "base_rate")}
    return {name: value for name, value in given.items() if value is not None}
