"""Every field of the configuration as a command-line flag, and the configuration that flags, file and presets make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from collapse_lab.config import Leaf, Overrides, build, leaves, parse, read_toml
from collapse_lab.errors import InputError, did_you_mean
from collapse_lab.methods import method, require_consistent
from collapse_lab.presets import DATA, FILLED_IN, PRESETS
from collapse_lab.settings import Config, DataConfig, DataName

Function = TypeVar("Function", bound=Callable[..., Any])


def configuration_flags(command: Function) -> Function:
    """Add ``--config``, ``--preset`` and a flag for every field of the configuration to a click command."""
    for leaf in reversed(list(leaves())):
        command = _flag(leaf)(command)
    filled = "; ".join(f"{name}: {', '.join(row)}" for name, row in FILLED_IN.items())
    named = f"a named group of settings: {', '.join(PRESETS)}. Filled in beside the paper's values are, in {filled}"
    command = click.option("--preset", multiple=True, metavar="NAME", help=named)(command)
    return click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="a TOML file of settings")(
        command
    )


def data_flags(command: Function) -> Function:
    """Add a flag for every field of the section ``data`` to a click command."""
    for leaf in reversed([leaf for leaf in leaves() if leaf.name.startswith("data.")]):
        command = _flag(leaf)(command)
    return command


def configured_data(source: str | None, values: dict[str, Any]) -> DataConfig:
    """The images that ``source`` names, a data set, an ``.npz`` file or a folder of images; flags win.

    Raises ``InputError`` where it is none of these.
    """
    return build("", data_overrides(source) if source else {}, _given(values)).data


def data_overrides(source: str) -> dict[str, Any]:
    """What a data set's name, an ``.npz`` file or a folder of images changes; ``InputError`` where it is none of these."""
    if source in get_args(DataName):
        return {"data.name": source}
    if Path(source).exists():
        return {"data.name": "imagefolder" if Path(source).is_dir() else "npz", "data.root": source}
    names = ", ".join(get_args(DataName))
    raise InputError(f"--data: found '{source}', which does not exist; expected an .npz file, a folder, or {names}")


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """The overrides in texts such as ``train.epochs=5``; pairs are written ``0.2,1``.

    Raises ``InputError`` for what is no assignment, an unknown key, and a value of the wrong kind.

    >>> assignments(["train.epochs=5", "augment.crop_scale=0.2,1"])
    {'train.epochs': 5, 'augment.crop_scale': (0.2, 1.0)}
    """
    known = {leaf.name: leaf for leaf in leaves()}
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            hint = did_you_mean(name, known, "`collapse-lab train --help` lists the keys")
            what = f"unknown configuration key '{name}'" if equals else f"found '{text}', expected key=value"
            raise InputError(f"--set: {what}; {hint}")
        pair = get_origin(known[name].annotation) is tuple
        found[name] = parse(known[name], tuple(value.split(",")) if pair else value)
    return found


def job_parameters(texts: Iterable[str]) -> dict[str, Any]:
    """What a cluster's jobs ask for, in texts ``key=value``; values are read as JSON where they are that.

    Raises ``InputError`` for what is no assignment.

    >>> job_parameters(["timeout_min=120", "slurm_partition=gpu", "slurm_exclusive=true"])
    {'timeout_min': 120, 'slurm_partition': 'gpu', 'slurm_exclusive': True}
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--job: found '{text}', expected key=value, such as timeout_min=120")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def configured(methods: tuple[str, ...], values: dict[str, Any]) -> tuple[Config, list[Config]]:
    """What the runs share, and the configuration of each method.

    Later layers win: data preset, ``--preset``, method, TOML file, flags. ``values`` are the flags as click gives them.
    Raises ``InputError`` for anything unknown, impossible, or at odds with a method.
    """
    rows = [(name, method(name).settings) for name in methods]
    chosen = {**(read_toml(values["config"]) if values["config"] else {}), **_given(values)}
    asked = [*map(_preset, values["preset"])]
    data = {"data.name": "digits", **{key: value for row in (*asked, chosen) for key, value in row.items()}}[
        "data.name"
    ]
    presets = [DATA.get(data, {}) if isinstance(data, str) else {}, *asked]
    configs = [build(name, *presets, row, chosen) for name, row in rows]
    for name, _ in rows:
        require_consistent(name, chosen)
    return build("", *presets, chosen), configs


def _given(values: dict[str, Any]) -> dict[str, Any]:
    known = {_parameter(leaf): leaf for leaf in leaves()}
    return {
        known[name].name: parse(known[name], value)
        for name, value in values.items()
        if name in known and value is not None and value != ()
    }


def _preset(name: str) -> Overrides:
    if name not in PRESETS:
        raise InputError(f"unknown preset '{name}'; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]


def _flag(leaf: Leaf) -> Callable[[Function], Function]:
    if leaf.annotation is bool:
        return click.option(
            f"--{leaf.name}/--no-{leaf.name}",
            _parameter(leaf),
            default=None,
            help=_help(leaf, str(leaf.default).lower()),
        )
    pair = get_origin(leaf.annotation) is tuple
    shown = " ".join(f"{value:g}" for value in leaf.default) if pair else str(leaf.default).lower()
    return click.option(
        f"--{leaf.name}",
        _parameter(leaf),
        nargs=2 if pair else 1,
        metavar="LOW HIGH" if pair else "VALUE",
        help=_help(leaf, shown),
    )


def _help(leaf: Leaf, default: str) -> str:
    literal = get_origin(leaf.annotation) is Literal
    choices = f": {', '.join(get_args(leaf.annotation))}" if literal else ""
    return f"{leaf.description}{choices} [{default}]"


def _parameter(leaf: Leaf) -> str:
    return leaf.name.replace(".", "__")
