"""The accuracies that the papers print, in one table: theirs, on their data and networks, never shown as ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SIMSIAM = "Chen & He (2020)"
DIRECTPRED = "Tian, Chen & Ganguli (2021)"
IMAGENET = "ImageNet, ResNet-50, linear evaluation, 100 epochs"


class Number(NamedTuple):
    """One printed number: ``value`` and, where it is given, ``std`` in percent (AP in its usual hundredths)."""

    value: float
    std: float | None
    what: str
    source: str
    setting: str

    def text(self) -> str:
        """The number as printed, NaN for a run that diverged.

        >>> NUMBERS["figure-2/stop-gradient"].text(), NUMBERS["table-1/b"].text()
        ('67.7 ± 0.1', '1.5')
        """
        if math.isnan(self.value):
            return "NaN"
        return f"{self.value:.4g}" if self.std is None else f"{self.value:.4g} ± {self.std:g}"


def _rows(
    prefix: str, place: str, setting: str, rows: Mapping[str, tuple[str, float] | tuple[str, float, float]]
) -> dict[str, Number]:
    """Rows of one place in a paper: the key's second half -> what it is, the value and where given its deviation."""
    return {
        f"{prefix}/{name}": Number(row[1], row[2] if len(row) == 3 else None, row[0], place, setting)
        for name, row in rows.items()
    }


def _table_4() -> dict[str, Number]:
    epochs = (100, 200, 400, 800)
    rows = {
        "simclr": ("SimCLR, batch 4096", (66.5, 68.3, 69.8, 70.4)),
        "mocov2": ("MoCo v2, batch 256", (67.4, 69.9, 71.0, 72.2)),
        "byol": ("BYOL, batch 4096", (66.5, 70.6, 73.2, 74.3)),
        "swav": ("SwAV, batch 4096", (66.5, 69.1, 70.7, 71.8)),
        "simsiam": ("SimSiam, batch 256", (68.1, 70.0, 70.8, 71.3)),
    }
    return {
        f"table-4/{name}/{count}": Number(
            value,
            None,
            f"{what}, {count} epochs",
            f"{SIMSIAM}, Table 4",
            f"ImageNet, ResNet-50, linear, {count} epochs",
        )
        for name, (what, values) in rows.items()
        for count, value in zip(epochs, values, strict=True)
    }


def _table_5() -> dict[str, Number]:
    tasks = ("voc07", "voc0712", "coco-box", "coco-mask")
    rows = {
        "scratch": (35.9, 16.8, 13.0, 60.2, 33.8, 33.1, 44.0, 26.4, 27.8, 46.9, 29.3, 30.8),
        "supervised": (74.4, 42.4, 42.7, 81.3, 53.5, 58.8, 58.2, 38.2, 41.2, 54.7, 33.3, 35.2),
        "simclr": (75.9, 46.8, 50.1, 81.8, 55.5, 61.4, 57.7, 37.9, 40.9, 54.6, 33.3, 35.3),
        "mocov2": (77.1, 48.5, 52.5, 82.3, 57.0, 63.3, 58.8, 39.2, 42.5, 55.5, 34.3, 36.6),
        "byol": (77.1, 47.0, 49.9, 81.4, 55.3, 61.1, 57.8, 37.9, 40.9, 54.3, 33.2, 35.0),
        "swav": (75.5, 46.5, 49.6, 81.5, 55.4, 61.4, 57.6, 37.6, 40.3, 54.2, 33.1, 35.1),
        "simsiam": (75.5, 47.0, 50.2, 82.0, 56.4, 62.8, 57.5, 37.9, 40.9, 54.2, 33.2, 35.2),
        "simsiam-optimal": (77.3, 48.5, 52.5, 82.4, 57.0, 63.7, 59.3, 39.2, 42.1, 56.0, 34.4, 36.7),
    }
    measures = [(task, score) for task in tasks for score in ("ap50", "ap", "ap75")]
    return {
        f"table-5/{name}/{task}/{score}": Number(
            value,
            None,
            f"{name}, {score.upper()} on {task}",
            f"{SIMSIAM}, Table 5",
            "transfer of ResNet-50, 200 epochs of ImageNet",
        )
        for name, values in rows.items()
        for (task, score), value in zip(measures, values, strict=True)
    }


