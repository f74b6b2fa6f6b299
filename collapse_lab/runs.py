"""A run is a directory: configuration, environment, one tidy table, checkpoints, a status. Nothing else remembers it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from filelock import BaseFileLock, FileLock, Timeout

from collapse_lab import config as configuration
from collapse_lab.environment import device_name, environment
from collapse_lab.errors import InputError
from collapse_lab.resume import CHECKPOINT, PREVIOUS, REFUSED, extensible, grown, latest, refusal, size
from collapse_lab.run_records import ENDED, METRICS, TIMING, read_config, read_json, read_status
from collapse_lab.settings import Config
from collapse_lab.snapshots import sealed
from collapse_lab.whole import append_whole, cut, write_whole

HEALTHY = "checkpoint-healthy.pt"
FILES = (
    "config.json",
    "environment.json",
    METRICS,
    TIMING,
    CHECKPOINT,
    PREVIOUS,
    HEALTHY,
    REFUSED,
    "status.json",
    "traceback.txt",
    "evaluation.json",
)


class Row(NamedTuple):
    """One line of ``metrics.csv``; ``source`` is train, eval or probe, ``layer`` is empty for the loss."""

    step: int
    epoch: int
    source: str
    layer: str
    metric: str
    index: int  # type: ignore[assignment]
    value: float


def rounded(value: float) -> float:
    """A value as the table gives it back.

    >>> rounded(0.12345678901)
    0.123456789
    """
    return float(f"{value:.9g}")


class Run:
    """The directory of one run, owned by this process while the context is open.

    Opening refuses, with ``InputError``: a directory that cannot be written, one in use by another process, one made with
    another configuration (naming the fields). ``overwrite`` empties it of a run's files first. More ``train.epochs`` than
    before are allowed while nothing that was done depends on their number, which under a cosine schedule is the warm-up.

    Whatever is written is whole and on the disk, or was not written: ``InputError``, with what was there before intact.
    """

    def __init__(self, directory: Path, config: Config, *, overwrite: bool = False) -> None:
        self.directory, self.config = directory, config
        self._metrics, self._timing = directory / METRICS, directory / TIMING
        with ExitStack() as held:
            held.callback(_claimed(directory).release)
            # An open descriptor keeps the directory's number from being given to another.
            self._descriptor = os.open(directory, os.O_RDONLY)
            held.callback(os.close, self._descriptor)
            with self._guarded():
                self._prepare(overwrite)
            self._held = held.pop_all()

    def _prepare(self, overwrite: bool) -> None:
        if overwrite:
            for name in FILES:
                (self.directory / name).unlink(missing_ok=True)
                (self.directory / f"{name}.partial").unlink(missing_ok=True)
            for path in self.directory.glob("traceback-rank*.txt"):
                path.unlink()
        if not (self.directory / "config.json").exists():
            self._write("config.json", configuration.to_json(self.config))
            return
        found = read_config(self.directory)
        if grown(found, self.config) and self.status()["state"] not in ENDED and extensible(self.directory):
            return
        if differing := configuration.differences(found, self.config):
            raise InputError(refusal(self.directory, found, self.config, differing))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Add lines to ``metrics.csv``; values keep nine significant digits."""
        self._append(self._metrics, Row._fields, ((*row[:-1], f"{row.value:.9g}") for row in rows))

    def append_timing(self, epoch: int, seconds: float, images_per_second: float, waiting: float | None = None) -> None:
        """Add a line to ``timing.csv``, which holds all that differs between two equal runs.

        Every stretch of training has its line: an epoch that was interrupted, or done again after a crash, has several.
        ``waiting``: the seconds of it that went into waiting for data; runs that stream have that column, no others.
        """
        line = {"epoch": epoch, "seconds": f"{seconds:.4f}", "images_per_second": f"{images_per_second:.1f}"}
        line |= {} if waiting is None else {"waiting": f"{waiting:.4f}"}
        self._append(self._timing, tuple(line), [tuple(line.values())])

    def _append(self, path: Path, header: tuple[str, ...], lines: Iterable[tuple[Any, ...]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not size(path):
            writer.writerow(header)
        writer.writerows(lines)
        with self._guarded():
            append_whole(path, text.getvalue())

    def save_checkpoint(self, state: Mapping[str, Any], *, extensible: bool, healthy: bool = False) -> None:
        """Replace the checkpoint, whole or not at all, and keep the one before as ``checkpoint-previous.pt``.

        It knows its configuration and how much of the table it follows. ``extensible``: it is also the state of every run
        with more epochs. ``healthy``: it is the latest from before any sign of collapse, and kept as such.
        """
        known = {"config": configuration.to_dict(self.config), "rows": size(self._metrics), "extensible": extensible}
        content = sealed({**state, **known})
        if healthy:
            self._write(HEALTHY, content)
        self._write(CHECKPOINT, content, keep=self.directory / PREVIOUS)

    def resume(self, device: torch.device) -> dict[str, Any] | None:
        """The latest state that can be used, the tables being cut back to it; None where there is none yet.

        A checkpoint that was cut short, changed, or belongs to another run is refused by name, and set aside where the one
        before it can be used. Raises ``InputError`` where there are checkpoints and none can be used.
        """
        with self._guarded():
            state = latest(self.directory, self.config, device)
            if state is None:
                self._metrics.unlink(missing_ok=True)
                self._timing.unlink(missing_ok=True)
                return None
            cut(self._metrics, state["rows"])
            if self._timing.exists():
                # A crash can cut a line short.
                cut(self._timing, self._timing.read_bytes().rfind(b"\n") + 1)
        return state

    def write_environment(self, device: torch.device) -> None:
        """Record versions, device, threads, commit and command; a resumed run has one entry for every start."""
        path = self.directory / "environment.json"
        earlier = read_json(path, ("starts",))["starts"] if path.exists() else []
        start = {**environment(), "device": device_name(device), "threads": torch.get_num_threads()}
        self._write("environment.json", json.dumps({"starts": [*earlier, start]}, indent=2) + "\n")
        # It can have grown by epochs since the last start.
        self._write("config.json", configuration.to_json(self.config))

    def write_status(
        self, state: str, step: int, verdict: str | None = None, error: str | None = None, **collapse: Any
    ) -> None:
        """Replace the status; ``state`` is running or interrupted, or one of the final done, failed and stopped.

        ``collapse`` is empty, or ``alarm``, ``first_tap`` and ``healthy_checkpoint``.
        """
        record = {"state": state, "step": step, "verdict": verdict, "error": error, **collapse}
        self._write("status.json", json.dumps(record, indent=2) + "\n")

    def status(self) -> dict[str, Any]:
        """The status as last written; state ``new`` before that."""
        return read_status(self.directory)

    def _write(self, name: str, content: str | bytes, keep: Path | None = None) -> None:
        with self._guarded():
            write_whole(self.directory / name, content, keep)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Write into the directory that was opened, and no other that took its place; an error in one line."""
        self._require_own()
        try:
            yield
        except InputError:
            self._require_own()
            raise
        except OSError as error:
            self._require_own()
            raise InputError(
                f"run directory '{self.directory}' cannot be written: {error.strerror}; its last checkpoint is intact"
            ) from None

    def _require_own(self) -> None:
        try:
            found = self.directory.stat()
        except FileNotFoundError:
            raise InputError(f"run directory '{self.directory}' was removed while it was in use") from None
        if not os.path.samestat(found, os.fstat(self._descriptor)):
            raise InputError(f"run directory '{self.directory}' was replaced by another while it was in use")


class Follower(Run):
    """The run of a process that leaves the writing to another: it reads where that one stands, and writes nothing."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory, self.config = directory, config

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to let go of."""

    def append(self, rows: Iterable[Row]) -> None:
        """Nothing."""

    def append_timing(self, epoch: int, seconds: float, images_per_second: float, waiting: float | None = None) -> None:
        """Nothing."""

    def save_checkpoint(self, state: Mapping[str, Any], *, extensible: bool, healthy: bool = False) -> None:
        """Nothing."""

    def resume(self, device: torch.device) -> dict[str, Any] | None:
        """The state that the writing process goes on from, once it has chosen it."""
        return latest(self.directory, self.config, device)

    def write_environment(self, device: torch.device) -> None:
        """Nothing."""

    def write_status(
        self, state: str, step: int, verdict: str | None = None, error: str | None = None, **collapse: Any
    ) -> None:
        """Nothing."""


def require_free(directory: Path) -> None:
    """Raise ``InputError`` where a run's directory cannot be written or another process is using it."""
    _claimed(directory).release()


def _claimed(directory: Path) -> BaseFileLock:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"run directory '{directory}' is in use by another process, here or on another machine"
        ) from None
    except OSError as error:
        raise InputError(f"output directory '{directory}' cannot be written: {error.strerror}") from None
    return lock
