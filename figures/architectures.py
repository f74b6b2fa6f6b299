"""The architectures of the methods side by side, each drawn from the settings of its row, as Figure 3 of Chen & He (2020).

python figures/architectures.py --out figures/gallery

What differs from SimSiam is in one colour, what is left out is dashed in it. Nothing here asks for a method's name: a row of
existing parts that is added to the table is drawn with the others.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from collapse_lab.config import build
from collapse_lab.methods import METHODS, method
from collapse_lab.settings import Config
from collapse_lab.style import COLOURS, GREY

OURS, PALE, OTHER, TINT = "#3d3d3d", "#f1f1f1", COLOURS[1], "#fbe6d9"
FIRST = ("simclr", "byol", "swav", "simsiam", "alternation-10", "momentum-eta", "mean-output", "mean-input")
LEFT, RIGHT, HALF, HEIGHT = 1.0, 3.1, 0.9, 0.42
# From below: views, encoder, two places above it, codes, the mark of the stop-gradient, the loss.
VIEW, ENCODER, LOW, HIGH, CODES, STOP, LOSS = 0.0, 0.78, 1.78, 2.6, 3.22, 3.72, 4.2
FOOT = -0.42


KEY = (
    "Orange: other than in SimSiam; dashed box: left out. Double stroke: stop-gradient; dashed arrow: way of the gradient.\n"
    "Bar: shared weights; dots: made from the other. The loss is taken with views 1 and 2 exchanged as well, unless it is said."
)


class Node(NamedTuple):
    """A box of one branch: ``other`` is not SimSiam's, ``gone`` is what SimSiam has and this method has not."""

    level: float
    text: str
    other: bool = False
    gone: bool = False


def prediction(config: Config) -> Iterator[Node]:
    """The boxes of the branch that predicts, from below."""
    network, train = config.network, config.train
    yield Node(ENCODER, "encoder")
    kinds = {
        "mlp": "predictor",
        "identity": "no predictor",
        "linear": "linear predictor",
        "bias": "learned bias",
        "direct": "predictor from\neigenbasis",
    }
    notes = [
        "fixed" * network.predictor_frozen,
        "rate decays" * (train.predictor_lr == "decayed"),
        f"{train.predictor_steps} steps a step" * (train.predictor_steps > 1),
    ]
    text = "\n".join([kinds[network.predictor], *filter(None, notes)])
    gone = network.predictor == "identity"
    yield Node(LOW, text, other=gone or text != kinds["mlp"], gone=gone)
    if config.objective.loss == "swapped-prediction":
        yield Node(HIGH, "prototypes", other=True)


def target(config: Config) -> Iterator[Node]:
    """The boxes of the branch that is matched, from below."""
    chosen, loss = config.target, config.objective.loss
    yield Node(ENCODER, _weights(config), other=chosen.network == "lagged")
    estimates: Mapping[str, str] = {
        "mean-output": f"mean of\n{chosen.views} outputs",
        "memory": f"η of the image\n{chosen.eta_momentum:g} η + {1 - chosen.eta_momentum:g} z",
    }
    if chosen.estimate in estimates:
        yield Node(LOW, estimates[chosen.estimate], other=True)
    heads: Mapping[str, Sequence[str]] = {
        "predictor": ["same predictor"],
        "inverse-predictor": ["same predictor", "its inverse,\nlearned"],
        "centring": ["prediction +\nmean difference"],
        "decorrelation": ["prediction +\nother difference"],
    }
    for level, text in zip((LOW, HIGH), heads.get(chosen.head, ()), strict=False):
        yield Node(level, text, other=True)
    if loss == "swapped-prediction":
        yield Node(HIGH, "prototypes", other=True)
        yield Node(CODES, "Sinkhorn codes", other=True)
    if loss == "info-nce":
        yield Node(HIGH, f"and a queue of\n{config.objective.queue:,} earlier", other=True)


def _weights(config: Config) -> str:
    chosen = config.target
    if chosen.network == "online":
        return "same encoder"
    if chosen.momentum:
        return f"moving average\nm = {chosen.momentum:g}"
    period = {"epoch": "an epoch", 1: "a step"}.get(chosen.every, f"{chosen.every} steps")
    return f"copy, kept\nfor {period}"


def similarity(config: Config) -> Node:
    """The box at the top, in which the branches meet."""
    kinds = {
        "negative-cosine": "similarity",
        "mse": "squared distance",
        "cross-entropy": "cross-entropy of channels",
        "nt-xent": "similarity & dissimilarity",
        "info-nce": "similarity & dissimilarity",
        "swapped-prediction": "cross-entropy of codes",
    }
    text = kinds[config.objective.loss]
    return Node(LOSS, text, other=text != kinds["negative-cosine"])


def views(config: Config) -> tuple[Node, Node]:
    """What goes in at the bottom."""
    inputs = {
        "mean-output": f"{config.target.views} more views",
        "mean-input": f"mean of {config.target.views} views",
    }
    other = inputs.get(config.target.estimate)
    return Node(VIEW, "view 1"), Node(VIEW, other or "view 2", other=other is not None)


def footnote(config: Config) -> str | None:
    """What is said below where not every view of one pair is predicted."""
    if config.objective.symmetric:
        return None
    pairs = config.objective.pairs
    return "only view 1 is predicted" + f", {pairs} pairs" * (pairs > 1)


