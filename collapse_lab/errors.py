"""The exceptions whose message is written for the person at the keyboard."""


class InputError(ValueError):
    """Input that cannot be used: the message is one line naming the thing, the value found and what is allowed.

    The command line prints the message on standard error and exits with code 2. Every other exception is a bug.
    """


class RunStopped(Exception):
    """An unexpected error ended a run; the message says where to look, and the same command goes on from there."""
