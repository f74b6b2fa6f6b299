"""The complete description of one run: frozen, typed, checked when made, equal to itself after a trip through JSON.

A configuration is built from layers of overrides, ``{"train.epochs": 5}``, the later layer winning: data-set preset,
method, TOML file, flags. Every value passes the same checks whatever layer it came from.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from collapse_lab.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Overrides = Mapping[str, Any]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OutputNorm = Literal["none", "affine", "non-affine"]
DataName = Literal["digits", "cifar10", "cifar100", "stl10", "mnist", "fashion-mnist", "imagefolder", "npz"]
NO_EXTRA = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=NO_EXTRA)
class DataConfig:
    """Which images."""

    name: Annotated[DataName, Field(description="data set")] = "digits"
    root: Annotated[Path | None, Field(description="folder of the data set; the file itself for npz")] = None
    download: Annotated[bool, Field(description="let torchvision fetch the data set into root")] = False
    train_images: Annotated[Count | None, Field(description="keep this many, the first of each class alike")] = None
    test_images: Annotated[Count | None, Field(description="keep this many, the first of each class alike")] = None
    validation: Annotated[
        float, Field(ge=0, lt=1, description="share of the training images that takes the test set's place")
    ] = 0.0
    image_size: Annotated[Count, Field(description="imagefolder: side to which images are resized and cropped")] = 64


@dataclass(frozen=True, config=NO_EXTRA)
class AugmentConfig:
    """How a view is drawn from an image; a value of 0 leaves the step out."""

    size: Annotated[Count | None, Field(description="side of a view in pixels; none: that of the image")] = None
    crop_scale: Annotated[tuple[Positive, Positive], Field(description="share of the area kept, low and high")] = (
        0.2,
        1.0,
    )
    crop_ratio: Annotated[tuple[Positive, Positive], Field(description="width over height, low and high")] = (
        0.75,
        4 / 3,
    )
    flip: Annotated[Share, Field(description="probability of a horizontal flip")] = 0.0
    jitter: Annotated[Share, Field(description="probability of the colour jitter")] = 0.0
    brightness: Annotated[NonNegative, Field(description="colour jitter, as in torchvision")] = 0.0
    contrast: Annotated[NonNegative, Field(description="colour jitter, as in torchvision")] = 0.0
    saturation: Annotated[NonNegative, Field(description="colour jitter, as in torchvision")] = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5, description="colour jitter, as in torchvision")] = 0.0
    grayscale: Annotated[Share, Field(description="probability of grayscale")] = 0.0
    blur: Annotated[Share, Field(description="probability of a Gaussian blur")] = 0.0
    blur_sigma: Annotated[tuple[Positive, Positive], Field(description="blur in pixels, low and high")] = (0.1, 2.0)
    rotation: Annotated[float, Field(ge=0, le=180, description="largest rotation in degrees")] = 0.0

    @model_validator(mode="after")
    def check(self) -> AugmentConfig:
        """Refuse ranges that run backwards."""
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"augment.{name}: found ({low}, {high}), the first value may not exceed the second")
        if self.crop_scale[1] > 1:
            raise ValueError(f"augment.crop_scale: found {self.crop_scale}, a crop is at most the image: 1.0")
        return self


@dataclass(frozen=True, config=NO_EXTRA)
class NetworkConfig:
    """Encoder (backbone and projector) and predictor."""

    backbone: Annotated[
        Literal["small", "resnet18", "resnet34", "resnet50", "resnet101"], Field(description="backbone")
    ] = "small"
    width: Annotated[Count, Field(description="channels of the first stage of the small backbone")] = 16
    projector_layers: Annotated[Count, Field(description="linear layers of the projector")] = 2
    projector_hidden: Annotated[Count | None, Field(description="hidden width; none: that of the backbone")] = 128
    projector_dim: Annotated[Count, Field(description="d, the width of z")] = 128
    projector_hidden_norm: Annotated[bool, Field(description="BatchNorm on hidden layers of the projector")] = True
    projector_output_norm: Annotated[OutputNorm, Field(description="BatchNorm on z")] = "none"
    predictor: Annotated[Literal["mlp", "identity"], Field(description="h")] = "mlp"
    predictor_hidden: Annotated[Count, Field(description="hidden width of the predictor")] = 32
    predictor_hidden_norm: Annotated[bool, Field(description="BatchNorm on the hidden layer of the predictor")] = True
    predictor_output_norm: Annotated[OutputNorm, Field(description="BatchNorm on p")] = "none"
    predictor_frozen: Annotated[bool, Field(description="leave the predictor as initialised")] = False

    @model_validator(mode="after")
    def check(self) -> NetworkConfig:
        """Refuse to freeze what has no weights."""
        if self.predictor == "identity" and self.predictor_frozen:
            raise ValueError("network.predictor_frozen: found true with predictor 'identity', which has no weights")
        return self


@dataclass(frozen=True, config=NO_EXTRA)
class ObjectiveConfig:
    """What is matched with what, and which way the encoder's gradient goes."""

    stop_gradient: Annotated[
        Literal["target", "prediction", "none"], Field(description="branch cut off from the encoder's gradient")
    ] = "target"
    loss: Annotated[Literal["negative-cosine", "mse", "cross-entropy"], Field(description="loss of p and t")] = (
        "negative-cosine"
    )


