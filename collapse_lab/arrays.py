"""Feature arrays (N, D) from ``.npy`` and ``.npz`` files that nobody vouches for: nothing is unpickled, nothing is guessed.

The header is read and judged before the data, so that a file cannot make the reader allocate more than it holds.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from collapse_lab.errors import InputError

HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


class Header(NamedTuple):
    """What the header of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        # The shape of a foreign file can have any number of axes, the dtype any number of fields.
        return f"{_short(str(self.dtype))} of shape {_short(str(self.shape))}"

    @property
    def is_features(self) -> bool:
        """Whether these are rows of features: half, single or double precision, (N, D), not empty."""
        return self.dtype.kind == "f" and self.dtype.itemsize <= 8 and len(self.shape) == 2 and 0 not in self.shape


def read_features(path: Path, key: str | None = None) -> np.ndarray:
    """The features (N, D), float16, float32 or float64, of a ``.npy`` file or of one array of a ``.npz`` file.

    Without ``key`` an archive must hold exactly one array of that kind. Raises ``InputError`` with one line that names the
    file, and the first row where a value is NaN or infinite.
    """
    archive = path.suffix.lower() == ".npz"
    if key is not None and not archive:
        raise InputError(
            f"--key: found '{key}', but '{path}' is a single array; --key chooses an array of an .npz file"
        )
    with refused(f"'{path}' cannot be read as {path.suffix.lower()}"), path.open("rb") as stream:
        features = _from_archive(path, stream, key) if archive else _from_stream(path, stream)
    _require_finite(path, features)
    return features.astype(features.dtype.newbyteorder("="), copy=False)


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn whatever libraries raise while they read foreign bytes into an ``InputError`` that begins with ``what``.

    Damaged bytes make numpy, zipfile and torch raise nearly anything, ``tokenize.TokenError`` and ``AssertionError``
    included. What they warn of, such as an old format, is no news to the reader of a verdict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The start of an error's message in one line, or its kind where it has none."""
    return _short(" ".join(str(error).split()), 160) or type(error).__name__


def _from_stream(path: Path, stream: IO[bytes]) -> np.ndarray:
    header = _header(stream)
    _require_features(f"'{path}'", header)
    _require_whole(f"'{path}'", header, os.fstat(stream.fileno()).st_size - stream.tell())
    stream.seek(0)
    return _data(stream)


def _from_archive(path: Path, stream: IO[bytes], key: str | None) -> np.ndarray:
    with zipfile.ZipFile(stream) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if key is None:
            key = _only_features(path, archive, members)
        if key not in members:
            raise InputError(f"--key: found '{key}'; '{path}' holds {_listed(members)}")
        place = f"'{_short(key)}' in '{path}'"
        with archive.open(members[key]) as member:
            header = _header(member)
            _require_features(place, header)
            _require_whole(place, header, archive.getinfo(members[key]).file_size - member.tell())
        with archive.open(members[key]) as member:
            return _data(member)


def _only_features(path: Path, archive: zipfile.ZipFile, members: dict[str, str]) -> str:
    headers = {}
    for key, name in members.items():
        with archive.open(name) as member:
            headers[key] = _header(member)
    usable = [key for key, header in headers.items() if header.is_features]
    if len(usable) == 1:
        return usable[0]
    found = _listed(usable) if usable else _listed(f"{key} ({header})" for key, header in headers.items())
    what = "several arrays of floats (N, D)" if usable else "no array of floats (N, D)"
    raise InputError(
        f"'{path}' holds {what}: {found}; " + ("choose one with --key" if usable else "save features there")
    )


def _header(stream: IO[bytes]) -> Header:
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"format version {version}; expected (1, 0) or (2, 0)")
    shape, _, dtype = HEADERS[version](stream)
    return Header(shape, dtype)


def _data(stream: IO[bytes]) -> np.ndarray:
    array: np.ndarray = npy.read_array(stream, allow_pickle=False)
    return array


def _require_features(place: str, header: Header) -> None:
    if not header.is_features:
        raise InputError(
            f"{place} is {header}; allowed is float16, float32 or float64 of shape (N, D), N and D at least 1"
        )


def _require_whole(place: str, header: Header, available: int) -> None:
    needed = math.prod(header.shape) * header.dtype.itemsize
    if needed > available:
        raise InputError(f"{place} is cut short: {header} needs {needed:,} bytes and {available:,} follow its header")


def _require_finite(path: Path, features: np.ndarray) -> None:
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        value = features[row][~np.isfinite(features[row])][0]
        more = f", as {bad.sum() - 1:,} rows after it" if bad.sum() > 1 else ""
        raise InputError(f"'{path}': row {row} holds {value}{more}; has the run diverged? Leave such rows out")


def _listed(names: Iterable[str]) -> str:
    words = [_short(name) for name in names]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "") or "nothing"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
