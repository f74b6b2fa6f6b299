"""The command line: parses, calls, and turns every bad input into one line and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from collapse_lab import __version__
from collapse_lab.answers import answer, print_study, tell
from collapse_lab.errors import InputError, RunStopped
from collapse_lab.evaluation_flags import evaluation_flags, requested, transfer_images
from collapse_lab.flags import (
    assignments,
    configuration_flags,
    configured,
    configured_data,
    data_flags,
    data_overrides,
    job_parameters,
)
from collapse_lab.study import read as read_study
from collapse_lab.toy.commands import toy

# What a command needs is imported when it runs: help, tables and figures come without torch.

ANSWER = click.option("--json", "as_json", is_flag=True, help="one JSON document on standard output")
OUT = click.option("--out", type=click.Path(path_type=Path), default="runs", help="where runs are kept [runs]")
NAME = click.option("--name", help="the study's part of the path [data set and a digest of the settings]")
ROWS = "checkpoint: what is a row of a sequence or a feature map [pooled]"
PIXELS = "checkpoint: scale images by their own mean and std, by ImageNet's, or leave them in [0, 1] [data]"
# Columns from which the table of methods can be read whole.
WIDE = 120
JOBS = click.option(
    "--jobs",
    type=click.Choice(["slurm", "local"]),
    help="train every run in a job of its own: on a Slurm cluster, or all at once on this machine; ^C cancels the jobs",
)
JOB = click.option(
    "--job",
    "asked",
    multiple=True,
    metavar="KEY=VALUE",
    help="what each of the --jobs asks for, as submitit names it: timeout_min=120, gpus_per_node=1, slurm_partition=gpu",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="start afresh the runs that lie there already")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="collapse-lab")
def commands() -> None:
    """Tells whether a self-supervised run is collapsing, how, where and why."""


@commands.command()
@click.argument("methods", nargs=-1, metavar="[METHOD]...")
@click.option("--seeds", type=click.IntRange(min=1), default=3, help="how many, counted from --train.seed [3]")
@OUT
@NAME
@JOBS
@JOB
@OVERWRITE
@ANSWER
@configuration_flags
def compare(
    methods: tuple[str, ...],
    seeds: int,
    out: Path,
    name: str | None,
    jobs: str | None,
    asked: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train each METHOD over seeds; write runs, summary and figures; print the table with verdicts.

    Without METHOD: simsiam and no-stop-gradient. Finished runs are kept, unfinished ones resumed.
    """
    shared, configs = configured(methods or ("simsiam", "no-stop-gradient"), values)
    from collapse_lab import grid, plots, tables
    from collapse_lab.display import Display

    first = shared.train.seed
    runs = grid.arms(configs, range(first, first + seeds))
    place = grid.Grid(_one_name(name) or grid.study_name(shared), shared, runs)
    engine = _engine(out, jobs, asked)
    with Display(len(runs)) as display:
        summary = grid.run_study(out, place, overwrite=overwrite, listen=display.show, engine=engine)
    answer(summary, tables.comparison_cells(summary), as_json, caption=tables.comparison_caption(summary))
    drawn = plots.draw(out / place.name, out / place.name)
    click.echo(f"figures: {', '.join(str(path) for path in drawn)}", err=True)


