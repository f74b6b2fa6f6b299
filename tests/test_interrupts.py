"""Signals are noted while something is being finished, and obeyed soon: here, and in real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY, same, trained

from collapse_lab.interrupts import Interrupts
from collapse_lab.runs import read_config

NUMBERS = [signal.SIGINT, signal.SIGTERM]
FLAGS = [part for name, value in TINY.items() if value is not False for part in (f"--{name}", str(value))]
LONG = ["simsiam", *FLAGS, "--no-monitor.probe", "--train.epochs", "40", "--name", "study"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_and_raised_on_request(number):
    handlers, reached = [signal.getsignal(number) for number in NUMBERS], []

    def work() -> None:
        with Interrupts() as interrupts:
            interrupts.check()
            signal.raise_signal(number)
            reached.append(interrupts.noted)
            interrupts.check()
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [True]
    assert [signal.getsignal(number) for number in NUMBERS] == handlers


def test_what_was_noted_and_not_obeyed_is_raised_at_the_end():
    reached = []

    def work() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGTERM)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached


def test_another_error_comes_first():
    def work() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGTERM)
            raise MemoryError

    with pytest.raises(MemoryError):
        work()


@pytest.mark.parametrize("number", NUMBERS)
def test_work_that_can_be_given_up_is_interrupted_wherever_it_is(number):
    reached = []

    def work(before: bool) -> None:
        with Interrupts() as interrupts:
            if before:
                signal.raise_signal(number)
            with interrupts.at_once():
                reached.append(before)
                signal.raise_signal(number)
                reached.append("unheard")

    for before in (False, True):
        with pytest.raises(KeyboardInterrupt):
            work(before)
    assert reached == [False]


def test_of_nested_ones_the_inner_hears():
    def work() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGTERM)

    with Interrupts() as outer:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert not outer.noted


def test_outside_the_main_thread_nothing_is_touched():
    before, found = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Interrupts():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def hear_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(out: Path, *arguments: str, prepare: Callable[[], None] = hear_interrupts) -> subprocess.Popen[str]:
    """The command line in a process of its own, which does something before it becomes that program."""
    return subprocess.Popen(
        [sys.executable, "-m", "collapse_lab", *arguments, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name} within three minutes"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "number"),
    [("train", signal.SIGINT), pytest.param("compare", signal.SIGTERM, marks=pytest.mark.long)],
)
def test_a_process_that_is_told_to_stop_leaves_a_run_that_goes_on_to_the_byte(tmp_path, command, number):
    running = started(tmp_path / "out", command, *LONG, *(["--seeds", "1"] if command == "compare" else []))
    run = tmp_path / "out" / "study" / "simsiam" / "seed0"
    wait_for(run / "timing.csv")
    # The parent alone, as a scheduler does it.
    os.kill(running.pid, number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.splitlines()[-1].startswith("collapse-lab: interrupted; a run or study goes on with the same command")
    assert "Traceback" not in said
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], 0 < status["step"] < 200) == ("interrupted", True)
    config = read_config(run)
    assert trained(config, run)["state"] == "done"
    trained(config, tmp_path / "undisturbed")
    assert same(run, tmp_path / "undisturbed")
