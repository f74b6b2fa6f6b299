"""The state of a run as bytes that prove themselves: a torch file sealed with its own SHA-256.

The seal is the comment of the zip archive that ``torch.save`` writes, so that state and checksum are one file, replaced
by one rename, and ``torch.load`` or any zip reader opens it as before. A checksum in a file of its own could be of
another state after a crash between two renames.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from collapse_lab.errors import InputError

MARK = b"collapse-lab sha256 "
SEAL = len(MARK) + 2 * hashlib.sha256().digest_size
# The last field of a zip archive before its comment: how long that is.
NO_COMMENT, COMMENT = bytes(2), SEAL.to_bytes(2, "little")


def sealed(state: Mapping[str, Any]) -> bytes:
    """Tensors and plain values as ``torch.save`` writes them, with the checksum behind."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    seal = MARK + hashlib.sha256(content).hexdigest().encode()
    return content.removesuffix(NO_COMMENT) + COMMENT + seal


def read(path: Path, device: torch.device) -> dict[str, Any]:
    """The state in a checkpoint file, on the device; raises ``InputError`` naming the file and what is wrong with it."""
    try:
        return unsealed(path.read_bytes(), device)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"checkpoint '{path}' cannot be read: {reason}") from None


def unsealed(data: bytes, device: torch.device) -> dict[str, Any]:
    """The state that ``sealed`` wrote, on the device; raises ``ValueError`` saying what is wrong with the bytes.

    The checksum comes first: what was cut short or changed is never unpickled. It has no key, so it does not keep out
    an attacker; that does ``weights_only``, by which a file that would run code is refused.

    >>> unsealed(sealed({"step": 3}), torch.device("cpu"))
    {'step': 3}
    >>> unsealed(sealed({"step": 3})[:-1], torch.device("cpu"))
    Traceback (most recent call last):
    ...
    ValueError: it has no checksum at its end: it is cut short, or no checkpoint of a run
    """
    seal = data[-SEAL:]
    if not data[: -len(seal)].endswith(COMMENT) or not seal.startswith(MARK):
        raise ValueError("it has no checksum at its end: it is cut short, or no checkpoint of a run")
    content = data[: -SEAL - len(COMMENT)] + NO_COMMENT
    if hashlib.sha256(content).hexdigest().encode() != seal.removeprefix(MARK):
        raise ValueError("its checksum does not fit: it was changed or damaged")
    # Bytes with a checksum of somebody else's making can have torch raise nearly anything, with the advice to load them
    # all the same.
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError("it holds more than tensors and plain values, or is no torch file") from error
    if not isinstance(state, dict):
        raise ValueError(f"it holds {type(state).__name__}, not the state of a run")
    return state
