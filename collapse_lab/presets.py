"""Named groups of configuration overrides, keys dotted as on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from collapse_lab.config import Overrides

# The values of Chen and He (2021), section 3 for ImageNet and appendix D for CIFAR-10. Neither text has a probability of the
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
