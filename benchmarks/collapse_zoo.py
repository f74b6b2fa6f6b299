"""The collapse zoo: small real runs, healthy ones and ones in which one ingredient is broken at a known step.

    python benchmarks/collapse_zoo.py ZOO [--part I/N] [--fashion DIR] [--cifar FILE]

trains every run that ``ZOO`` does not hold yet with the package's own trainer and records it there, one directory a run.
An intervention changes one thing in the running trainer between two steps, or in the configuration for runs that fail
from the first step. ``collapse_bounds.py`` and ``collapse_report.py`` read the records.
"""

from __future__ import annotations

import argparse
import csv
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from collapse_lab import data
from collapse_lab.config import Overrides, build
from collapse_lab.data import Images
from collapse_lab.evaluate import evaluate
from collapse_lab.geometry import moments
from collapse_lab.monitors.verdict import measure
from collapse_lab.presets import DATA
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.trainer import Diverged, Trainer

SEEDS = range(5)
AFFINE: Overrides = {"network.projector_output_norm": "affine"}
NON_AFFINE: Overrides = {"network.projector_output_norm": "non-affine"}


class Setting(NamedTuple):
    """A healthy kind of run: overrides of the digits' defaults, the architecture, and whether tuning may see it."""

    overrides: Overrides
    architecture: str = "small"
    held_back: bool = False


SETTINGS = {
    "plain": Setting({}),
    "affine": Setting(AFFINE),
    "non-affine": Setting(NON_AFFINE),
    "slow": Setting({"train.base_lr": 0.1, "train.weight_decay": 1e-4}),
    "affine-batch-64": Setting({**AFFINE, "train.batch": 64, "train.epochs": 20}),
    "batch-256": Setting({"train.batch": 256, "train.epochs": 80}),
    "non-affine-256": Setting({**NON_AFFINE, "network.projector_dim": 256}, held_back=True),
    "affine-64-wide": Setting({**AFFINE, "network.projector_dim": 64, "network.width": 24}),
    "decayed-weak-crop": Setting({"train.predictor_lr": "decayed", "augment.crop_scale": (0.5, 1.0)}),
    "affine-deep": Setting({**AFFINE, "network.projector_layers": 3}, held_back=True),
    "fast": Setting({"train.base_lr": 0.4, "train.weight_decay": 1e-3}, held_back=True),
    "non-affine-wide-h": Setting({**NON_AFFINE, "network.predictor_hidden": 64, "train.warmup_epochs": 3}),
    "mlp": Setting({}, "mlp", held_back=True),
    "mlp-affine": Setting(AFFINE, "mlp", held_back=True),
    "mlp-non-affine": Setting(NON_AFFINE, "mlp", held_back=True),
}
PHOTOGRAPHS = {"fashion-affine": AFFINE, "fashion-plain": {}, "cifar-affine": AFFINE, "cifar-plain": {}}


class Failure(NamedTuple):
    """A failing kind: what is broken, by the configuration from the first step or by an act at a random step."""

    what: str
    overrides: Overrides = MappingProxyType({})
    act: Callable[[Trainer], None] | None = None
    held_back: bool = False


def _stop_gradient(value: str) -> Callable[[Trainer], None]:
    def act(trainer: Trainer) -> None:
        trainer.objective.stop_gradient = value

    return act


def _train(**changes: float) -> Callable[[Trainer], None]:
    """Multiply fields of ``config.train``; weight decay and momentum live in the optimizer's groups as well."""

    def act(trainer: Trainer) -> None:
        train = trainer.config.train
        changed = {name: getattr(train, name) * factor for name, factor in changes.items()}
        trainer.config = replace(trainer.config, train=replace(train, **changed))
        for group in trainer.optimizer.param_groups:
            group.update({name: value for name, value in changed.items() if name in group})

    return act


def _bypass_predictor(trainer: Trainer) -> None:
    trainer.objective.predictor.forward = lambda z: z  # type: ignore[method-assign]


def _reset_predictor(trainer: Trainer) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.config.train.seed)
        for module in trainer.objective.predictor:  # type: ignore[union-attr]
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    trainer.objective.predictor.requires_grad_(False)


def _slow_predictor(trainer: Trainer) -> None:
    _reset_predictor(trainer)
    for weight in trainer.objective.predictor.parameters():
        weight.requires_grad_(True).register_hook(lambda gradient: gradient * 1e-3)


