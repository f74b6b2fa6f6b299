"""The settings of a run: frozen dataclasses, one a section, each field with its type, bounds, default and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

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
