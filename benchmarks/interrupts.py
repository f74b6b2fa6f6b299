"""How long a run that is told to stop, at a random moment, takes to save its state and exit.

    python benchmarks/interrupts.py --tries 6 --cifar .data/cifar10-jpeg-q75.npz

Every try starts the command anew, waits until the start of the run is evaluated and a random while longer, and sends
SIGTERM and SIGINT in turns to the one process that was started. It counts the seconds until that process is gone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from measure import ROOT, commit, machine, summary

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Case(NamedTuple):
    """A command, and how many seconds after the first evaluation the signal comes at the latest."""

    arguments: list[str]
    within: float


class Try(NamedTuple):
    """What became of one process: seconds to its end, exit code, and what the status says."""

    seconds: float
    code: int
    state: str
    step: int


def cases(cifar: Path) -> dict[str, Case]:
    """The default, in one process and in several, and a small network on CIFAR-10."""
    images = ["--data.name", "npz", "--data.root", str(cifar), "--data.train_images", "10000"]
    return {
        "train simsiam": Case(["train", "simsiam"], 8),
        "compare simsiam no-stop-gradient --seeds 1": Case(
            ["compare", "simsiam", "no-stop-gradient", "--seeds", "1"], 8
        ),
        "train simsiam, CIFAR-10, 10,000 images": Case(["train", "simsiam", *images], 20),
    }


def tried(case: Case, number: signal.Signals, dice: random.Random) -> Try:
    """One process, told to stop at a random moment."""
    with tempfile.TemporaryDirectory() as place:
        running = subprocess.Popen(
            [sys.executable, "-m", "collapse_lab", *case.arguments, "--out", place, "--name", "study"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # What a shell starts in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        run = Path(place) / "study" / "simsiam" / "seed0"
        while not (run / "metrics.csv").exists() and running.poll() is None:
            time.sleep(0.05)
        time.sleep(dice.uniform(0, case.within))
        told = time.monotonic()
        if running.poll() is None:
            os.kill(running.pid, number)
        code = running.wait()
        seconds = time.monotonic() - told
        status = json.loads((run / "status.json").read_text())
        return Try(round(seconds, 3), code, status["state"], status["step"])


def main() -> None:
    """Start, stop, count, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=6)
    parser.add_argument("--cifar", type=Path, default=Path(".data/cifar10-jpeg-q75.npz"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "interrupts.json")
    arguments = parser.parse_args()
    before, found_on, dice = commit(), machine(), random.Random(0)
    results: dict[str, Any] = {}
    for name, case in cases(arguments.cifar).items():
        tries = [tried(case, NUMBERS[number % 2], dice) for number in range(arguments.tries)]
        interrupted = [one for one in tries if one.state == "interrupted"]
        seconds = [one.seconds for one in interrupted]
        results[name] = {
            "seconds": summary(seconds),
            "longest": max(seconds),
            "resumable": len(interrupted),
            "done_before": sum(one.state == "done" for one in tries),
            "tries": [one._asdict() for one in tries],
        }
        print(
            f"{name:45s} longest {max(seconds):5.2f} s, mean {sum(seconds) / len(seconds):5.2f} s, n = {len(seconds)}"
        )
    report = {
        "what": "seconds from SIGTERM or SIGINT to the end of the process, at random moments of training and evaluation",
        "results": results,
        "machine": found_on,
        "commit": before,
        "command": f"python benchmarks/interrupts.py --tries {arguments.tries} --cifar {arguments.cifar}",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
