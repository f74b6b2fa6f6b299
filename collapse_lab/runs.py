"""A run is a directory: configuration, environment, one tidy table, a checkpoint, a status. Nothing else remembers it."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import pickle
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pandas as pd
import torch
from filelock import BaseFileLock, FileLock, Timeout

from collapse_lab import config as configuration
from collapse_lab.errors import InputError
from collapse_lab.settings import Config

HEALTHY = "checkpoint-healthy.pt"
FILES = (
    "config.json",
    "environment.json",
    "metrics.csv",
    "timing.csv",
    "checkpoint.pt",
    HEALTHY,
    "status.json",
    "traceback.txt",
    "evaluation.json",
)
ENDED = ("done", "failed", "stopped")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "faiss-cpu", "scikit-learn")


class Row(NamedTuple):
    """One line of ``metrics.csv``; ``source`` is train, eval or probe, ``layer`` is empty for the loss."""

    step: int
    epoch: int
    source: str
    layer: str
    metric: str
    index: int  # type: ignore[assignment]
    value: float


class Run:
    """The directory of one run, owned by this process while the context is open.

    Opening refuses, with ``InputError``: a directory that cannot be written, one in use by another process, one made with
    another configuration (naming the fields). ``overwrite`` empties it of a run's files first.
    """

    def __init__(self, directory: Path, config: Config, *, overwrite: bool = False) -> None:
        self.directory = directory
        self._lock = _claimed(directory)
        try:
            self._prepare(config, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def _prepare(self, config: Config, overwrite: bool) -> None:
        if overwrite:
            for name in FILES:
                (self.directory / name).unlink(missing_ok=True)
        if (self.directory / "config.json").exists():
            differing = configuration.differences(read_config(self.directory), config)
            if differing:
                raise InputError(
                    f"run directory '{self.directory}' was made with another configuration "
                    f"({'; '.join(differing[:3])}); choose another --name or pass --overwrite"
                )
        else:
            self._write("config.json", configuration.to_json(config))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def append(self, rows: Iterable[Row]) -> None:
        """Add lines to ``metrics.csv``; values keep nine significant digits."""
        self._append("metrics.csv", Row._fields, ((*row[:-1], f"{row.value:.9g}") for row in rows))

    def append_timing(self, epoch: int, seconds: float, images_per_second: float) -> None:
        """Add a line to ``timing.csv``, which holds all that differs between two equal runs."""
        line = (epoch, f"{seconds:.4f}", f"{images_per_second:.1f}")
        self._append("timing.csv", ("epoch", "seconds", "images_per_second"), [line])

    def _append(self, name: str, header: tuple[str, ...], lines: Iterable[tuple[Any, ...]]) -> None:
        path = self.directory / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(header)
            writer.writerows(lines)
            # A checkpoint may not outlive the rows that it follows.
            file.flush()
            os.fsync(file.fileno())

    def drop_rows_after(self, step: int) -> None:
        """Remove what was recorded past a step, so that a resumed run writes it once."""
        path = self.directory / "metrics.csv"
        if path.exists():
            header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [
                ",".join(Row._fields) + "\n"
            ]
            # A line cut short by a crash has fewer fields.
            whole = [line for line in lines if line.endswith("\n") and line.count(",") == len(Row._fields) - 1]
            self._write("metrics.csv", header + "".join(x for x in whole if int(x.split(",", 1)[0]) <= step))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all."""
        partial = self.directory / "checkpoint.pt.partial"
        with partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.directory / "checkpoint.pt")

    def keep_healthy(self) -> None:
        """Keep the checkpoint as the latest from before any sign of collapse, whole or not at all."""
        partial = self.directory / f"{HEALTHY}.partial"
        shutil.copyfile(self.directory / "checkpoint.pt", partial)
        partial.replace(self.directory / HEALTHY)

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint, None where there is none yet; only tensors and plain values are unpickled."""
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"checkpoint '{path}' is damaged ({reason}); --overwrite starts afresh") from None
        return state

    def write_environment(self, device: torch.device) -> None:
        """Record versions, device, threads, commit and command; a resumed run has one entry for every start."""
        path = self.directory / "environment.json"
        earlier = _read_json(path)["starts"] if path.exists() else []
        start = {**environment(), "device": device_name(device), "threads": torch.get_num_threads()}
        self._write("environment.json", json.dumps({"starts": [*earlier, start]}, indent=2) + "\n")

    def write_status(
        self, state: str, step: int, verdict: str | None = None, error: str | None = None, **collapse: Any
    ) -> None:
        """Replace the status; ``state`` is running, done, failed, stopped or interrupted; only
        ``failed`` and ``stopped`` are final.

        ``collapse`` is empty, or ``alarm`` and ``healthy_checkpoint``.
        """
        record = {"state": state, "step": step, "verdict": verdict, "error": error, **collapse}
        self._write("status.json", json.dumps(record, indent=2) + "\n")

    def status(self) -> dict[str, Any]:
        """The status as last written; state ``new`` before that."""
        return read_status(self.directory)

    def _write(self, name: str, text: str) -> None:
        write_whole(self.directory / name, text)


def write_whole(path: Path, text: str) -> None:
    """Replace a file's text, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_status(directory: Path) -> dict[str, Any]:
    """The status of a run directory; state ``new`` where there is none."""
    path = directory / "status.json"
    if not path.exists():
        return {"state": "new", "step": 0, "verdict": None, "error": None}
    return _read_json(path)


