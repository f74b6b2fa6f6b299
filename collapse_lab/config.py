"""The complete description of one run: frozen, typed, checked when made, equal to itself after a trip through JSON.

A configuration is built from layers of overrides, ``{"train.epochs": 5}``, the later layer winning: data-set preset,
method, TOML file, flags. Every value passes the same checks whatever layer it came from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from collapse_lab.errors import InputError, did_you_mean
from collapse_lab.settings import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Overrides = Mapping[str, Any]
ADAPTER = TypeAdapter(Config)


class Leaf(NamedTuple):
    """One field of the configuration under its dotted name."""

    name: str
    annotation: Any
    default: Any
    description: str


def leaves(owner: type = Config, prefix: str = "") -> Iterator[Leaf]:
    """Every field that a flag or a TOML key can set, in order of declaration.

    >>> [leaf.name for leaf in leaves()][:2]
    ['data.name', 'data.root']
    """
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        elif prefix:
            info = owner.__pydantic_fields__[field.name]  # type: ignore[attr-defined]
            yield Leaf(prefix + field.name, info.annotation, info.default, info.description or "")


def build(method: str, *layers: Overrides) -> Config:
    """The configuration of a method with the layers of overrides laid over the defaults, later ones winning.

    Raises ``InputError`` naming the key, the value found and what is allowed.

    >>> build("simsiam", {"train.epochs": 3}, {"train.epochs": 5}).train.epochs
    5
    """
    known = [leaf.name for leaf in leaves()]
    tree: dict[str, Any] = {"method": method}
    for name, value in {name: value for layer in layers for name, value in layer.items()}.items():
        if name not in known:
            hint = did_you_mean(name, known, "`collapse-lab train --help` lists the keys")
            raise InputError(f"unknown configuration key '{name}'; {hint}")
        section, leaf = name.split(".")
        tree.setdefault(section, {})[leaf] = value
    return validate(tree)


def validate(tree: Any) -> Config:
    """A nested dictionary as a ``Config``; raises ``InputError`` for the first thing that is wrong with it.

    Types are JSON's, strictly: "5" and true are no numbers.
    """
    try:
        return ADAPTER.validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        # The location goes on inside unions and tuples; two parts name the field.
        place = ".".join(str(part) for part in error.errors()[0]["loc"][:2])
        raise InputError(_sentence(error, place)) from None


def parse(leaf: Leaf, text: Any) -> Any:
    """The value of a field written as text, or as a pair of texts; ``none`` where the field allows it."""
    optional = NoneType in get_args(leaf.annotation)
    if text == "none" and optional:
        return None
    try:
        return TypeAdapter(leaf.annotation).validate_python(text)
    except ValidationError as error:
        raise InputError(_sentence(error, leaf.name)) from None


def _sentence(error: ValidationError, place: str) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"{place}: found {first['input']!r}, {message[0].lower()}{message[1:]}"


def read_toml(path: Path) -> dict[str, Any]:
    """The overrides in a TOML file: sections are tables, ``[train]`` then ``epochs = 5``; "none" clears a field.

    Raises ``InputError`` where the file is missing or is not TOML.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"configuration file '{path}' cannot be read: {error}") from None
    # Brackets that nest too deep exhaust the reader's stack.
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"configuration file '{path}' is not TOML: {error}") from None
    optional = {leaf.name for leaf in leaves() if NoneType in get_args(leaf.annotation)}
    found: dict[str, Any] = {}
    for section, entries in tree.items():
        if not isinstance(entries, dict):
            raise InputError(f"configuration file '{path}': '{section}' stands outside a table such as [train]")
        found |= {f"{section}.{name}": value for name, value in entries.items()}
    # TOML has no null.
    return {name: None if value == "none" and name in optional else value for name, value in found.items()}


def to_json(config: Config) -> str:
    """The complete configuration as JSON text, keys in order of declaration."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def to_dict(config: Config) -> dict[str, Any]:
    """The complete configuration as plain dictionaries, lists, strings and numbers."""
    tree: dict[str, Any] = ADAPTER.dump_python(config, mode="json")
    return tree


def from_json(text: str) -> Config:
    """The configuration that ``to_json`` wrote; ``from_json(to_json(c)) == c``."""
    return validate(json.loads(text))


def differences(one: Config, other: Config) -> list[str]:
    """The dotted names at which two configurations differ, each with both values.

    >>> differences(build("simsiam"), build("simsiam", {"train.seed": 3}))
    ['train.seed: 0 against 3']
    """
    flat_one, flat_other = _flatten(asdict(one)), _flatten(asdict(other))
    return [f"{key}: {flat_one[key]} against {flat_other[key]}" for key in flat_one if flat_one[key] != flat_other[key]]


def flat(config: Config) -> dict[str, Any]:
    """Every field but the method by its dotted name, as ``build`` takes them."""
    return {name: value for name, value in _flatten(asdict(config)).items() if name != "method"}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
