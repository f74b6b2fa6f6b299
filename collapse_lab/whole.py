"""Files that are replaced whole or not at all, whatever happens meanwhile: a crash, a full disk, a power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from collapse_lab.errors import InputError


def write_whole(path: Path, content: str | bytes, keep: Path | None = None) -> None:
    """Replace a file's content, which is on the disk when this returns; ``keep`` is where the file before goes.

    The content goes to ``<name>.partial``, is synchronised and renamed, and so is the directory: every moment leaves
    the old file or the new one, or, with ``keep``, the old one at ``keep`` alone. Raises ``InputError`` where the file
    cannot be written; what was there before then stays.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        partial.replace(path)
        synchronise(path.parent)
    except OSError as error:
        # A full disk needs its room back; where even that fails, the error at hand is the one to tell.
        with suppress(OSError):
            partial.unlink()
        raise InputError(f"'{path}' cannot be written: {error.strerror}; what was there before is intact") from None


def append_whole(path: Path, text: str) -> None:
    """Add text to a file, which is on the disk when this returns; where it does not fit, nothing is added.

    Raises ``OSError``. A crash can leave the beginning of the text.
    """
    with path.open("ab", buffering=0) as file:
        before, rest = file.tell(), memoryview(text.encode())
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def cut(path: Path, size: int) -> None:
    """Shorten a file to so many bytes."""
    with path.open("r+b") as file:
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())


def synchronise(directory: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