@commands.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(min=1), default=3, help="how many, counted from train.seed [3]")
@click.option("--smoke", is_flag=True, help="seconds: every arm on few digits, 1 epoch, 1 seed, kept in OUT/smoke")
@click.option(
    "--set", "texts", multiple=True, metavar="KEY=VALUE", help="a setting of all arms, such as train.epochs=5"
)
@click.option("--data", metavar="NAME|PATH", help="a data set's name, an .npz file, or a folder of images [digits]")
@OUT
@JOBS
@JOB
@OVERWRITE
@ANSWER
def study(
    files: tuple[Path, ...],
    seeds: int,
    smoke: bool,
    texts: tuple[str, ...],
    data: str | None,
    out: Path,
    jobs: str | None,
    asked: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Carry out the study in each FILE: train its arms over seeds, measure, write OUT/results/STUDY, print the tables.

    Finished runs are kept, unfinished ones resumed; arms that several studies share are trained once.
    """
    chosen = {**(data_overrides(data) if data else {}), **assignments(texts)}
    found = [read_study(path) for path in files]
    from collapse_lab import plan, studies, study_plots
    from collapse_lab.display import Display

    place = out / "smoke" if smoke else out
    plans = [plan.planned(file, chosen, 1 if smoke else seeds, smoke=smoke) for file in found]
    engine = _engine(place, jobs, asked)
    with Display(len({(each.grid.name, path) for each in plans for path in each.grid.runs})) as display:
        outcome = studies.carry_out(place, plans, overwrite=overwrite, listen=display.show, tell=tell, engine=engine)
    if as_json:
        click.echo(json.dumps({"studies": outcome.summaries}, indent=2))
    for file in found:
        summary = outcome.summaries[file.name]
        if not as_json:
            print_study(summary)
        directory = place / studies.RESULTS / file.name
        drawn = study_plots.draw(summary, place, directory, course=file.study.curves)
        tell(f"figures: {', '.join(map(str, drawn))}")
    for error in outcome.errors:
        raise error


@commands.command()
@click.argument("method")
@OUT
@NAME
@OVERWRITE
@ANSWER
@configuration_flags
def train(method: str, out: Path, name: str | None, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Train one METHOD with the seed --train.seed; a finished run is kept, an unfinished one resumed.

    In several processes: torchrun --nproc-per-node N -m collapse_lab train METHOD; --train.batch is that of all together.
    """
    shared, (config,) = configured((method,), values)
    from collapse_lab import grid, run_records, workers
    from collapse_lab.display import Display
    from collapse_lab.launch import process_group
    from collapse_lab.machine import pick_device

    ((path, config),) = grid.arms([config], [config.train.seed]).items()
    directory = out / (_one_name(name) or grid.study_name(shared)) / path
    # The answer too, as a process that leaves the group ends well whatever comes after.
    with process_group(pick_device(config.train).type == "cuda") as rank:
        with nullcontext() if rank else Display(1) as display:
            listen = display.show if display else lambda news: None
            state = workers.run_one(config, directory, overwrite=overwrite, listen=listen)
        if rank:
            return
        values = run_records.final_values(directory)
        cells = {"run": str(directory), "state": state["state"], "verdict": str(state["verdict"])}
        cells |= {key: f"{value:.4f}" for key, value in values.items()}
        answer({"run": str(directory), **state, "values": values}, [cells], as_json)


@commands.command()
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="where the figures go [RUNS]")
def figure(runs: Path, out: Path | None) -> None:
    """Redraw the figures of the study in the directory RUNS from its records."""
    from collapse_lab import plots

    for path in plots.draw(runs, out or runs):
        click.echo(path)


@commands.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--key", help="which array of an .npz file [the only one of floats (N, D)]")
@click.option("--model", metavar="MODULE:FUNCTION", help="checkpoint: what builds the model")
@click.option("--layer", metavar="NAME", help="checkpoint: whose output, by dotted name [the model's]")
@click.option("--pick", metavar="KEY", help="checkpoint: which part of an output that is a dict, tuple or dataclass")
@click.option("--rows", type=click.Choice(["pooled", "flattened", "class-token"]), default="pooled", help=ROWS)
@click.option("--data", metavar="NAME|PATH", help="checkpoint: an .npz file, a folder of images, or a data set's name")
@click.option("--pixels", type=click.Choice(["data", "imagenet", "none"]), default="data", help=PIXELS)
@click.option("--prefix", help="checkpoint: where the weights lie in it, such as state_dict.model [found]")
@data_flags
@click.option("--reference", type=click.Path(path_type=Path), help="features or a run that went well, to compare with")
@click.option("--out", type=click.Path(path_type=Path), help="write report.png into this directory, or to this file")
@ANSWER
def diagnose(
    path: Path,
    key: str | None,
    reference: Path | None,
    out: Path | None,
    as_json: bool,
    model: str | None,
    layer: str | None,
    pick: str | None,
    rows: Any,
    data: str | None,
    pixels: Any,
    prefix: str | None,
    **values: Any,
) -> None:
    """Print a verdict on PATH: features (.npy, .npz), a run directory, or a checkpoint of any torch model.

    Exit code 0: healthy. 3: collapsed, diverged or otherwise failed. 4: the data do not decide. 2: bad input.
    A file is never unpickled beyond tensors; --model runs your own code.
    """
    _require_model(model, path, {"--layer": layer, "--pick": pick, "--data": data, "--prefix": prefix})
    images = configured_data(data, values)
    from collapse_lab import report
    from collapse_lab.checkpoints import Request
    from collapse_lab.diagnose import diagnose as diagnosed

    checkpoint = Request(model, images, layer, pick, rows, pixels, prefix) if model else None
    diagnosis = diagnosed(path, key=key, reference=reference, checkpoint=checkpoint)
    document = diagnosis.document()
    written = out and report.write(out, document, diagnosis.panels)
    answer(document, diagnosis.cells(), as_json, caption=diagnosis.caption())
    if written:
        click.echo(f"report: {written}", err=True)
    click.get_current_context().exit(diagnosis.exit_code)


