"""Whether training waits for photographs in files: decoding by number of cores, what comes before step 1, waiting, memory.

    python benchmarks/streaming.py --images DIR [--set train.precision=bfloat16]       # DIR/train/<class>, DIR/val/<class>

Three parts. Rates: images per second that so many cores decode, as two random crops (by torchvision, and by PIL, which holds
up other threads) and as centre squares (by PIL), in turns, after one round that is not counted. Runs: SimSiam with
``data.stream``, each in a process of its own: the seconds before step 1 by what they went into, those of the steps, the share
of them spent waiting (that of ``timing.csv``), the peak of memory above what the imports take. On a CPU ResNet-18 gets a few
images and steps, on a GPU all of them. Need: arithmetic, not measured: how many cores decode what a GPU computes, were it to
make the matrix products of a network at 224 px as fast as those of ResNet-18 in 35,000 views of 32 px a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import measure
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from collapse_lab import data, decoding
from collapse_lab.config import build
from collapse_lab.decoding import cut
from collapse_lab.flags import assignments
from collapse_lab.image_files import ImageFiles
from collapse_lab.machine import cores, threads
from collapse_lab.networks import encoder, predictor
from collapse_lab.presets import AUGMENT, HEADS
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.trainer import Trainer
from collapse_lab.view_parameters import parameters

SIZE, ROUNDS, GOAL = 224, 3, 35_000
CASES = {"small": {"network.width": 16}, "resnet18": {"network.backbone": "resnet18", **HEADS["imagenet-head"]}}
CPU = {"small": {"train.batch": 64}, "resnet18": {"train.batch": 32}}
GPU = {"train.batch": 256, "train.precision": "bfloat16", "train.channels_last": True, "train.epochs": 5}
FEW, FEW_TESTED = 128, 50  # images of ResNet-18 on a CPU
Settings = Mapping[str, Any]


class Timed(Trainer):
    """The package's own loop, which notes when it begins to evaluate the start, and its first step."""

    def __init__(self, *arguments: Any) -> None:
        self.times: dict[str, float] = {}
        super().__init__(*arguments)

    def _evaluation(self, *arguments: Any) -> Any:
        self.times.setdefault("calibrated", time.perf_counter())
        made = super()._evaluation(*arguments)
        self.times.setdefault("evaluated", time.perf_counter())
        return made

    def _train_step(self, *arguments: Any) -> None:
        self.times.setdefault("stepped", time.perf_counter())
        super()._train_step(*arguments)


def configured(root: Path, *settings: Settings) -> Config:
    """SimSiam on streamed photographs with the views of the paper."""
    source = {"data.name": "imagefolder", "data.root": str(root), "data.stream": True, "data.image_size": SIZE}
    every = {"data.train_images": None, "data.test_images": None, "train.epochs": 1, "monitor.probe": False}
    return build("simsiam", AUGMENT["imagenet"], source, every, {"monitor.k": 20}, *settings)


def crops(files: ImageFiles, boxes: Tensor) -> None:
    """Two crops of every file, by the threads that the cores of this process allow."""
    made = torch.empty(2, len(files), 3, SIZE, SIZE, dtype=torch.uint8)

    def fill(row: int) -> None:
        cut(files.paths[row], boxes[:, row], made[:, row])

    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(fill, range(len(files))):
            pass


def by_pil(work: Callable[[], Any]) -> None:
    """The same without torchvision's decoder."""
    before, decoding.decode_jpeg = decoding.decode_jpeg, None
    try:
        work()
    finally:
        decoding.decode_jpeg = before