@dataclass(frozen=True, config=NO_EXTRA)
class TrainConfig:
    """Optimisation."""

    seed: Annotated[int, Field(ge=0, description="seed of weights, order and views")] = 0
    epochs: Annotated[int, Field(ge=0, description="passes over the training images")] = 60
    batch: Annotated[int, Field(ge=2, description="images in a step")] = 128
    base_lr: Annotated[
        Positive, Field(description="learning rate for 256 images; the rate is base_lr x batch / 256")
    ] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum of SGD")] = 0.9
    weight_decay: Annotated[NonNegative, Field(description="on every parameter, biases and BatchNorm too")] = 5e-4
    warmup_epochs: Annotated[int, Field(ge=0, description="epochs of linear warm-up")] = 0
    predictor_lr: Annotated[Literal["constant", "decayed"], Field(description="schedule of the predictor's rate")] = (
        "constant"
    )
    precision: Annotated[Literal["float32", "bfloat16"], Field(description="of the networks; losses are float32")] = (
        "float32"
    )
    channels_last: Annotated[bool, Field(description="memory layout of the images")] = False
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU where there is one")] = "auto"
    threads: Annotated[Count, Field(description="CPU threads of a run; results depend on it in the last bits")] = 1

    @model_validator(mode="after")
    def check(self) -> TrainConfig:
        """Refuse a warm-up that never ends."""
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"train.warmup_epochs: found {self.warmup_epochs}, must be less than train.epochs ({self.epochs})"
            )
        return self


@dataclass(frozen=True, config=NO_EXTRA)
class MonitorConfig:
    """What is recorded, how often."""

    every: Annotated[Count, Field(description="steps between two readings of the training batch")] = 5
    evaluate_every: Annotated[Count, Field(description="epochs between two evaluations on the test images")] = 5
    k: Annotated[Count, Field(description="neighbours of the kNN classifier")] = 20
    temperature: Annotated[Positive, Field(description="T of the kNN weights exp(s/T)")] = 0.1
    on_collapse: Annotated[
        Literal["ignore", "warn", "stop"], Field(description="what an alarm on the run's own history does")
    ] = "ignore"
    probe: Annotated[bool, Field(description="linear probe of the backbone at the start and the end")] = True


@dataclass(frozen=True, config=NO_EXTRA)
class Config:
    """Everything that decides the numbers of one run."""

    method: str = "simsiam"
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)


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
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`collapse-lab train --help` lists the keys"
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
