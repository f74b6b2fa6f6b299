"""kill -9 at random moments, again and again until the run is done: is anything lost?

    python benchmarks/kills.py --kills 200

A small run is trained once undisturbed. Then the same run is trained in processes that are killed in the middle of
training, of writing a checkpoint, of writing the table, of evaluating, or wherever they are, each a fifth of the time, and
is taken up by the next process in the same directory until one reaches the end. A loss is a run whose table, weights or
momenta then differ from the undisturbed ones in a single bit, or that a process refused to go on with.

Processes are forked from one that has loaded torch, and are otherwise those of ``collapse-lab train``.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measure import ROOT, commit, machine

from collapse_lab import runs, workers
from collapse_lab.config import build
from collapse_lab.methods import method
from collapse_lab.presets import DATA
from collapse_lab.settings import Config
from collapse_lab.trainer import Trainer

PHASES = ("elsewhere", "training", "writing a checkpoint", "writing the table", "evaluating")
SETTINGS = {
    "data.train_images": 160,
    "data.test_images": 40,
    "network.width": 4,
    "network.projector_hidden": 16,
    "network.projector_dim": 16,
    "network.predictor_hidden": 8,
    "train.epochs": 10,
    "train.batch": 32,
    "train.device": "cpu",
    "monitor.every": 2,
    "monitor.evaluate_every": 2,
    "monitor.k": 5,
    "monitor.on_collapse": "warn",
}
# Seconds into a phase within which the kill comes; a phase that is shorter is left by then.
WITHIN = {
    "elsewhere": 0.4,
    "training": 0.004,
    "writing a checkpoint": 0.008,
    "writing the table": 0.004,
    "evaluating": 0.02,
}
LATEST = 12  # the kill waits for at most so many beginnings of its phase


class Board:
    """What a process is doing, in memory that it shares with the one that will kill it: phase, and how often each began."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + len(PHASES))

    def clear(self) -> None:
        """Forget all."""
        self._memory[:] = bytes(len(self._memory))

    @property
    def phase(self) -> str:
        """What the process is doing, or did when it ended."""
        return PHASES[self._memory[0]]

    def begun(self, phase: str) -> int:
        """How often a phase has begun."""
        return self._memory[1 + PHASES.index(phase)]

    def noting(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which puts the phase on the board while it runs."""
        number = PHASES.index(phase)

        @wraps(function)
        def noted(*arguments: Any, **options: Any) -> Any:
            before, self._memory[0] = self._memory[0], number
            self._memory[1 + number] = min(255, self._memory[1 + number] + 1)
            try:
                return function(*arguments, **options)
            finally:
                self._memory[0] = before

        return noted


class Kill(NamedTuple):
    """Which beginning of which phase, and how many seconds later."""

    phase: str
    number: int
    delay: float


def planned(dice: random.Random) -> Kill:
    """A random moment."""
    phase = dice.choice(PHASES)
    return Kill(phase, 0 if phase == "elsewhere" else dice.randint(1, LATEST), dice.uniform(0, WITHIN[phase]))


def started(directory: Path, config: Config, board: Board) -> int:
    """The number of a new process that trains, or goes on with, the run in a directory."""
    board.clear()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(directory.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        runs.Run.save_checkpoint = board.noting("writing a checkpoint", runs.Run.save_checkpoint)
        runs.Run._append = board.noting("writing the table", runs.Run._append)
        Trainer._evaluation = board.noting("evaluating", Trainer._evaluation)
        Trainer._train_step = board.noting("training", Trainer._train_step)
        status = workers.run_one(config, directory, overwrite=False, listen=lambda news: None)
        code = 0 if status["state"] == "done" else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def killed(child: int, kill: Kill, board: Board) -> int | None:
    """Kill a process at its moment; its exit code where it ended before."""
    while board.begun(kill.phase) < kill.number:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(2e-4)
    time.sleep(kill.delay)
    # Not yet waited for, so the number is still its own.
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == -signal.SIGKILL else code


def content(directory: Path) -> tuple[bytes, dict[str, bytes]]:
    """The table, and every weight, buffer and momentum, as bytes."""
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    tensors = {f"momentum {key}": value["momentum_buffer"] for key, value in state["optimizer"]["state"].items()}
    weights = {name: tensor.numpy().tobytes() for name, tensor in {**state["objective"], **tensors}.items()}
    return (directory / "metrics.csv").read_bytes(), weights


class Tried(NamedTuple):
    """One run brought to its end: in which phases its processes were killed, and whether it ended as it should."""

    phases: list[str]
    sound: bool
    said: list[str]


def tried(directory: Path, config: Config, dice: random.Random, kills: int, expected: Any) -> Tried:
    """Train a run through at most so many kills and compare it with the undisturbed one."""
    board, phases, code = Board(), [], None
    while code is None:
        child = started(directory, config, board)
        # After so many the run is let go on, as it is where it came to its end before its moment.
        kill = planned(dice) if len(phases) < kills else Kill("training", 10**9, 0.0)
        code = killed(child, kill, board)
        if code is None:
            phases.append(board.phase)
    log = directory.with_suffix(".log").read_text().splitlines()
    return Tried(phases, code == 0 and content(directory) == expected, log)


def measured(place: Path, kills: int, seed: int) -> dict[str, Any]:
    """Runs until so many kills, and what became of them."""
    config = build("simsiam", DATA["digits"], method("simsiam").overrides, SETTINGS)
    never = partial(tried, config=config, dice=random.Random(0), kills=0, expected=None)
    never(place / "undisturbed")
    expected = content(place / "undisturbed")
    dice, done = random.Random(seed), []
    while sum(len(run.phases) for run in done) < kills:
        left = kills - sum(len(run.phases) for run in done)
        done.append(tried(place / f"run{len(done)}", config, dice, left, expected))
        if not done[-1].sound:
            print(f"run {len(done) - 1} was lost: {' '.join(done[-1].said[-3:])}")
    counts = Counter(phase for run in done for phase in run.phases)
    return {
        "kills": sum(counts.values()),
        "kills_by_phase": {phase: counts[phase] for phase in PHASES},
        "runs": len(done),
        "most_kills_of_a_run": max(len(run.phases) for run in done),
        "losses": sum(not run.sound for run in done),
        "taken_up_from_the_checkpoint_before": sum("going on from" in line for run in done for line in run.said),
    }


def main() -> None:
    """Kill, count, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "kills.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before, found_on, start = commit(), machine(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        results = measured(Path(place), arguments.kills, arguments.seed)
    report = {
        "what": "kill -9 at random moments, taken up again until done; losses are runs that end with another byte",
        **results,
        "seconds": round(time.monotonic() - start, 1),
        "machine": found_on,
        "commit": before,
        "command": f"python benchmarks/kills.py --kills {arguments.kills} --seed {arguments.seed}",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
