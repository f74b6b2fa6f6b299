"""Configurations, records and data sets that nobody vouches for are read, or refused in one line; nothing else, and soon."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collapse_lab import data
from collapse_lab.config import build, leaves, read_toml, to_dict
from collapse_lab.errors import InputError
from collapse_lab.run_records import read_config, read_status
from collapse_lab.settings import DataConfig

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True)
SECTIONS = sorted({leaf.name.split(".")[0] for leaf in leaves()} | {"nonsense"})
NAMES = sorted({leaf.name.split(".")[1] for leaf in leaves()} | {"nonsense"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def read_or_refused(read: Callable[[], object]) -> None:
    """Any other exception passes, and fails the test."""
    assert len(refusal(read).splitlines()) <= 1


def refusal(read: Callable[[], object]) -> str:
    try:
        read()
    except InputError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("foreign")


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' * (value < 0)}inf"
    return "1979-05-27T07:32:00Z" if value is None else json.dumps(value)


@BOUNDED
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"[" * 50_000)
@example(b"a = " + b"[" * 50_000)
def test_bytes_as_toml(folder, content):
    path = folder / "settings.toml"
    path.write_bytes(content)
    read_or_refused(lambda: build("simsiam", read_toml(path)))


@BOUNDED
@given(
    st.dictionaries(st.sampled_from(SECTIONS), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2), max_size=3)
)
def test_settings_of_any_kind_as_toml(folder, tree):
    lines = [
        line
        for section, entries in tree.items()
        for line in (f"[{section}]", *(f"{name} = {toml(value)}" for name, value in entries.items()))
    ]
    path = folder / "settings.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    read_or_refused(lambda: build("simsiam", read_toml(path)))


@BOUNDED
@given(st.sampled_from([leaf.name for leaf in leaves()]), VALUES)
def test_a_record_of_a_configuration_with_anything_in_a_field(folder, name, value):
    tree, (section, field) = to_dict(build("simsiam")), name.split(".")
    tree[section][field] = value
    (folder / "config.json").write_text(json.dumps(tree))
    read_or_refused(lambda: read_config(folder))


@BOUNDED
@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"train":' * 900 + b"1" + b"}" * 900)
def test_bytes_as_records(folder, content):
    for name, read in (("config.json", read_config), ("status.json", read_status)):
        (folder / name).write_bytes(content)
        read_or_refused(lambda read=read: read(folder))


def archive(**changed: np.ndarray) -> bytes:
    generator = np.random.default_rng(0)
    arrays = {
        "train_images": generator.integers(0, 256, (6, 4, 4, 1), dtype=np.uint8),
        "train_labels": np.arange(6) % 2,
        "test_images": generator.integers(0, 256, (4, 4, 4, 1), dtype=np.uint8),
        "test_labels": np.arange(4) % 2,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, **changed})
    return buffer.getvalue()


ARCHIVE = archive()
CHANGES = st.lists(st.tuples(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255)), max_size=5)


def images(path: Path, content: bytes) -> Callable[[], object]:
    path.write_bytes(content)
    return lambda: data.load(DataConfig("npz", path))


@BOUNDED
@given(CHANGES, st.integers(0, len(ARCHIVE)))
def test_a_damaged_archive_of_images(folder, changes, kept):
    content = bytearray(ARCHIVE)
    for place, value in changes:
        content[place] = value
    read_or_refused(images(folder / "images.npz", bytes(content[:kept] if kept % 2 else content)))


@BOUNDED
@given(
    st.sampled_from(["train_images", "train_labels", "test_images", "test_labels", "label_names"]),
    st.sampled_from(["u1", "i8", "u8", "f4", "?", "S3", "U2", "M8[s]", "c8", "V2"]),
    st.lists(st.integers(0, 3), max_size=5),
    st.integers(0, 255),
)
def test_an_archive_with_an_array_of_any_kind(folder, name, kind, shape, value):
    array = np.full(shape, value, dtype=np.uint8).astype(kind) if kind != "V2" else np.zeros(shape, "V2")
    read_or_refused(images(folder / "images.npz", archive(**{name: array})))


def test_an_archive_that_claims_more_than_it_holds(folder):
    claim = b"'shape': (6, 4, 4, 1), }" + b" " * 12
    assert claim in ARCHIVE
    content = ARCHIVE.replace(claim, b"'shape': (6000000000, 4, 4, 1), }".ljust(len(claim)), 1)
    path = folder / "images.npz"
    with pytest.raises(InputError, match=r"images.npz' cannot be read as npz"):
        images(path, content)()