@commands.command()
@click.argument("run", type=click.Path(path_type=Path))
@evaluation_flags
@ANSWER
def evaluate(run: Path, out: Path | None, as_json: bool, **values: Any) -> None:
    """Print what the features of a finished RUN are worth: kNN and linear probes, transfer, each with its protocol.

    All of it is written to RUN/evaluation.json, in the place of an earlier one.
    """
    request, transfer = requested(values), transfer_images(values)
    from collapse_lab import data, evaluation, evaluation_table
    from collapse_lab.restored import restored

    directory = restored(run, root=values["root"], device=values["device"], last_checkpoint=values["last_checkpoint"])
    images = data.load(transfer) if transfer else None
    path = out or run / "evaluation.json"
    evaluation_table.require_folder(path)
    document = evaluation.evaluated(
        directory, request, images, lambda *told: click.echo(evaluation_table.line(*told), err=True)
    )
    evaluation_table.write(path, document)
    answer(document, evaluation_table.cells(document), as_json, caption=evaluation_table.caption(document))


@commands.command()
@ANSWER
def methods(as_json: bool) -> None:
    """Print the methods: what they are, their parts, encoder passes, source, the paper's number, where they are tested."""
    from rich.console import Console

    from collapse_lab import tables

    console = Console()
    narrow = console.is_terminal and console.width < WIDE
    cells = tables.narrow_method_cells() if narrow else tables.method_cells()
    caption = f"A terminal of {WIDE} columns shows more, --json all." if narrow else tables.METHODS_CAPTION
    answer({"methods": tables.method_documents()}, cells, as_json, caption)


def _require_model(model: str | None, path: Path, given: dict[str, str | None]) -> None:
    """Refuse what is said of a checkpoint where there is none, and a checkpoint without images."""
    if model is None:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name}: belongs to a checkpoint, with --model; found '{value}' for '{path}'")
    elif path.is_dir() or path.suffix.lower() in (".npy", ".npz"):
        raise InputError(
            f"--model: '{path}' is {'a directory' if path.is_dir() else 'an array'}; only a checkpoint needs one"
        )
    elif given["--data"] is None:
        raise InputError(
            "--data: none given; a checkpoint is judged on images: an .npz file, a folder, or a data set's name"
        )


commands.add_command(toy)


def _engine(out: Path, jobs: str | None, asked: tuple[str, ...]) -> Any:
    """What trains the runs: processes of this machine, or a cluster's jobs."""
    if (count := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise InputError(
            f"torchrun: found {count} processes, each would train all runs; only `train` is one run in several"
        )
    if jobs is None:
        if asked:
            raise InputError(
                f"--job: found '{asked[0]}' without --jobs, which says where jobs are to run: slurm or local"
            )
        from collapse_lab import workers

        return workers.HERE
    from collapse_lab import cluster

    return cluster.engine(out / "jobs", jobs, job_parameters(asked))


def _one_name(name: str | None) -> str | None:
    if name is not None and (name in ("", ".", "..") or Path(name).name != name):
        raise InputError(f"--name: found '{name}', it is one part of a path; --out says where studies are kept")
    return name


def _terminated(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line.

    One line on standard error and exit code 2 for input that cannot be used, 130 after an interrupt, 1 where a run was
    stopped by an error.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        sys.exit(commands.main(sys.argv[1:] or ["--help"], prog_name="collapse-lab", standalone_mode=False))
    except click.Abort:
        click.echo(
            "collapse-lab: interrupted; a run or study goes on with the same command, without --overwrite", err=True
        )
        sys.exit(130)
    except RunStopped as error:
        click.echo(f"collapse-lab: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except (click.ClickException, InputError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"collapse-lab: {' '.join(message.split())}", err=True)
        sys.exit(2)
