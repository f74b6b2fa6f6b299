"""Views per second of a training step: this package, the floor under it, and what a user would pick instead.

    python benchmarks/train_step.py [--images cifar10.npz] [--set train.precision=bfloat16]

Four contenders train SimSiam on the same uint8 images of 32 x 32 with the same backbone and the heads of the preset
cifar-head, two views an image, colour views of the preset cifar:

- collapse_lab: a whole epoch of ``Trainer``: augmentation (on a CPU in a thread of its own), step, watch as by default; the
  evaluations are not counted. The spectra at an epoch's end are, so an epoch of few steps makes it look slower than it is;
- floor: forward, backward and optimizer on random tensors that lie there already: what the mathematics cost; compiled, in
  bfloat16, in channels_last where ours is;
- plain recipe: torchvision v2 transforms on PIL images in a DataLoader, SimSiam written plainly, float32;
- lightly: its SimSiamTransform, heads and loss, in float32; left out where it is not installed.

The last two are as their users would have them, whatever ``--set`` says of ours: contiguous, not compiled, a process of the
DataLoader for every core.

Contenders take turns, round by round, after one round that is not counted. Two numbers each: views per second of the clock,
and views per second of processor time (this process and its workers), which on a CPU depends far less on what else the
machine does. On a GPU also the share of its measured matrix-product rate that the floor and ours reach.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import measure
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from collapse_lab.compiled import compile_backbones
from collapse_lab.config import build
from collapse_lab.data import Images, statistics
from collapse_lab.flags import assignments
from collapse_lab.machine import fastest_kernels, pick_device, threads
from collapse_lab.objective import Objective, build_objective
from collapse_lab.presets import AUGMENT, HEADS
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.trainer import Trainer

SIZE, TEST = 32, 200
CASES = {
    "small": {"network.width": 32, "train.batch": 128},
    "resnet18": {"network.backbone": "resnet18", **HEADS["cifar-head"], "train.batch": 64},
}
# The batch of the paper; a CPU would need a minute for each step of it.
GPU = {"train.batch": 512, "train.precision": "bfloat16", "train.channels_last": True}
Spent = measure.Spent
Contender = Callable[[], Spent]


class Timed(Trainer):
    """The package's own loop, which notes what its steps took."""

    spent = Spent(0.0, 0.0)

    def _steps(self, *arguments: Any) -> None:
        started = measure.spent(self.device)
        super()._steps(*arguments)
        self.spent = measure.spent(self.device) - started


def ours(config: Config, images: Images) -> Contender:
    """One epoch of a run in a directory that is thrown away."""

    def run() -> Spent:
        with tempfile.TemporaryDirectory() as place, Run(Path(place) / "run", config) as directory:
            trainer = Timed(config, directory, images, lambda progress: None)
            trainer.run_epochs()
            return trainer.spent

    return run


def objective_of(config: Config, images: Images) -> Objective:
    """Encoder and predictor of the configuration on its device."""
    made = build_objective(config, *statistics(images.train), SIZE, len(images.train))
    return made.to(pick_device(config.train)).train()