def read_config(directory: Path) -> Config:
    """The configuration that a run directory was made with."""
    return configuration.validate(_read_json(directory / "config.json"))


def require_free(directory: Path) -> None:
    """Raise ``InputError`` where a run's directory cannot be written or another process is using it."""
    with _claimed(directory):
        pass


def _claimed(directory: Path) -> BaseFileLock:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"run directory '{directory}' is in use by another process") from None
    except OSError as error:
        raise InputError(f"output directory '{directory}' cannot be written: {error.strerror}") from None
    return lock


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"record '{path}' is damaged ({error}); --overwrite starts the run afresh") from None
    return content


def final_values(directory: Path) -> dict[str, float]:
    """What a summary says of one run, by name; a value that was not recorded is left out.

    ``loss``, ``std_ratio``, ``mean_energy`` and ``rankme`` are means over the train-mode readings of the last epoch, the
    last three at the projector; ``knn`` and ``linear`` are of backbone features at the end, ``..._start`` at the start.
    """
    path = directory / "metrics.csv"
    if not path.exists() or not path.stat().st_size:
        return {}
    table = pd.read_csv(path, keep_default_na=False, na_values=["nan"])
    train = table[(table["source"] == "train") & (table["epoch"] == table["epoch"].max())]
    values = {"loss": train[train["metric"] == "loss"]["value"].mean()}
    projector = train[train["layer"] == "projector"]
    for metric in ("std_ratio", "mean_energy", "rankme"):
        values[metric] = projector[projector["metric"] == metric]["value"].mean()
    probes = table[(table["source"] == "probe") & (table["layer"] == "backbone")]
    for metric in ("knn", "linear"):
        curve = probes[probes["metric"] == metric].set_index("step")["value"]
        if len(curve):
            values |= {metric: curve[curve.index.max()], f"{metric}_start": curve[curve.index.min()]}
    return {name: float(value) for name, value in values.items() if pd.notna(value)}


def train_readings(directory: Path) -> list[tuple[int, str, str, int, float]]:
    """(step, layer, metric, index, value) of every train-mode scalar in the order of recording; the loss has layer ""."""
    table = pd.read_csv(directory / "metrics.csv", keep_default_na=False, na_values=["nan"])
    train = table[(table["source"] == "train") & (table["metric"] != "spectrum")]
    rows: list[tuple[int, str, str, int, float]] = list(
        train[["step", "layer", "metric", "index", "value"]].itertuples(index=False, name=None)
    )
    return rows


def training_seconds(directory: Path) -> float:
    """Seconds that the recorded epochs took, evaluations apart; 0 where none was recorded."""
    path = directory / "timing.csv"
    return float(pd.read_csv(path)["seconds"].sum()) if path.exists() else 0.0


def environment() -> dict[str, Any]:
    """Versions, machine, commit and command of this process."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        "command": shlex.join(["collapse-lab", *sys.argv[1:]]),
        "start": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def device_name(device: torch.device) -> str:
    """The name of a GPU, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_processor()})"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, marked where files differ; None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        if subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True).returncode:
            return None
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
