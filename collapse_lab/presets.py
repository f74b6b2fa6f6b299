"""Named groups of configuration overrides, keys dotted as on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from collapse_lab.config import Overrides

# Values of Chen and He (2021), section 3 for ImageNet and appendix D for CIFAR-10. The text gives no probability of the
# blur: 0.5 is that of their code. The crop scale on CIFAR-10 is not stated; that of ImageNet stands in for it.
_COLOUR: Overrides = {
    "augment.jitter": 0.8,
    "augment.brightness": 0.4,
    "augment.contrast": 0.4,
    "augment.saturation": 0.4,
    "augment.hue": 0.1,
    "augment.grayscale": 0.2,
}

AUGMENT: Mapping[str, Overrides] = {
    "digits": {
        "augment.crop_scale": (0.3, 1.0),
        "augment.rotation": 10.0,
        "augment.jitter": 1.0,
        "augment.brightness": 0.2,
    },
    "cifar": {"augment.crop_scale": (0.2, 1.0), "augment.flip": 0.5, **_COLOUR},
    "imagenet": {
        "augment.size": 224,
        "augment.crop_scale": (0.2, 1.0),
        "augment.flip": 0.5,
        **_COLOUR,
        "augment.blur": 0.5,
        "augment.blur_sigma": (0.1, 2.0),
    },
}

_SMALL_PHOTOGRAPHS: Overrides = {
    **AUGMENT["cifar"],
    "network.width": 32,
    "train.epochs": 12,
    "monitor.every": 13,
    "monitor.evaluate_every": 2,
    "monitor.k": 200,
}
_SMALL_GREY: Overrides = {
    **_SMALL_PHOTOGRAPHS,
    "augment.saturation": 0.0,
    "augment.hue": 0.0,
    "augment.grayscale": 0.0,
}

# What each data set changes of the defaults, which are made for the digits: settings that show the effect on a CPU.
DATA: Mapping[str, Overrides] = {
    "digits": AUGMENT["digits"],
    "cifar10": _SMALL_PHOTOGRAPHS,
    "cifar100": _SMALL_PHOTOGRAPHS,
    "stl10": _SMALL_PHOTOGRAPHS,
    "mnist": {**_SMALL_GREY, "augment.flip": 0.0},
    "fashion-mnist": _SMALL_GREY,
    "imagefolder": _SMALL_PHOTOGRAPHS,
    "npz": _SMALL_PHOTOGRAPHS,
}

_WIDE: Overrides = {
    "network.projector_dim": 2048,
    "network.projector_hidden": 2048,
    "network.predictor_hidden": 512,
}

# Heads of Chen & He (2020): ImageNet section 3, CIFAR-10 appendix D, where the predictor's widths are not given. Their code
# makes the hidden layers of the projector as wide as the backbone, and the BatchNorm on z without scale and shift.
HEADS: Mapping[str, Overrides] = {
    "imagenet-head": {**_WIDE, "network.projector_layers": 3, "network.projector_output_norm": "affine"},
    "imagenet-head-code": {
        **_WIDE,
        "network.projector_layers": 3,
        "network.projector_hidden": None,
        "network.projector_output_norm": "non-affine",
    },
    "cifar-head": {**_WIDE, "network.projector_layers": 2, "network.projector_output_norm": "affine"},
}

# What the presets of whole runs set that Chen & He (2020) do not give. CIFAR-10: appendix D is silent on crops, hidden widths,
# the predictor's schedule and kNN. ImageNet-100: the paper has ImageNet itself; crops and lr are of its section 3, the
# probability of the blur of its code, the subset and how it is read of nobody. How often to look is ours in both.
FILLED_IN: Mapping[str, Overrides] = {
    "cifar10-800": {
        "augment.crop_scale": (0.2, 1.0),
        "network.projector_hidden": 2048,
        "network.predictor_hidden": 512,
        "train.predictor_lr": "constant",
        "train.warmup_epochs": 0,
        "train.save_every": 10,
        "monitor.every": 50,
        "monitor.evaluate_every": 10,
        "monitor.k": 200,
        "monitor.temperature": 0.1,
    },
    "imagenet-100": {
        "data.name": "imagefolder",
        "data.image_size": 224,
        "data.stream": True,
        "augment.blur": 0.5,
        "monitor.every": 50,
        "monitor.evaluate_every": 10,
        "monitor.k": 200,
        "monitor.temperature": 0.1,
    },
}

# Whole runs of the paper. The rate is base_lr x batch / 256: 0.06 and 0.1.
RUNS: Mapping[str, Overrides] = {
    "cifar10-800": {
        "data.name": "cifar10",
        **AUGMENT["cifar"],
        **HEADS["cifar-head"],
        "network.backbone": "resnet18",
        "train.epochs": 800,
        "train.batch": 512,
        "train.base_lr": 0.03,
        "train.momentum": 0.9,
        "train.weight_decay": 5e-4,
        **FILLED_IN["cifar10-800"],
    },
    "imagenet-100": {
        **AUGMENT["imagenet"],
        **HEADS["imagenet-head"],
        "network.backbone": "resnet50",
        "train.epochs": 100,
        "train.batch": 512,
        "train.base_lr": 0.05,
        "train.momentum": 0.9,
        "train.weight_decay": 1e-4,
        "train.predictor_lr": "constant",
        **FILLED_IN["imagenet-100"],
    },
}

PRESETS: Mapping[str, Overrides] = {**{f"{name}-views": row for name, row in AUGMENT.items()}, **HEADS, **RUNS}