def _images(change: Callable[[Tensor], Tensor]) -> Callable[[Trainer], None]:
    def act(trainer: Trainer) -> None:
        trainer.images = replace(trainer.images, train=change(trainer.images.train))

    return act


def _mean_image(images: Tensor) -> Tensor:
    return images.float().mean(0, keepdim=True).to(torch.uint8).expand_as(images).contiguous()


def _two_images(images: Tensor) -> Tensor:
    return images[torch.arange(len(images)) % 2]


def _mostly_blank(images: Tensor) -> Tensor:
    kept = torch.arange(len(images)) % 64 == 0
    return images * kept.view(-1, 1, 1, 1).to(torch.uint8)


def _dominant_bias(trainer: Trainer) -> None:
    last = trainer.objective.encoder.projector[-1]  # type: ignore[index]
    with torch.no_grad():
        for bias in [b for b in [getattr(last, "bias", None)] if b is not None]:
            bias.copy_(20 * bias.std().clamp(min=0.1) * torch.ones_like(bias))


FAILURES = {
    "stop-gradient-off": Failure("gradient through both branches", act=_stop_gradient("none")),
    "wrong-branch": Failure("stop-gradient on the prediction", act=_stop_gradient("prediction"), held_back=True),
    "predictor-bypassed": Failure("h becomes the identity", act=_bypass_predictor, held_back=True),
    "predictor-reset-frozen": Failure("h re-initialised and frozen", act=_reset_predictor),
    "predictor-reset-slow": Failure("h re-initialised, its rate x 0.001", act=_slow_predictor),
    "lr-high": Failure("learning rate x 50", act=_train(base_lr=50.0)),
    "lr-overflow": Failure("learning rate x 1e30", act=_train(base_lr=1e30)),
    "weight-decay-high": Failure("weight decay x 1000", act=_train(weight_decay=1000.0), held_back=True),
    "momentum-high": Failure("momentum 0.9 to 0.999", act=_train(momentum=1.11)),
    "constant-inputs": Failure("every image is the mean image", act=_images(_mean_image)),
    "two-images": Failure("two images repeated", act=_images(_two_images)),
    "mostly-blank": Failure("63 of 64 images are blank", act=_images(_mostly_blank), held_back=True),
    "dominant-bias": Failure("the last bias of F becomes large", act=_dominant_bias),
    "start-no-stop-gradient": Failure("from the start", {"objective.stop_gradient": "none"}),
    "start-no-predictor": Failure("from the start", {"network.predictor": "identity"}),
    "start-fixed-predictor": Failure("from the start", {"network.predictor_frozen": True}),
    "start-mse-none": Failure(
        "mse without stop-gradient or predictor, from the start",
        {
            "objective.stop_gradient": "none",
            "objective.loss": "mse",
            "network.predictor": "identity",
            "train.base_lr": 0.02,
        },
        held_back=True,
    ),
}


class Planned(NamedTuple):
    """One run of the zoo; ``step`` is the intervention's, 0 for runs that fail from the start, -1 for healthy ones."""

    name: str
    setting: str
    failure: str
    seed: int
    step: int


def plan() -> Iterator[Planned]:
    """Every run, seed by seed; each failing kind meets five settings, and the run of that setting and seed is its control."""
    digits = list(SETTINGS)
    for seed in SEEDS:
        for setting in digits:
            yield Planned(f"healthy-{setting}-{seed}", setting, "", seed, -1)
        for number, (kind, failure) in enumerate(FAILURES.items()):
            setting = digits[(7 * number + 4 * seed) % len(digits)]
            yield Planned(f"{kind}-{setting}-{seed}", setting, kind, seed, _moment(kind, seed) if failure.act else 0)
    for seed in range(2):
        for number, setting in enumerate(PHOTOGRAPHS):
            yield Planned(f"healthy-{setting}-{seed}", setting, "", seed, -1)
            for kind in list(FAILURES)[number + 4 * seed :: 6]:
                step = _moment(kind, seed) if FAILURES[kind].act else 0
                yield Planned(f"{kind}-{setting}-{seed}", setting, kind, seed, step)


def _moment(kind: str, seed: int) -> int:
    """A step between 110 and 260, drawn from the kind and the seed."""
    return int(np.random.default_rng([zlib.crc32(kind.encode()), seed]).integers(110, 260))


