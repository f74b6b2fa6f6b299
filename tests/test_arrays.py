"""Files that nobody vouches for: what is features comes back exactly, all else is refused in one line, nothing is run."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab.arrays import read_features
from collapse_lab.errors import InputError
from collapse_lab.weights import read_tensors


class Touch:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def rows(seed: int = 0, shape: tuple[int, int] = (6, 4)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def refusal(path: Path, key: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_features(path, key)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message


def header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    encoded = text.encode("latin1")
    return b"\x93NUMPY" + version + len(encoded).to_bytes(2, "little") + encoded + data


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "A.NPY"])
def test_every_float_comes_back_as_it_was(tmp_path, dtype, order, name):
    array = np.asarray(rows(), dtype=dtype, order=order)
    with (tmp_path / name).open("wb") as stream:
        if name.lower().endswith("y"):
            np.save(stream, array)
        else:
            np.savez_compressed(stream, z=array, labels=np.arange(6), table=np.zeros((3, 2), int))
    features = read_features(tmp_path / name)
    assert np.array_equal(features, array)
    assert torch.from_numpy(features).shape == (6, 4)


def test_an_archive_is_asked_for_the_array_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", z=rows(0), p=rows(1), labels=np.arange(6))
    assert np.array_equal(read_features(tmp_path / "a.npz", "p"), rows(1))
    assert "holds several arrays of floats (N, D): z, p; choose one with --key" in refusal(tmp_path / "a.npz")
    assert "--key: found 'q'" in refusal(tmp_path / "a.npz", "q")
    assert "holds z, p, labels" in refusal(tmp_path / "a.npz", "q")
    assert "'labels' in" in refusal(tmp_path / "a.npz", "labels")
    np.savez(tmp_path / "b.npz", labels=np.arange(6))
    assert "holds no array of floats (N, D): labels (int64 of shape (6,))" in refusal(tmp_path / "b.npz")
    np.save(tmp_path / "a.npy", rows())
    assert "--key: found 'z', but" in refusal(tmp_path / "a.npy", "z")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.ones((6, 4), int), "int64 of shape (6, 4); allowed is float16, float32 or float64 of shape (N, D)"),
        (np.ones((6, 4), bool), "bool of shape"),
        (np.ones((6, 4), complex), "complex128 of shape"),
        (np.ones((6, 4), np.longdouble), "of shape (6, 4); allowed is float16"),
        (np.ones(6), "float64 of shape (6,)"),
        (np.float64(3.0), "float64 of shape ()"),
        (np.ones((2, 3, 4)), "float64 of shape (2, 3, 4)"),
        (np.ones((0, 4)), "float64 of shape (0, 4)"),
        (np.ones((4, 0)), "float64 of shape (4, 0)"),
        (np.array([["a", "b"]]), "<U1 of shape"),
        (np.array([[None, 1.0]], object), "object of shape (1, 2)"),
        (np.zeros(3, [("z", float, 4)]), "of shape (3,)"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_not_rows_of_floats_is_refused_by_its_header(tmp_path, array, expected, suffix):
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, z=array)
    assert expected.split(";")[0] in refusal(path)
    if suffix == ".npz":
        assert expected in refusal(path, "z")


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ((3, 2), np.nan, "row 3 holds nan; has the run diverged?"),
        ((0, 0), np.inf, "row 0 holds inf;"),
        ((5, 3), -np.inf, "row 5 holds -inf;"),
        (([1, 4], 0), np.nan, "row 1 holds nan, as 1 rows after it;"),
    ],
)
def test_values_that_are_not_finite_name_their_row(tmp_path, place, value, expected):
    array = rows()
    array[place] = value
    np.save(tmp_path / "a.npy", array)
    assert expected in refusal(tmp_path / "a.npy")


def test_nothing_is_unpickled(tmp_path):
    trap = Touch(tmp_path / "trap")
    disguised = [tmp_path / name for name in ("plain.npy", "array.npy", "array.npz", "member.npz")]
    disguised[0].write_bytes(pickle.dumps(trap))
    np.save(disguised[1], np.array([[trap]], object), allow_pickle=True)
    np.savez(disguised[2], z=np.array([[trap]], object))
    with zipfile.ZipFile(disguised[3], "w") as archive:
        archive.writestr("z.npy", pickle.dumps(trap))
    for path in disguised:
        refusal(path)
    for weights in (trap, {"state_dict": {"a": torch.ones(2)}, "trap": trap}):
        for legacy in (True, False):
            torch.save(weights, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
            with pytest.raises(InputError, match="cannot be read as weights alone") as caught:
                read_tensors(tmp_path / "a.pt")
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "trap").exists()
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "trap").exists()


def test_a_header_cannot_ask_for_more_than_the_file_holds(tmp_path):
    huge = header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000), }", bytes(64))
    (tmp_path / "a.npy").write_bytes(huge)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("z.npy", huge)
    for name in ("a.npy", "a.npz"):
        assert "is cut short" in refusal(tmp_path / name)
        assert "8,000,000,000,000,000,000 bytes and 64 follow" in refusal(tmp_path / name)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    for suffix in (".npy", ".npz"):
        path = tmp_path / f"a{suffix}"
        np.save(path, rows()) if suffix == ".npy" else np.savez(path, z=rows())
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            refusal(path)


def test_a_place_that_is_no_file_is_refused(tmp_path):
    assert "cannot be read as .npy" in refusal(tmp_path / "missing.npy")
    (tmp_path / "folder.npz").mkdir()
    assert "cannot be read as .npz" in refusal(tmp_path / "folder.npz")


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, rows())
    return stream.getvalue()


def _npz(compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, z=rows())
    return stream.getvalue()


def _pt(legacy: bool) -> bytes:
    stream = io.BytesIO()
    state = {"state_dict": {"weight": torch.ones(3, 2), "steps": torch.tensor(3)}, "epoch": 3, "name": "x"}
    torch.save(state, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


@st.composite
def damaged(draw, originals: list[bytes]) -> bytes:
    """A valid file with some bytes changed, taken out, repeated or put in, or bytes of no origin."""
    content = bytearray(draw(st.sampled_from([*originals, b""])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "truncate"]))
        if kind == "change":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=30))
        else:
            del content[at:]
    return bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def only_clean_refusals(read, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    message = refused(read, path)
    assert "\n" not in message
    assert len(message) < 600


def refused(read, path: Path) -> str:
    try:
        read(path)
    except InputError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=damaged([_npy()]))
def test_damaged_arrays_are_read_or_refused(folder, content):
    only_clean_refusals(read_features, folder / "a.npy", content)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=damaged([_npz(False), _npz(True)]))
def test_damaged_archives_are_read_or_refused(folder, content):
    only_clean_refusals(read_features, folder / "a.npz", content)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=damaged([_pt(False), _pt(True)]))
def test_damaged_checkpoints_are_read_or_refused(folder, content):
    only_clean_refusals(read_tensors, folder / "a.pt", content)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "descr": st.sampled_from(["<f4", "<f8", ">f2", "|O", "<i4", "<f16", "|S3", "x", "<M8[ns]"]) | st.just([]),
            "fortran_order": st.booleans() | st.just(1),
            "shape": st.lists(st.integers(-2, 10**18) | st.booleans(), max_size=4).map(tuple) | st.integers(),
        }
    ),
    st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"]),
)
def test_headers_that_no_array_has_are_refused(folder, fields, version):
    only_clean_refusals(read_features, folder / "a.npy", header(repr(fields), bytes(128), version))