def rates(root: Path, count: int) -> dict[str, Any]:
    """Images per second by kind and number of cores, and the processor time of an image on one core."""
    config = configured(root)
    found = data.load(config.data).train
    files = ImageFiles(found.paths[:: max(1, len(found) // count)][:count], SIZE)
    index = torch.arange(len(files))
    boxes = parameters(index, config.augment, files.sizes(), seed=0, epoch=1, views=(0, 1)).box.view(2, -1, 4)
    contenders: dict[str, Callable[[], Any]] = {
        "two crops": partial(crops, files, boxes),
        "two crops, by PIL": partial(by_pil, partial(crops, files, boxes)),
        "centre square": partial(files.__getitem__, slice(None)),
    }
    allowed = sorted(os.sched_getaffinity(0))
    counts = [2**n for n in range(len(allowed).bit_length())]
    taken = {(kind, number): [] for kind in contenders for number in counts}
    try:
        for _ in range(ROUNDS + 1):
            for kind, number in taken:
                os.sched_setaffinity(0, allowed[:number])
                started = measure.spent()
                contenders[kind]()
                taken[kind, number].append(measure.spent() - started)
    finally:
        os.sched_setaffinity(0, allowed)
    each = {key: [len(files) / one.seconds for one in spent[1:]] for key, spent in taken.items()}
    costs = {kind: [1000 * one.processor_seconds / len(files) for one in taken[kind, 1][1:]] for kind in contenders}
    return {
        "files": len(files),
        "median_size": files.sizes().median(0).values.tolist(),
        "images_per_second": {
            kind: {f"{number} cores": measure.summary(each[kind, number]) for number in counts} for kind in contenders
        },
        "processor_milliseconds_an_image": {kind: measure.summary(values) for kind, values in costs.items()},
    }


def run(root: Path, *settings: Settings) -> dict[str, Any]:
    """One run in a directory that is thrown away: where its time went, and its memory."""
    config, before = configured(root, *settings), peak()
    with tempfile.TemporaryDirectory() as place, Run(Path(place) / "run", config) as directory:
        times = {"began": time.perf_counter()}
        images = data.load(config.data)
        times["listed"] = time.perf_counter()
        images.train.sizes()
        times["measured"] = time.perf_counter()
        with threads(config.train.threads):
            trainer = Timed(config, directory, images, lambda progress: None)
            times["built"] = time.perf_counter()
            trainer.run_epochs()
        timing = pd.read_csv(directory.directory / "timing.csv")
    times |= trainer.times
    headers = times["measured"] - times["listed"]
    seconds = float(timing["seconds"].sum())
    return {
        "images": [len(images.train), len(images.test)],
        "batch": config.train.batch,
        "steps": trainer.steps,
        "seconds_before_step_1": rounded(
            {
                "listing": times["listed"] - times["began"],
                "sizes": headers,
                # The sizes are read here once more.
                "channel statistics, network": times["built"] - times["measured"] - headers,
                "calibration": times["calibrated"] - times["built"],
                "first kNN": times["evaluated"] - times["calibrated"],
                "all": times["stepped"] - times["began"] - headers,
            }
        ),
        "seconds_of_the_steps": round(seconds, 3),
        "images_per_second": round(trainer.steps * config.train.batch / seconds, 2),
        "share_waiting": round(float(timing["waiting"].sum()) / seconds, 5),
        "peak_mib_above_imports": round((peak() - before) / 2**10),
    }


def peak() -> int:
    """KiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """To hundredths."""
    return {name: round(value, 2) for name, value in values.items()}


def alone(root: Path, *settings: Settings) -> dict[str, Any]:
    """``run`` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, root, *settings).result()


def few(root: Path) -> Settings:
    """As many images of each class as make a handful of steps."""
    classes = len(data.load(configured(root).data).classes)
    return {
        f"data.{split}_images": classes * max(1, n // classes) for split, n in (("train", FEW), ("test", FEW_TESTED))
    }


def operations(backbone: str, head: str, size: int) -> float:
    """Floating-point operations of a training step, a view."""
    network = build("simsiam", {"network.backbone": backbone}, HEADS[head]).network
    made = encoder(network, torch.zeros(3), torch.ones(3), size, 0), predictor(network, 0)
    with FlopCounterMode(display=False) as counter:
        made[1](made[0](torch.rand(2, 3, size, size))).sum().backward()
    return counter.get_total_flops() / 2


def need(milliseconds: float) -> dict[str, Any]:
    """Cores that decode as fast as a GPU trains, at the rate of operations of the goal at 32 px."""
    rate = GOAL * operations("resnet18", "cifar-head", 32)
    views = {name: rate / operations(name, "imagenet-head", SIZE) for name in ("resnet18", "resnet50")}
    return {
        "operations_per_second": rate,
        "images_per_second": {name: round(value / 2) for name, value in views.items()},
        "cores": {name: round(value / 2 * milliseconds / 1000, 1) for name, value in views.items()},
    }


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with train/<class> and val/<class>")
    parser.add_argument("--count", type=int, default=512, help="files of the rates")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the runs")
    parser.add_argument("--out", type=Path, default=measure.ROOT / "benchmarks" / "results" / "streaming.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    on_gpu, given = torch.cuda.is_available(), assignments(arguments.set)
    decoded = rates(arguments.images, arguments.count)
    runs = {}
    for case in arguments.cases:
        limit = few(arguments.images) if case == "resnet18" and not on_gpu else {}
        runs[case] = alone(arguments.images, CASES[case], GPU if on_gpu else CPU[case], limit, given)
        print(case, json.dumps(runs[case], indent=2))
    options = f"--count {arguments.count} --cases {' '.join(arguments.cases)}"
    options += f" --set {' '.join(arguments.set)}" if arguments.set else ""
    report = {
        "what": f"SimSiam on streamed photographs, views of {SIZE} px",
        "images": arguments.images.name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu, one thread; one thread a core decodes beside it",
        "rates": decoded,
        "runs": runs,
        "need_by_arithmetic": need(decoded["processor_milliseconds_an_image"]["two crops"]["median"]),
        "machine": measure.machine(),
        "commit": measure.commit(),
        "command": f"python benchmarks/streaming.py --images {arguments.images.name} {options}",
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: report[name] for name in ("rates", "need_by_arithmetic")}, indent=2))


if __name__ == "__main__":
    main()
