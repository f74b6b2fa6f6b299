"""A sealed state comes back bit for bit, or is refused; nothing in between, whatever is done to its bytes."""

import hashlib
import io
import pickle
import zipfile
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab.snapshots import MARK, SEAL, sealed, unsealed

CPU = torch.device("cpu")
STATE = {
    "weights": torch.arange(6.0).view(2, 3),
    "eta": torch.ones(4, dtype=torch.float16),
    "step": 7,
    "config": {"train": {"seed": 0, "rates": [0.1, None, True, "constant"]}},
}
SEALED = sealed(STATE)


def test_a_state_comes_back():
    found = unsealed(SEALED, CPU)
    assert torch.equal(found.pop("weights"), STATE["weights"])
    assert torch.equal(found.pop("eta"), STATE["eta"])
    assert found == {"step": 7, "config": STATE["config"]}


def test_any_reader_of_torch_files_or_zip_archives_reads_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(SEALED)
    for options in ({}, {"mmap": True}):
        assert torch.equal(torch.load(path, weights_only=True, **options)["weights"], STATE["weights"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(MARK)


def test_equal_states_have_equal_bytes():
    assert sealed(STATE) == SEALED


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, len(SEALED) - 1))
def test_what_is_cut_short_is_refused(size):
    with pytest.raises(ValueError, match="no checksum at its end: it is cut short"):
        unsealed(SEALED[:size], CPU)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_what_was_changed_in_any_byte_is_refused(place, difference):
    changed = bytearray(SEALED)
    changed[place] ^= difference
    with pytest.raises(ValueError, match="no checksum at its end|its checksum does not fit"):
        unsealed(bytes(changed), CPU)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content):
    for data in (content, content + SEALED[-SEAL:]):
        with pytest.raises(ValueError, match="it "):
            unsealed(data, CPU)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(SEALED) - SEAL - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_with_a_checksum_of_somebody_elses_making_are_read_or_refused(changes):
    content = bytearray(SEALED[:-SEAL])
    for place, value in changes:
        content[place] = value
    # Any other exception fails the test.
    with suppress(ValueError):
        assert isinstance(unsealed(resealed(bytes(content)), CPU), dict)


def resealed(content: bytes) -> bytes:
    """Bytes with the checksum that fits them."""
    seal = MARK + hashlib.sha256(content[:-2] + bytes(2)).hexdigest().encode()
    return content[:-2] + SEAL.to_bytes(2, "little") + seal


class Code:
    def __reduce__(self):
        return print, ("it ran",)


def test_code_is_never_run_whatever_the_checksum(capsys):
    for write in (torch.save, pickle.dump):
        buffer = io.BytesIO()
        write({"step": Code()}, buffer)
        with pytest.raises(ValueError, match="it holds more than tensors and plain values, or is no torch file$"):
            unsealed(resealed(buffer.getvalue() + (b"" if write is torch.save else bytes(2))), CPU)
    assert capsys.readouterr().out == ""


def test_a_sealed_tensor_is_no_state():
    buffer = io.BytesIO()
    torch.save(torch.zeros(2), buffer)
    with pytest.raises(ValueError, match="it holds Tensor, not the state of a run"):
        unsealed(resealed(buffer.getvalue()), CPU)
