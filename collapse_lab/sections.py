"""The sections of a configuration: frozen dataclasses, each field with its type, bounds, default and meaning."""

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
    stream: Annotated[
        bool, Field(description="imagefolder: decode at every step, views cut out of the whole photograph")
    ] = False

    @model_validator(mode="after")
    def check(self) -> DataConfig:
        """Refuse to stream what lies in one array."""
        if self.stream and self.name != "imagefolder":
            raise ValueError(f"data.stream: found true with data.name '{self.name}'; only imagefolder can be streamed")
        return self


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
    start: Annotated[
        Literal["default", "centred", "near-constant"],
        Field(description="initial outputs: as they come, around a mean of 0, or around one far from it"),
    ] = "default"
    predictor: Annotated[Literal["mlp", "identity", "linear", "bias", "direct"], Field(description="h")] = "mlp"
    predictor_hidden: Annotated[Count, Field(description="hidden width of the predictor")] = 32
    predictor_hidden_norm: Annotated[bool, Field(description="BatchNorm on the hidden layer of the predictor")] = True
    predictor_output_norm: Annotated[OutputNorm, Field(description="BatchNorm on p")] = "none"
    predictor_frozen: Annotated[bool, Field(description="leave the predictor as initialised")] = False
    direct_decay: Annotated[Share, Field(description="direct: rho, share of the old F in its running average")] = 0.3
    direct_boost: Annotated[NonNegative, Field(description="direct: eps, added to p_j as a share of max s_j")] = 0.1
    direct_every: Annotated[Count, Field(description="direct: steps between two eigendecompositions")] = 1

    @model_validator(mode="after")
    def check(self) -> NetworkConfig:
        """Refuse to freeze what is not trained."""
        if self.predictor in ("identity", "direct") and self.predictor_frozen:
            raise ValueError(
                f"network.predictor_frozen: found true with predictor '{self.predictor}', which has no trained weights"
            )
        if self.start != "default" and self.projector_output_norm == "non-affine":
            raise ValueError(
                f"network.start: found '{self.start}' with projector_output_norm 'non-affine', which sets the mean itself"
            )
        return self


@dataclass(frozen=True, config=NO_EXTRA)
class ObjectiveConfig:
    """Which way the encoder's gradient goes, which views are predicted, and the loss."""

    stop_gradient: Annotated[
        Literal["target", "prediction", "none"], Field(description="branch cut off from the encoder's gradient")
    ] = "target"
    loss: Annotated[
        Literal["negative-cosine", "mse", "cross-entropy", "nt-xent", "info-nce", "swapped-prediction"],
        Field(description="loss of p and t"),
    ] = "negative-cosine"
    symmetric: Annotated[bool, Field(description="predict both views of a pair, not only the first")] = True
    pairs: Annotated[Count, Field(description="pairs of views of an image")] = 1
    temperature: Annotated[Positive, Field(description="of nt-xent, info-nce and swapped-prediction")] = 0.1
    queue: Annotated[Count, Field(description="info-nce: earlier targets kept as negatives")] = 4096
    prototypes: Annotated[Count, Field(description="swapped-prediction: number of prototypes")] = 128
    sinkhorn_epsilon: Annotated[Positive, Field(description="swapped-prediction: entropy weight of the codes")] = 0.05
    sinkhorn_iterations: Annotated[Count, Field(description="swapped-prediction: iterations for the codes")] = 3


@dataclass(frozen=True, config=NO_EXTRA)
class TargetConfig:
    """What is matched: whose weights, which estimate of the expectation over views, which head."""

    network: Annotated[Literal["online", "lagged"], Field(description="whose weights make the target")] = "online"
    momentum: Annotated[Share, Field(description="lagged: m of the moving average of weights; 0 copies")] = 0.0
    every: Annotated[Count | Literal["epoch"], Field(description="lagged: steps between two updates, or 'epoch'")] = 1
    estimate: Annotated[
        Literal["other-view", "mean-output", "mean-input", "memory"], Field(description="of E_T[F(T x)]")
    ] = "other-view"
    views: Annotated[Count, Field(description="mean-output, mean-input: K, views drawn for the target alone")] = 8
    normalised: Annotated[bool, Field(description="mean-output, memory: average l2-normalised outputs")] = True
    eta_momentum: Annotated[Share, Field(description="memory: m, share of the old eta in the new one")] = 0.8
    eta_start: Annotated[
        Literal["first-visit", "random"], Field(description="memory: the other view at first, or a random unit vector")
    ] = "first-visit"
    eta_dtype: Annotated[Literal["float32", "float16"], Field(description="memory: how eta is kept")] = "float32"
    head: Annotated[
        Literal["identity", "predictor", "inverse-predictor", "centring", "decorrelation"],
        Field(description="what is made of the other view's z before it is matched"),
    ] = "identity"


@dataclass(frozen=True, config=NO_EXTRA)
class TrainConfig:
    """Optimisation."""

    seed: Annotated[int, Field(ge=0, description="seed of weights, order and views")] = 0
    start: Annotated[
        str | None, Field(description="arm of the same study whose final weights of the same seed are the initial ones")
    ] = None
    epochs: Annotated[int, Field(ge=0, description="passes over the training images")] = 60
    batch: Annotated[int, Field(ge=2, description="images in a step")] = 128
    base_lr: Annotated[
        Positive, Field(description="learning rate for 256 images; the rate is base_lr x batch / 256")
    ] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum of SGD")] = 0.9
    weight_decay: Annotated[NonNegative, Field(description="on every parameter, biases and BatchNorm too")] = 5e-4
    warmup_epochs: Annotated[int, Field(ge=0, description="epochs of linear warm-up")] = 0
    optimizer: Annotated[Literal["sgd", "lars"], Field(description="optimizer, with momentum")] = "sgd"
    predictor_lr: Annotated[Literal["constant", "decayed"], Field(description="schedule of the predictor's rate")] = (
        "constant"
    )
    predictor_rate: Annotated[Positive, Field(description="the predictor's rate as a multiple of the encoder's")] = 1.0
    predictor_steps: Annotated[
        Count, Field(description="updates of the predictor for one of the encoder; its readings pool them")
    ] = 1
    accumulate: Annotated[Count, Field(description="equal parts in which the batch goes through the networks")] = 1
    precision: Annotated[Literal["float32", "bfloat16"], Field(description="of the networks; losses are float32")] = (
        "float32"
    )
    channels_last: Annotated[bool, Field(description="memory layout of the images")] = False
    compile: Annotated[bool, Field(description="compile the backbones with torch.compile")] = False
    save_every: Annotated[
        Count, Field(description="epochs between two checkpoints; interrupted, a run saves at once")
    ] = 1
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
    expectation_views: Annotated[
        int,
        Field(
            ge=0, multiple_of=2, description="views of an image from which each evaluation reckons E_T[F(T x)]; 0: none"
        ),
    ] = 0
    probe: Annotated[bool, Field(description="linear probe of the backbone at the start and the end")] = True