def sgd(config: Config, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
    """torch's SGD as it comes."""
    weights = [weight for module in modules for weight in module.parameters()]
    return torch.optim.SGD(weights, 0.03, config.train.momentum, weight_decay=config.train.weight_decay)


def step(encoder: nn.Module, predictor: nn.Module, optimizer: torch.optim.Optimizer, one: Tensor, two: Tensor) -> None:
    """SimSiam as its paper's pseudocode has it."""
    z1, z2 = encoder(one), encoder(two)
    p1, p2 = predictor(z1), predictor(z2)
    loss = -(cosine_similarity(p1, z2.detach()).mean() + cosine_similarity(p2, z1.detach()).mean()) / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def floor(config: Config, images: Images) -> tuple[Contender, Callable[[], None]]:
    """Steps on random tensors, and one of them alone."""
    made, device = objective_of(config, images), pick_device(config.train)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    made = made.to(memory_format=layout)
    if config.train.compile:
        compile_backbones(made)
    optimizer = sgd(config, [made.encoder, made.predictor])
    views = [torch.rand(config.train.batch, 3, SIZE, SIZE, device=device).to(memory_format=layout) for _ in range(2)]

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bfloat16"):
            step(made.encoder, made.predictor, optimizer, *views)

    return counted(lambda: [once() for _ in range(len(images.train) // config.train.batch)], device), once


def counted(run: Callable[[], Any], device: torch.device) -> Contender:
    """What a call takes."""

    def timed() -> Spent:
        started = measure.spent(device)
        run()
        return measure.spent(device) - started

    return timed


class Pairs(Dataset):
    """Two views of each image, made from a PIL image by one transform."""

    def __init__(self, images: Tensor, transform: Callable[[Image.Image], Any], *, both: bool) -> None:
        self.arrays, self.transform, self.both = images.permute(0, 2, 3, 1).contiguous().numpy(), transform, both

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        image = Image.fromarray(self.arrays[index])
        return self.transform(image) if self.both else [self.transform(image), self.transform(image)]


def recipe(config: Config, images: Images, workers: int) -> Contender:
    """torchvision and torch alone, float32, as a tutorial would write it."""
    c = config.augment
    mean, std = statistics(images.train)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, c.crop_scale, c.crop_ratio),
            v2.RandomHorizontalFlip(c.flip),
            v2.RandomApply([v2.ColorJitter(c.brightness, c.contrast, c.saturation, c.hue)], c.jitter),
            v2.RandomGrayscale(c.grayscale),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean.tolist(), std.tolist()),
        ]
    )
    made = objective_of(config, images)
    encoder = nn.Sequential(made.encoder.backbone[1], made.encoder.projector)
    return epoch(config, Pairs(images.train, transform, both=False), encoder, made.predictor, workers)


def lightly(config: Config, images: Images, workers: int) -> Contender:
    """lightly's transform and heads on the same backbone."""
    from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform

    backbone = objective_of(config, images).encoder.backbone[1]
    device, n = pick_device(config.train), config.network
    with torch.no_grad():
        width = backbone(torch.zeros(2, 3, SIZE, SIZE, device=device)).shape[1]
    projector = SimSiamProjectionHead(width, n.projector_hidden or width, n.projector_dim).to(device)
    predictor = SimSiamPredictionHead(n.projector_dim, n.predictor_hidden, n.projector_dim).to(device)
    transform = SimSiamTransform(input_size=SIZE, gaussian_blur=0.0)
    return epoch(
        config, Pairs(images.train, transform, both=True), nn.Sequential(backbone, projector), predictor, workers
    )


def epoch(config: Config, pairs: Pairs, encoder: nn.Module, predictor: nn.Module, workers: int) -> Contender:
    """One pass over a DataLoader, its start included as in every epoch of such a recipe."""
    device, optimizer = pick_device(config.train), sgd(config, [encoder, predictor])

    def run() -> None:
        loader = DataLoader(pairs, config.train.batch, shuffle=True, drop_last=True, num_workers=workers)
        for one, two in loader:
            step(encoder, predictor, optimizer, one.to(device), two.to(device))

    return counted(run, device)


def matrix_rate(config: Config) -> float:
    """Operations per second of a large matrix product on the GPU, in the networks' precision."""
    dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    times = [counted(lambda: [a @ b for _ in range(20)], a.device)().seconds for _ in range(4)]
    return 20 * 2 * 8192**3 / min(times[1:])


