"""Seconds of an epoch of the preset cifar10-800, and what 800 of them would take: an extrapolation, and called so.

    python benchmarks/epochs.py --images cifar10.npz [--epochs 20] [--set train.compile=true]

The run as a user would start it, on all training images, in bfloat16 and channels_last where there is a GPU; readings by the
watch are part of it; kNN, which comes at both ends, and the checkpoints are not. The first epoch is left out, in which memory
is allocated and kernels are chosen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import measure
import pandas as pd
import torch

from collapse_lab import data
from collapse_lab.config import build
from collapse_lab.flags import assignments
from collapse_lab.machine import fastest_kernels, threads
from collapse_lab.presets import RUNS
from collapse_lab.runs import Run
from collapse_lab.trainer import Trainer


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="npz of CIFAR-10, uint8 NHWC")
    parser.add_argument("--epochs", type=int, default=20, help="two at least")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the run")
    parser.add_argument("--out", type=Path, default=measure.ROOT / "benchmarks" / "results" / "epochs.json")
    arguments = parser.parse_args()
    on_gpu = {"train.precision": "bfloat16", "train.channels_last": True} if torch.cuda.is_available() else {}
    images = {"data.name": "npz", "data.root": str(arguments.images), "data.train_images": None}
    ends = {"train.epochs": arguments.epochs, "monitor.evaluate_every": arguments.epochs, "monitor.probe": False}
    config = build("simsiam", RUNS["cifar10-800"], images, ends, on_gpu, assignments(arguments.set))
    found = data.load(config.data)
    with (
        tempfile.TemporaryDirectory() as place,
        Run(Path(place) / "run", config) as run,
        threads(config.train.threads),
        fastest_kernels(),
    ):
        trainer = Trainer(config, run, found, lambda progress: None)
        trainer.run_epochs()
        seconds = pd.read_csv(run.directory / "timing.csv")["seconds"].tolist()
    later = seconds[1:]
    views = config.views * config.train.batch * trainer.steps_per_epoch
    report = {
        "what": "training of the preset cifar10-800, kNN and checkpoints apart",
        "images": found.name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "epoch_seconds": measure.summary(later),
        "first_epoch_seconds": round(seconds[0], 3),
        "views_per_second": round(views * len(later) / sum(later), 1),
        "minutes_of_800_epochs_extrapolated": round(800 * sum(later) / len(later) / 60, 2),
        "machine": measure.machine(),
        "commit": measure.commit(),
        "command": f"python benchmarks/epochs.py --images {arguments.images.name} --epochs {arguments.epochs}"
        + (f" --set {' '.join(arguments.set)}" if arguments.set else ""),
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
