"""The exceptions whose message is written for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: the message is one line naming the thing, the value found and what is allowed.

    The command line prints the message on standard error and exits with code 2. Every other exception is a bug.
    """


class RunStopped(Exception):
    """An unexpected error ended a run; the message says where to look, and the same command goes on from there."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The names that an unknown one resembles, as a question; ``otherwise`` where it resembles none.

    >>> did_you_mean("train.epoch", ["train.epochs", "data.root"], "see the list")
    'did you mean train.epochs?'
    """
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
