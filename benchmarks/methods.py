"""What a method costs: time of a training step relative to SimSiam's, beside the encoder passes that its parts need.

    python benchmarks/methods.py --out benchmarks/results/methods.json

The small network on random images of CIFAR's shape, batch 128, one thread. All methods take turns in every round, the order
turned round by round, and a round's ratio is to SimSiam's step of the same round, so that the machine's load counts little.
A step is ``update``: passes, backward pass, optimizer. Drawing the views is timed apart, and added in ``with_views``.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from measure import Measured, commit, machine, summary
from torch import Tensor

from collapse_lab import augment
from collapse_lab.config import build
from collapse_lab.methods import METHODS, method
from collapse_lab.networks import Encoder
from collapse_lab.objective import build_objective
from collapse_lab.optimisation import optimizer, update
from collapse_lab.parts import Passes, passes
from collapse_lab.presets import AUGMENT

BATCH, IMAGES, SIDE = 128, 1024, 32
BASE = "simsiam"


class Training:
    """One method's steps on images drawn once."""

    def __init__(self, name: str, most: Tensor) -> None:
        self.config = build(name, AUGMENT["cifar"], method(name).settings, {"train.batch": BATCH})
        half = torch.full((3,), 0.5)
        self.objective = build_objective(self.config, half, half / 2, SIDE, IMAGES).train()
        self.optimizer = optimizer(self.objective, self.config.train)
        self.views, self.index, self.steps = most[: self.objective.views], torch.arange(BATCH), 0

    def step(self) -> float:
        """CPU seconds of one step."""
        self.steps += 1
        start = time.process_time()
        update(
            self.objective,
            self.optimizer,
            self.views,
            self.index,
            self.steps,
            predictor_steps=self.config.train.predictor_steps,
        )
        return time.process_time() - start

    def counted(self) -> Passes:
        """Encoder passes of one step, seen by hooks that are taken off again."""
        seen: list[bool] = []
        hooks = [
            module.register_forward_hook(lambda module, inputs, z: seen.append(z.requires_grad))
            for module in self.objective.modules()
            if isinstance(module, Encoder)
        ]
        self.step()
        for hook in hooks:
            hook.remove()
        return Passes(sum(seen), len(seen) - sum(seen))


def measured(names: Sequence[str], rounds: int, draw: float) -> dict[str, Measured]:
    """Every method's ratios to SimSiam's step and its passes; ``draw``: seconds that drawing one view takes."""
    generator = torch.Generator().manual_seed(0)
    most = max(
        build(name, method(name).settings).views + method(name).settings.get("target.views", 8) for name in names
    )
    views = torch.rand(most, BATCH, 3, SIDE, SIDE, generator=generator)
    runs = {name: Training(name, views) for name in names}
    counts = {name: run.counted() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turned = [*names[number % len(names) :], *names[: number % len(names)]]
        for name in turned:
            seconds[name].append(runs[name].step())
    base = median(seconds[BASE]) + runs[BASE].objective.views * draw
    return {
        name: {
            **_row(runs[name], counts[name], seconds[name], seconds[BASE]),
            "with_views": round((median(seconds[name]) + runs[name].objective.views * draw) / base, 4),
        }
        for name in names
    }


def _row(run: Training, counted: Passes, seconds: list[float], base: list[float]) -> Measured:
    ratios = sorted(own / simsiam for own, simsiam in zip(seconds, base, strict=True))
    return {
        "steps_per_second": round(1 / median(seconds), 3),
        "seconds_over_simsiam": summary(ratios),
        "quartiles": [round(ratios[math.floor(share * (len(ratios) - 1))], 4) for share in (0.25, 0.75)],
        "passes_counted": counted._asdict(),
        "passes_needed": passes(run.config)._asdict(),
        "K": run.objective.target.extra_views,
        "views": run.objective.views,
    }


def drawing(rounds: int) -> Measured:
    """CPU seconds of drawing one view of a batch, which a method with K views of its own pays K times more."""
    images = torch.randint(256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = build(BASE, AUGMENT["cifar"]).augment
    seconds = []
    for number in range(rounds):
        start = time.process_time()
        augment.views(images, torch.arange(BATCH), config, seed=0, epoch=number, views=(0,))
        seconds.append(time.process_time() - start)
    return summary(seconds)


@click.command()
@click.option("--rounds", default=60, help="steps of every method that are timed")
@click.option("--warmup", default=3, help="steps of every method before them")
@click.option("--methods", "names", multiple=True, help="only these, beside simsiam [all]")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file [standard output]")
def main(rounds: int, warmup: int, names: tuple[str, ...], out: Path | None) -> None:
    """Measure what every method costs."""
    torch.set_num_threads(1)
    chosen = list(dict.fromkeys([BASE, *(names or METHODS)]))
    measured(chosen, warmup, 0.0)
    draw = drawing(rounds)
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "machine": machine(),
        "what": f"small network, random images 3 x {SIDE} x {SIDE}, batch {BATCH}, float32; CPU time of a step, in turns",
        "seconds_to_draw_one_view": draw,
        "methods": measured(chosen, rounds, draw["median"]),
    }
    text = json.dumps(found, indent=1)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    else:
        click.echo(text)


if __name__ == "__main__":
    main()