_FIGURE_2 = _rows(
    "figure-2",
    f"{SIMSIAM}, Figure 2",
    IMAGENET,
    {"stop-gradient": ("with stop-gradient, 5 trials", 67.7, 0.1), "no-stop-gradient": ("without stop-gradient", 0.1)},
)
_TABLE_1 = _rows(
    "table-1",
    f"{SIMSIAM}, Table 1",
    IMAGENET,
    {
        "baseline": ("predictor's rate decayed with a cosine", 67.7),
        "a": ("no predictor", 0.1),
        "b": ("fixed random predictor", 1.5),
        "c": ("predictor's rate not decayed", 68.1),
    },
)
_TABLE_2 = _rows(
    "table-2",
    f"{SIMSIAM}, Table 2",
    IMAGENET,
    {
        f"{batch}": (f"batch {batch}", value)
        for batch, value in {64: 66.1, 128: 67.3, 256: 68.1, 512: 68.1, 1024: 68.0, 2048: 67.9, 4096: 64.0}.items()
    },
)
_TABLE_3 = _rows(
    "table-3",
    f"{SIMSIAM}, Table 3",
    IMAGENET,
    {
        "a": ("no BatchNorm in the heads, which did not collapse", 34.6),
        "b": ("BatchNorm on hidden layers only", 67.4),
        "c": ("BatchNorm on hidden layers and on z", 68.1),
    },
)
_SECTIONS = {
    **_rows("section-4.4", f"{SIMSIAM}, section 4.4", IMAGENET, {"non-affine": ("BatchNorm on z not affine", 68.2)}),
    **_rows(
        "section-4.5",
        f"{SIMSIAM}, section 4.5",
        IMAGENET,
        {"cosine": ("cosine similarity", 68.1), "cross-entropy": ("cross-entropy similarity", 63.2)},
    ),
    **_rows(
        "section-4.6",
        f"{SIMSIAM}, section 4.6",
        IMAGENET,
        {
            "symmetric": ("symmetrised loss", 68.1),
            "asymmetric": ("asymmetric loss", 64.8),
            "asymmetric-2x": ("asymmetric loss, two pairs an image", 67.3),
        },
    ),
    **_rows(
        "section-5.2",
        f"{SIMSIAM}, section 5.2",
        IMAGENET,
        {
            "1-step": ("alternation, 1 step", 68.1),
            "10-step": ("alternation, 10 steps", 68.7),
            "100-step": ("alternation, 100 steps", 68.9),
            "1-epoch": ("alternation, one epoch", 67.0),
            "moving-average": ("moving average of eta, m = 0.8, no predictor", 55.0),
        },
    ),
    **_rows(
        "section-6.2",
        f"{SIMSIAM}, section 6.2",
        IMAGENET,
        {
            "simclr": ("SimCLR", 66.5),
            "simclr-predictor": ("SimCLR with predictor", 66.4),
            "simclr-predictor-stop-gradient": ("SimCLR with predictor and stop-gradient", 66.0),
            "swav": ("SwAV", 66.5),
            "swav-predictor": ("SwAV with predictor", 65.2),
            "swav-no-stop-gradient": ("SwAV without stop-gradient, which diverged", math.nan),
        },
    ),
    **_rows(
        "appendix-B",
        f"{SIMSIAM}, appendix B",
        IMAGENET,
        {f"{d}": (f"d = {d}", value) for d, value in {256: 65.3, 512: 67.2, 1024: 67.5, 2048: 68.1}.items()},
    ),
    **_rows(
        "appendix-D",
        f"{SIMSIAM}, appendix D",
        "CIFAR-10, ResNet-18, linear evaluation, 800 epochs",
        {"simsiam": ("SimSiam", 91.8), "simclr": ("SimCLR", 91.1)},
    ),
    **_rows(
        "footnote-2",
        f"{SIMSIAM}, footnote 2, from BYOL's report",
        "ImageNet, ResNet-50, linear evaluation",
        {
            "byol-v3": ("BYOL without momentum encoder, predictor's rate x 10, 300 epochs", 66.9),
            "byol-v1": ("BYOL without momentum encoder, first version", 0.3),
        },
    ),
}
_TABLE_C1 = _rows(
    "table-C.1",
    f"{SIMSIAM}, Table C.1",
    "ImageNet, ResNet-50, linear evaluation",
    {
        **{
            f"{name}-{epochs}/{whose}": (f"{name}, {epochs} epochs, {whose}", value)
            for name, epochs, whose, value in (
                ("simclr", 200, "original", 66.6),
                ("simclr", 800, "original", 68.3),
                ("simclr", 1000, "original", 69.3),
                ("simclr", 200, "reproduction", 68.3),
                ("simclr", 800, "reproduction", 70.4),
                ("mocov2", 200, "original", 67.5),
                ("mocov2", 800, "original", 71.1),
                ("mocov2", 200, "reproduction", 69.9),
                ("mocov2", 800, "reproduction", 72.2),
                ("byol", 300, "original", 72.5),
                ("byol", 1000, "original", 74.3),
                ("byol", 300, "reproduction", 72.4),
                ("byol", 800, "reproduction", 74.3),
                ("swav", 400, "original", 70.1),
                ("swav", 400, "reproduction", 70.7),
            )
        }
    },
)
_STL10 = "STL-10, ResNet-18, BYOL, 100 epochs, 5 runs"
_CIFAR10 = "CIFAR-10, ResNet-18, BYOL, 100 epochs"
_DIRECTPRED = {
    **_rows(
        "directpred/stl10",
        DIRECTPRED,
        _STL10,
        {
            "linear/ema/symmetric": ("linear predictor, symmetric", 75.09, 0.48),
            "linear/ema/regular": ("linear predictor, regular", 74.51, 0.47),
            "linear/no-ema/symmetric": ("linear predictor, symmetric, no moving average", 36.62, 1.85),
            "linear/no-ema/regular": ("linear predictor, regular, no moving average", 72.85, 0.16),
            "mlp/ema/symmetric": ("two-layer predictor, symmetric", 71.58, 6.46),
            "mlp/ema/regular": ("two-layer predictor, regular", 78.85, 0.25),
            "mlp/no-ema/symmetric": ("two-layer predictor, symmetric, no moving average", 35.59, 2.10),
            "mlp/no-ema/regular": ("two-layer predictor, regular, no moving average", 65.98, 0.71),
            "eps-0": ("DirectPred, eps 0", 76.77),
            "eps-0.01": ("DirectPred, eps 0.01", 77.11),
            "eps-0.1": ("DirectPred, eps 0.1", 77.86),
            "eps-0.5": ("DirectPred, eps 0.5", 75.06),
        },
    ),
    **_rows(
        "directpred/cifar10",
        DIRECTPRED,
        _CIFAR10,
        {
            "directpred": ("DirectPred", 85.21),
            "every-5": ("DirectPred every 5 batches", 84.93),
            "linear": ("linear predictor by SGD", 84.49),
        },
    ),
    **_rows(
        "directpred/imagenet",
        DIRECTPRED,
        "ImageNet, ResNet-50, BYOL, 60 epochs",
        {
            "mlp": ("two-layer predictor", 64.7),
            "linear": ("linear predictor", 59.4),
            "directpred": ("DirectPred", 64.4),
        },
    ),
    **_rows(
        "directpred/simsiam",
        DIRECTPRED,
        "ImageNet, SimSiam with a linear predictor",
        {"symmetric": ("symmetric predictor", 0.1), "regular": ("regular predictor", 68.1)},
    ),
}

NUMBERS: Mapping[str, Number] = MappingProxyType(
    {
        **_FIGURE_2,
        **_TABLE_1,
        **_TABLE_2,
        **_TABLE_3,
        **_SECTIONS,
        **_table_4(),
        **_table_5(),
        **_TABLE_C1,
        **_DIRECTPRED,
    }
)