def configuration(run: Planned, fashion: Path, cifar: Path) -> Config:
    """The configuration from which the run starts."""
    common = {"train.epochs": 40, "train.seed": run.seed, "train.device": "cpu"}
    monitor = {"monitor.every": 1, "monitor.evaluate_every": 5}
    broken = FAILURES[run.failure].overrides if run.failure else {}
    if run.setting in SETTINGS:
        return build("simsiam", DATA["digits"], common, SETTINGS[run.setting].overrides, monitor, broken)
    grey = run.setting.startswith("fashion")
    source = {"data.name": "fashion-mnist", "data.root": fashion} if grey else {"data.name": "npz", "data.root": cifar}
    few = {"data.train_images": 2000, "data.test_images": 500, "network.width": 16, "monitor.k": 20}
    preset = DATA["fashion-mnist" if grey else "npz"]
    common["train.epochs"] = 29
    return build("simsiam", preset, source, few, common, PHOTOGRAPHS[run.setting], monitor, broken)


def _mlp(trainer: Trainer) -> nn.Module:
    """Normalisation, then three fully connected layers with BatchNorm, as wide as the small backbone at the end."""
    channels, side = trainer.images.train.shape[1], trainer.images.train.shape[-1]
    width = 4 * trainer.config.network.width
    widths = [channels * side * side, 256, 256, width]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + trainer.config.train.seed)
        layers = [
            nn.Sequential(nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True))
            for i, o in pairwise(widths)
        ]
    return nn.Sequential(trainer.objective.encoder.backbone[0], nn.Flatten(), *layers)  # type: ignore[index]


def _linear(trainer: Trainer, images: Images) -> float:
    """The backbone's linear probe on images that no intervention has touched."""
    values = evaluate(trainer.objective, images, trainer.config.monitor, trainer.view_size, linear=True)
    return next(value.value for value in values if value.metric == "linear")


def record(run: Planned, directory: Path, config: Config, images: Images) -> None:
    """Train one run of the zoo, intervene at its step, and write what every step looked like beside the trainer's table."""
    outputs: list[Tensor] = []
    lines: list[tuple[float, ...]] = []

    def after_step(progress: object) -> None:
        rows = torch.cat(outputs)
        outputs.clear()
        taken = measure(moments(rows), rows)
        lines.append(
            (trainer.step, taken.centred_rankme or 0, taken.outlier_share or 0, float(rows.norm(dim=1).mean()))
        )
        if trainer.step == run.step:
            act = FAILURES[run.failure].act
            assert act is not None
            act(trainer)

    error = ""
    with Run(directory, config) as kept:
        trainer = Trainer(config, kept, images, after_step)
        if run.setting in SETTINGS and SETTINGS[run.setting].architecture == "mlp":
            trainer.objective.encoder.backbone = _mlp(trainer)
            trainer.optimizer = trainer._optimizer()
        trainer.objective.encoder.projector.register_forward_hook(
            lambda module, inputs, output: outputs.append(output.detach()) if module.training else None
        )
        # The evaluation of the start runs the modules too.
        torch.set_num_threads(1)
        try:
            trainer.run_epochs()
        except (Diverged, torch.linalg.LinAlgError) as stop:
            error = str(stop)
    # The trainer's last evaluation took the intervention's images for its bank.
    linear = None if error else _linear(trainer, images)
    with (directory / "extra.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "centred_rankme", "outlier_share", "norm"))
        writer.writerows((line[0], *(f"{value:.9g}" for value in line[1:])) for line in lines)
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (directory / name).unlink(missing_ok=True)
    (directory / "run.json").write_text(
        json.dumps({**run._asdict(), "error": error, "linear": linear}) + "\n", encoding="utf-8"
    )


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--part", default="0/1", help="I/N: the runs whose number is I modulo N")
    parser.add_argument("--fashion", type=Path, default=Path(".data/fashion"))
    parser.add_argument("--cifar", type=Path, default=Path(".data/cifar10-jpeg-q75.npz"))
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    loaded: dict[str, Images] = {}
    for number, run in enumerate(plan()):
        directory = arguments.zoo / run.name
        if number % parts != part or (directory / "run.json").exists():
            continue
        config = configuration(run, arguments.fashion, arguments.cifar)
        images = loaded.setdefault(str(config.data), data.load(config.data))
        for name in ("metrics.csv", "checkpoint.pt", "status.json", "config.json"):
            (directory / name).unlink(missing_ok=True)
        record(run, directory, config, images)
        print(run.name, flush=True)


if __name__ == "__main__":
    main()
