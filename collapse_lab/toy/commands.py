"""``collapse-lab toy``: one command a system, each with a table, a figure and the numbers behind them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collapse_lab.toy.report import Report

ANSWER = click.option("--json", "as_json", is_flag=True, help="one JSON document on standard output, no files")
VARIANT = click.option(
    "--variant", default="stop-gradient", help="stop-gradient, both-terms or second-term-only [stop-gradient]"
)
NOISE2 = click.option(
    "--noise2", type=float, default=0.0, help="variance of the augmentation, that of the data is 1 [0]"
)
RATE = click.option("--rate", type=float, default=1.0, help="learning rate of the predictor over the encoder's [1]")
WEIGHT_DECAY = click.option("--weight-decay", type=float, default=0.0, help="weight decay of both [0]")
PHI = click.option("--phi", type=float, default=0.6, help="start of the predictor [0.6]")
THETA = click.option("--theta", type=float, default=0.1, help="start of the encoder [0.1]")
TIME = click.option("--time", type=float, default=50.0, help="how long, in units of 1 / learning rate [50]")
SEED = click.option("--seed", type=click.IntRange(min=0), default=0, help="seed of what is drawn [0]")
RANGE = (float, float)
Command = TypeVar("Command", bound=Callable[..., Any])


def out(name: str) -> Callable[[Command], Command]:
    """The option that says where a system's table and figure go."""
    default = Path("runs") / f"toy-{name}"
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option("--out", type=kind, default=default, help=f"where table and figure go [{default}]")


@click.group()
def toy() -> None:
    """Collapse as dynamics: small systems whose fate is known, beside the claims made about them."""


@toy.command()
@VARIANT
@click.option("--phi", type=float, help="start of the predictor [0.6]")
@THETA
@TIME
@NOISE2
@RATE
@WEIGHT_DECAY
@click.option("--no-predictor", is_flag=True, help="fix phi at 1")
@click.option("--step-size", type=float, help="gradient descent with this step instead of the flow")
@click.option("--momentum", type=float, default=0.0, help="heavy-ball momentum of the descent [0]")
@click.option("--gradient-noise", type=float, default=0.0, help="standard deviation added to each gradient [0]")
@SEED
@ANSWER
@out("scalar")
def scalar(as_json: bool, out: Path, **values: Any) -> None:
    """One predictor weight phi and one encoder weight theta: the state at --time and the eventual fate."""
    from collapse_lab.toy.reports import scalar_report

    _answer(scalar_report(**values), as_json, out)


@toy.command()
@VARIANT
@NOISE2
@RATE
@WEIGHT_DECAY
@click.option("--phi-range", type=RANGE, default=(-2.0, 3.0), help="predictor, low and high [-2 3]")
@click.option("--theta-range", type=RANGE, default=(-2.0, 2.0), help="encoder, low and high [-2 2]")
@click.option("--size", type=click.IntRange(max=4000), default=400, help="starts along each side [400]")
@ANSWER
@out("basin")
def basin(as_json: bool, out: Path, **values: Any) -> None:
    """Where each start of a plane ends, and the share of the plane that collapses."""
    from collapse_lab.toy.reports import basin_report

    _answer(basin_report(**values), as_json, out)


@toy.command()
@VARIANT
@TIME
@click.option("--noise2", type=float, default=0.1, help="variance of the augmentation, that of the data is 1 [0.1]")
@RATE
@WEIGHT_DECAY
@click.option("--ema-rate", type=float, help="b of dW_a/dt = b (W - W_a) [none: the target is the encoder]")
@click.option("--predictor", default="trained", help="trained, direct-pred or direct-copy [trained]")
@click.option("--symmetric", is_flag=True, help="symmetrise the predictor's flow, as theorem 3 does")
@click.option("--dim", type=click.IntRange(min=1, max=16), default=6, help="width of encoder and predictor [6]")
@click.option("--scale", type=float, default=0.7, help="size of the starting weights [0.7]")
@SEED
@ANSWER
@out("linear")
def linear(as_json: bool, out: Path, **values: Any) -> None:
    """DirectPred's matrices: eigenvalues, alignment of eigenspaces, the theorems as running checks."""
    from collapse_lab.toy.reports_linear import linear_report

    _answer(linear_report(**values), as_json, out)


@toy.command()
@PHI
@THETA
@NOISE2
@RATE
@WEIGHT_DECAY
@click.option("--rounds", type=click.IntRange(min=0), default=40, help="rounds of the exact alternation [40]")
@click.option("--step-size", type=float, default=0.1, help="of the k-step alternation [0.1]")
@click.option(
    "--steps", type=click.IntRange(min=1, max=1_000_000), default=20000, help="of the k-step alternation [20000]"
)
@click.option("--time", type=float, default=10.0, help="of eta's kinds without predictor, 1 / learning rate [10]")
@click.option("--beta", type=float, default=0.1, help="rate of the moving average [0.1]")
@click.option("--samples", type=click.IntRange(min=1), default=8, help="K, views in a mean [8]")
@SEED
@ANSWER
@out("alternation")
def alternation(as_json: bool, out: Path, **values: Any) -> None:
    """SimSiam as EM: exact and k-step rounds, sampled, averaged and mean-input eta, and their expected gradients."""
    from collapse_lab.toy.reports_alternation import alternation_report

    _answer(alternation_report(**values), as_json, out)


@toy.command()
@VARIANT
@click.option("--modes", type=click.IntRange(min=2, max=512), default=16, help="how many, the first is constant [16]")
@click.option("--least-agreement", type=float, default=0.3, help="of two views in the last mode [0.3]")
@RATE
@WEIGHT_DECAY
@click.option("--time", type=float, default=1000.0, help="how long, in units of 1 / learning rate [1000]")
@click.option("--epoch", type=float, default=5.0, help="gradient time of an epoch, for the momentum sweep [5]")
@SEED
@ANSWER
@out("cosine")
def cosine(as_json: bool, out: Path, **values: Any) -> None:
    """The linear model under the cosine loss: which modes survive, and what momentum eta is predicted to do."""
    from collapse_lab.toy.reports_cosine import cosine_report

    _answer(cosine_report(**values), as_json, out)


@toy.command()
@click.option("--method", "methods", multiple=True, help="a method, may be repeated [simsiam, no-stop-gradient]")
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="how many [1]")
@click.option("--steps", type=click.IntRange(min=1), default=600, help="training steps [600]")
@click.option("--noise2", type=float, default=0.25, help="variance of a view's noise [0.25]")
@ANSWER
@out("deep")
def deep(methods: tuple[str, ...], as_json: bool, out: Path, **values: Any) -> None:
    """A small MLP on synthetic views, without and with output BatchNorm: about four seconds a run."""
    from collapse_lab.toy.reports_deep import deep_report

    _answer(deep_report(methods or ("simsiam", "no-stop-gradient"), **values), as_json, out)


def _answer(report: Report, as_json: bool, out: Path) -> None:
    """The report as JSON on standard output, or as a table there with its files written."""
    if as_json:
        click.echo(json.dumps(report.answer, indent=2, allow_nan=False))
        return
    from rich.console import Console

    from collapse_lab.tables import terminal

    console = Console()
    # A pipe has no width of its own; a table cut to 80 columns would lose its numbers.
    console = console if console.is_terminal else Console(width=200)
    console.print(terminal(report.cells))
    click.echo(report.caption)
    for path in report.write(out):
        click.echo(f"wrote {path}", err=True)
