"""A disk that fills, or is taken away: one line, the earlier checkpoint intact, nothing half-written read later."""

import ctypes
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_interrupts import LONG, started, wait_for
from tiny import STEPS, same, tiny, trained

from collapse_lab import trainer
from collapse_lab.errors import InputError
from collapse_lab.run_records import read_config
from collapse_lab.runs import Run
from collapse_lab.whole import append_whole, write_whole

# Of Linux's prctl.
DROP_FROM_BOUNDING_SET, PASS_OVER_PERMISSIONS = 24, 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    trained(tiny(), directory)
    return directory


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes, as on a disk that is full."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def after(step: int, act: Callable[[], object]) -> type[trainer.Trainer]:
    """A loop in which something happens once, in the step after so many."""

    class Disturbed(trainer.Trainer):
        def _train_step(self, samples, epoch):
            super()._train_step(samples, epoch)
            if self.step == step + 1:
                act()

    return Disturbed


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path):
    path = tmp_path / "record"
    write_whole(path, "before")
    with files_of_at_most(100), pytest.raises(InputError, match=r"record' cannot be written: File too large; what was"):
        write_whole(path, "x" * 101)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("record", "before")]


def test_lines_that_do_not_fit_are_not_begun(tmp_path):
    path = tmp_path / "table"
    append_whole(path, "one\n")
    with files_of_at_most(100), pytest.raises(OSError, match="File too large"):
        append_whole(path, "two\n" * 30)
    assert path.read_text() == "one\n"


def test_the_file_before_is_kept_where_it_is_asked_for(tmp_path):
    path, kept = tmp_path / "new", tmp_path / "old"
    for content in ("1", "2", "3"):
        write_whole(path, content, kept)
    assert (path.read_text(), kept.read_text()) == ("3", "2")


@pytest.mark.parametrize("room", ["no room for a checkpoint", "no room for the table"])
def test_a_full_disk_ends_a_run_in_one_line_and_the_run_goes_on_from_before(undisturbed, tmp_path, room):
    checkpoint = (undisturbed / "checkpoint.pt").stat().st_size
    at_most = checkpoint - 1 if room == "no room for a checkpoint" else 1000
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = after(STEPS + 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, hard)))
    try:
        with pytest.raises(InputError, match="cannot be written: File too large") as refused:
            trained(tiny(), tmp_path, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert len(str(refused.value).splitlines()) == 1
    assert not list(tmp_path.glob("*.partial"))
    with Run(tmp_path, tiny()) as run:
        assert run.status()["state"] != "done"
    assert trained(tiny(), tmp_path)["state"] == "done"
    assert same(tmp_path, undisturbed)


def test_a_directory_deleted_during_a_run_is_not_made_again(tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(InputError, match="run' was removed while it was in use"):
        trained(tiny(), directory, after(7, lambda: shutil.rmtree(directory)))
    assert not directory.exists()


def test_a_directory_that_takes_its_place_is_left_alone(tmp_path):
    directory = tmp_path / "run"

    def replace() -> None:
        shutil.rmtree(directory)
        directory.mkdir()

    with pytest.raises(InputError, match="run' was replaced by another while it was in use"):
        trained(tiny(), directory, after(7, replace))
    assert not list(directory.iterdir())


class Crash(BaseException):
    """The end of the process, for all that a test can see of the disk."""


def test_a_crash_at_any_touch_of_the_disk_loses_nothing(tmp_path, monkeypatch):
    """The process ends before the n-th file or directory is synchronised or renamed, for every n."""
    touches, fatal = 0, 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def touch(*arguments: object) -> object:
            nonlocal touches
            touches += 1
            if touches == fatal:
                raise Crash
            return function(*arguments)

        return touch

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    config = tiny(train__epochs=2, monitor__on_collapse="warn")
    trained(config, tmp_path / "undisturbed")
    assert touches > 40
    for moment in range(1, touches + 1):
        touches, fatal = 0, moment
        with pytest.raises(Crash):
            trained(config, tmp_path / str(moment))
        fatal = 0
        trained(config, tmp_path / str(moment))
        assert same(tmp_path / str(moment), tmp_path / "undisturbed")


def obey_permissions() -> None:
    """Nothing is read-only to root, unless the privilege to pass over permissions is given up before the program starts."""
    if os.getuid() == 0:
        ctypes.CDLL(None, use_errno=True).prctl(DROP_FROM_BOUNDING_SET, PASS_OVER_PERMISSIONS, 0, 0, 0)


def test_a_directory_that_becomes_read_only_ends_the_command_in_one_line(tmp_path):
    running = started(tmp_path, "train", *LONG, prepare=obey_permissions)
    run = tmp_path / "study" / "simsiam" / "seed0"
    wait_for(run / "timing.csv")
    run.chmod(0o555)
    _, said = running.communicate(timeout=60)
    run.chmod(0o755)
    assert running.returncode == 2
    assert "Traceback" not in said
    line = said.splitlines()[-1]
    assert line.startswith("collapse-lab: ")
    assert "cannot be written: Permission denied" in line
    with Run(run, read_config(run)) as kept:
        assert kept.resume(torch.device("cpu"))["step"] % STEPS == 0


def test_the_command_line_meets_a_directory_that_went_away_with_one_line(tmp_path):
    running = started(tmp_path, "train", *LONG)
    wait_for(tmp_path / "study" / "simsiam" / "seed0" / "timing.csv")
    (tmp_path / "study").rename(tmp_path / "gone")
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("seed0' was removed while it was in use")
    assert not (tmp_path / "study").exists()