def draw(axes: Axes, config: Config, title: str) -> None:
    """One architecture."""
    middle, top = (LEFT + RIGHT) / 2, similarity(config)
    branches = list(prediction(config)), list(target(config))
    for x, view, nodes in zip((LEFT, RIGHT), views(config), branches, strict=True):
        axes.text(x, view.level, view.text, ha="center", va="center", color=_ink(view))
        _arrows(axes, x, view, nodes)
        for node in nodes:
            _box(axes, x, HALF, node)
    _box(axes, middle, middle - LEFT + HALF, top)
    _links(axes, config)
    _gradients(axes, config)
    axes.set_title(title, fontsize=9.5, fontweight="bold", pad=3)
    axes.text(middle, FOOT, footnote(config) or "", ha="center", va="center", color=OTHER)
    axes.set(xlim=(-0.1, 4.2), ylim=(FOOT - 0.15, LOSS + 0.45))
    axes.axis("off")


def _ink(node: Node) -> str:
    return OTHER if node.other else OURS


def _bottom(node: Node) -> float:
    """The loss grows upwards, all else both ways."""
    return node.level - HEIGHT / 2 - (0 if node.level == LOSS else 0.16 * node.text.count("\n"))


def _box(axes: Axes, x: float, half: float, node: Node) -> None:
    bottom, tall = _bottom(node), HEIGHT + 0.32 * node.text.count("\n")
    box = FancyBboxPatch(
        (x - half, bottom),
        2 * half,
        tall,
        boxstyle="round,pad=0,rounding_size=0.1",
        facecolor="white" if node.gone else TINT if node.other else PALE,
        edgecolor=_ink(node),
        linestyle=(0, (3, 2)) if node.gone else "-",
        linewidth=0.9,
        zorder=2,
    )
    axes.add_patch(box)
    middle = bottom + tall / 2
    axes.text(x, middle, node.text, ha="center", va="center_baseline", color=_ink(node), zorder=3, linespacing=1.1)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, **style: Any) -> None:
    shape = {"arrowstyle": "-|>", "lw": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7, "color": colour}
    axes.annotate("", end, start, arrowprops=shape | style, zorder=1)


def _arrows(axes: Axes, x: float, view: Node, nodes: Sequence[Node]) -> None:
    """From the view through the boxes to the loss."""
    starts = [view.level + 0.17, *(node.level for node in nodes)]
    ends = [*map(_bottom, nodes), LOSS - HEIGHT / 2]
    for start, end in zip(starts, ends, strict=True):
        _arrow(axes, (x, start), (x, end), OURS)


def _links(axes: Axes, config: Config) -> None:
    """Between the branches: a bar where weights are shared, dots where one is made from the other."""
    chosen = config.target
    shared = {ENCODER: chosen.network == "online", HIGH: True, LOW: chosen.head in ("predictor", "inverse-predictor")}
    levels = {
        ENCODER: True,
        LOW: chosen.head != "identity",
        HIGH: config.objective.loss == "swapped-prediction",
    }
    for level in (level for level, linked in levels.items() if linked):
        style: dict[str, Any] = {"lw": 2.2} if shared[level] else {"lw": 1.6, "linestyle": (0, (1, 1))}
        same = level == ENCODER and shared[level]
        axes.plot([LEFT + HALF, RIGHT - HALF], [level, level], color=OURS if same else OTHER, **style)


def _gradients(axes: Axes, config: Config) -> None:
    """The way back outside the branches, and the marks where it is cut."""
    stop = config.objective.stop_gradient
    back = {"arrowstyle": "->", "linestyle": (0, (4, 2))}
    cut_left, right = stop == "prediction", RIGHT + HALF + 0.12
    left = LEFT - HALF - 0.12
    _arrow(axes, (left, STOP), (left, LOW if cut_left else ENCODER - 0.3), OTHER if cut_left else GREY, **back)
    if stop != "target":
        _arrow(axes, (right, STOP), (right, ENCODER - 0.3), OTHER, **back)
    colour = OURS if stop == "target" else OTHER
    axes.text(
        RIGHT - 0.2, STOP, "stop-grad" if stop == "target" else "no stop-grad", ha="right", va="center", color=colour
    )
    marks = {"target": [(RIGHT, STOP)], "prediction": [(LEFT, (ENCODER + LOW) / 2)]}
    for x, y in marks.get(stop, ()):
        for shift in (-0.05, 0.05):
            axes.plot([x - 0.13, x + 0.13], [y + shift - 0.06, y + shift + 0.06], color=colour, lw=1.5)
    if cut_left:
        axes.text(LEFT + 0.2, (ENCODER + LOW) / 2, "stop-grad", ha="left", va="center", color=OTHER)


def sheet(names: Sequence[str], columns: int) -> Figure:
    """A grid of architectures, row by row."""
    rows = math.ceil(len(names) / columns)
    width, height, foot = 2.4 * columns, 2.6 * rows + 0.65, 0.5
    with matplotlib.rc_context({"font.size": 7.5}):
        drawn = Figure((width, height))
        grid = drawn.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(names) :]:
            axes.axis("off")
        for axes, name in zip(grid.flat, names, strict=False):
            draw(axes, build(name, method(name).settings), name)
        drawn.text(0.5, 0.1 / height, KEY, ha="center", va="bottom", color=GREY, fontsize=8, linespacing=1.4)
        edges = {"left": 0.005, "right": 0.995, "bottom": foot / height, "top": 1 - 0.25 / height}
        drawn.subplots_adjust(**edges, wspace=0.06, hspace=0.13)
    return drawn


def save(drawn: Figure, path: Path, dpi: int) -> None:
    """A PNG of 64 colours, which line drawings need no more of."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=dpi, format="png")
    Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder of the two PNGs")
def main(out: Path) -> None:
    """Draw the architectures."""
    out.mkdir(parents=True, exist_ok=True)
    for name, names, columns, dpi in (("architectures", FIRST, 4, 140), ("architectures_all", tuple(METHODS), 5, 110)):
        path = out / f"{name}.png"
        save(sheet(names, columns), path, dpi)
        click.echo(path)


if __name__ == "__main__":
    main()