def measured(config: Config, images: Images, rounds: int, workers: int) -> dict[str, Any]:
    """All contenders of one case, their rates and ratios."""
    bare, once = floor(config, images)
    contenders = {"collapse_lab": ours(config, images), "floor": bare, "plain recipe": recipe(config, images, workers)}
    if find_spec("lightly"):
        contenders["lightly"] = lightly(config, images, workers)
    taken: dict[str, list[Spent]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            taken[name].append(run())
    views = 2 * (len(images.train) // config.train.batch) * config.train.batch
    found: dict[str, Any] = {"batch": config.train.batch, "steps": len(images.train) // config.train.batch}
    for clock in Spent._fields:
        rates = {name: [views / getattr(each, clock) for each in spent[1:]] for name, spent in taken.items()}
        found[f"views_per_{clock}"] = {name: measure.summary(values) for name, values in rates.items()}
        found[f"ratios_by_{clock}"] = {
            f"collapse_lab / {name}": round(median(a / b for a, b in zip(rates["collapse_lab"], other, strict=True)), 3)
            for name, other in rates.items()
            if name != "collapse_lab"
        }
    if pick_device(config.train).type == "cuda":
        with FlopCounterMode(display=False) as counter:
            once()
        each, rate = counter.get_total_flops() / (2 * config.train.batch), matrix_rate(config)
        found["matrix_rate"] = rate
        found["share_of_matrix_rate"] = {
            name: round(found["views_per_seconds"][name]["median"] * each / rate, 4) for name in contenders
        }
    return found


def pictures(path: Path | None, count: int) -> Images:
    """The first images of an npz of uint8 NHWC ``train_images``, or random ones, and a few to test on."""
    if path is None:
        pixels = torch.randint(256, (count + TEST, 3, SIZE, SIZE), dtype=torch.uint8)
    else:
        with np.load(path) as arrays:
            pixels = torch.from_numpy(arrays["train_images"][: count + TEST]).permute(0, 3, 1, 2).contiguous()
    labels = torch.arange(len(pixels)) % 10
    name = path.name if path else "random pixels"
    return Images(pixels[:count], labels[:count], pixels[count:], labels[count:], tuple("0123456789"), name)


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="npz of uint8 NHWC train_images of 32 x 32; else random pixels")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, help="of a round [50; 5 of resnet18 on a CPU]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of the DataLoaders [one a core]")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of ours and of the floor")
    parser.add_argument("--out", type=Path, default=measure.ROOT / "benchmarks" / "results" / "train_step.json")
    arguments = parser.parse_args()
    on_gpu = GPU if torch.cuda.is_available() else {}
    fixed = {"train.epochs": 1, "monitor.probe": False, "monitor.k": 20}
    cases, named = {}, None
    for case in arguments.cases:
        config = build("simsiam", AUGMENT["cifar"], CASES[case], on_gpu, fixed, assignments(arguments.set))
        steps = arguments.steps or (5 if case == "resnet18" and not on_gpu else 50)
        images = pictures(arguments.images, config.train.batch * steps)
        named = images.name
        with threads(config.train.threads), fastest_kernels():
            cases[case] = measured(config, images, arguments.rounds, arguments.workers)
        show(case, cases[case])
    options = [f"--images {arguments.images.name}"] if arguments.images else []
    options += [f"--steps {arguments.steps}"] if arguments.steps else []
    options += [f"--cases {' '.join(arguments.cases)} --rounds {arguments.rounds} --workers {arguments.workers}"]
    options += [f"--set {' '.join(arguments.set)}"] if arguments.set else []
    report = {
        "what": "views per second of SimSiam's training step, 32 x 32, two views an image",
        "images": named,
        "device": torch.cuda.get_device_name()
        if on_gpu
        else "cpu, one thread; our views and the DataLoaders beside it",
        "cases": cases,
        "not_installed": [] if find_spec("lightly") else ["lightly"],
        "machine": measure.machine(),
        "commit": measure.commit(),
        "command": f"python benchmarks/train_step.py {' '.join(options)}",
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def show(case: str, found: dict[str, Any]) -> None:
    """Print one case's rates and ratios."""
    for name in found["views_per_seconds"]:
        clock, processor = (found[f"views_per_{kind}"][name]["median"] for kind in Spent._fields)
        print(f"{case:9s} {name:14s} {clock:9.0f} views/s of the clock  {processor:9.0f} of processor time")
    for kind in Spent._fields:
        print(f"{case:9s} {kind}: {found[f'ratios_by_{kind}']}")


if __name__ == "__main__":
    main()
