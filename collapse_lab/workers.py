"""Runs in processes of their own: started, listened to, interrupted, and never left behind."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, NamedTuple

from collapse_lab import data
from collapse_lab.collective import processes
from collapse_lab.data import Images
from collapse_lab.errors import InputError, RunStopped
from collapse_lab.interrupts import SIGNALS, Interrupts
from collapse_lab.launch import first_process_first, lost_another
from collapse_lab.lifetime import end_with_the_parent
from collapse_lab.machine import cores, device_here
from collapse_lab.preflight import check
from collapse_lab.run_records import ENDED
from collapse_lab.runs import Follower, Run
from collapse_lab.settings import Config, TrainConfig
from collapse_lab.trainer import Progress, train
from collapse_lab.whole import write_whole

ASKED_EVERY = 0.2  # seconds between two looks at whether to stop


class News(NamedTuple):
    """What a run says of itself: how far it is, or the state it has reached; with ``job``, the state of its job."""

    run: str
    state: str
    progress: Progress | None = None
    job: str | None = None


Listener = Callable[[News], None]


class Engine(NamedTuple):
    """What trains runs: a function such as ``train_all``, and what it asks of configuration and images beforehand."""

    train: Callable[[Path, Mapping[str, Config], bool, Listener], list[BaseException | None]]
    check: Callable[[Config, Images], None]


def run_name(directory: Path) -> str:
    """What the run of a directory ``<arm>/seed<k>`` is called in messages."""
    return f"{directory.parent.name} seed {directory.name.removeprefix('seed')}"


def train_all(study: Path, runs: Mapping[str, Config], overwrite: bool, listen: Listener) -> list[BaseException | None]:
    """Train the runs in processes of their own; the errors of those that were stopped by one."""
    first = next(iter(runs.values()))
    workers = side_by_side(first.train)
    context = multiprocessing.get_context("spawn")
    # An interrupt in the middle of a call to the manager would leave its answer for the next call to find.
    with Interrupts() as interrupts, ExitStack() as stack:
        with _signals_held():
            manager = SyncManager(ctx=context)
            manager.start(end_with_the_parent, (os.getpid(),))
            stack.callback(manager.shutdown)
            pool = stack.enter_context(
                ProcessPoolExecutor(min(workers, len(runs)), context, end_with_the_parent, (os.getpid(),))
            )
            news, stop = manager.Queue(), manager.Event()
            futures = [pool.submit(_work, config, study / path, overwrite, news, stop) for path, config in runs.items()]
        while not (all(future.done() for future in futures) and news.empty()):
            with suppress(queue.Empty):
                listen(pickle.loads(news.get(timeout=0.1)))
            if interrupts.noted and not stop.is_set():
                stop.set()
                for future in futures:
                    future.cancel()
        return [future.exception() for future in futures if not future.cancelled()]


def run_one(config: Config, directory: Path, *, overwrite: bool, listen: Listener) -> dict[str, Any]:
    """Train one run in this process and return its status."""
    name = run_name(directory)

    def report(progress: Progress) -> None:
        listen(News(name, "running", progress))

    with Interrupts() as interrupts, interrupts.at_once(), first_process_first():
        images = data.load(config.data)
    check(config, images)
    with first_process_first():
        run = Follower(directory, config) if processes()[0] else Run(directory, config, overwrite=overwrite)
    with run:
        state = run.status()["state"]
        if state in ENDED:
            listen(News(name, f"{state} before"))
            return run.status()
        listen(News(name, "started"))
        try:
            status = train(config, run, images, report)
        except InputError:
            raise
        except Exception as error:
            raise RunStopped(_why_stopped(directory, error)) from error
        finally:
            listen(News(name, run.status()["state"]))
    return status


def _why_stopped(directory: Path, error: Exception) -> str:
    """Why an error stopped a run; the traceback of what no other process began is kept in its directory."""
    rank = processes()[0]
    if lost_another(error):
        return (
            f"run '{directory}' was stopped by the end of another process, seen by rank {rank}; start all of them again"
        )
    kept = f"traceback-rank{rank}.txt" if rank else "traceback.txt"
    write_whole(directory / kept, traceback.format_exc())
    return f"run '{directory}' was stopped by {type(error).__name__}: {error}; its {kept} says where"


def _work(config: Config, directory: Path, overwrite: bool, news: Any, stop: Any) -> None:
    # The parent asks for an interrupt and raises its own; the run's status says that it can be resumed.
    with suppress(KeyboardInterrupt), Interrupts(), interrupted_by(stop.is_set):
        if not stop.is_set():
            # As bytes: the manager, which only hands them on, would have to load torch to know what they are.
            run_one(config, directory, overwrite=overwrite, listen=lambda told: news.put(pickle.dumps(told)))


@contextmanager
def interrupted_by(asked: Callable[[], bool]) -> Iterator[None]:
    """Send this process SIGINT, as long as it runs what is inside, from when it is asked to stop."""
    over = threading.Event()

    def watch() -> None:
        # Where the parent is gone, this process is about to go too.
        with suppress(OSError, EOFError):
            while not over.wait(ASKED_EVERY):
                if asked():
                    _thread.interrupt_main()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM; processes started meanwhile never get them, so that only the parent decides."""
    # Started by itself, the tracker would let the signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def side_by_side(train: TrainConfig) -> int:
    """How many runs go at once: as many as there are cores for on a CPU, one on a GPU."""
    return max(1, cores() // train.threads) if device_here(train).type == "cpu" else 1


HERE = Engine(train_all, check)
