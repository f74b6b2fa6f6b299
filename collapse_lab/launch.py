"""One training in several processes: the group that torchrun asks for, joined and left."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from collapse_lab.collective import barrier, processes
from collapse_lab.errors import RunStopped

# How long a process waits for the others, which may be evaluating or gone.
TIMEOUT = timedelta(minutes=10)


@contextmanager
def process_group(cuda: bool) -> Iterator[int]:
    """Join the processes that ``torchrun`` started, and give this one's rank; alone, without it, give 0.

    NCCL where each has a GPU of its own, gloo on CPUs. A process that loses another fails within ``TIMEOUT``, with
    ``RunStopped``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else None
    if own:
        torch.cuda.set_device(own)
    # NCCL guesses the device at a barrier, and says so, where it is not told.
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT, device_id=own)
    try:
        yield processes()[0]
        # All that counts is on the disk by then, and gloo's threads can abort an interpreter that takes itself apart.
        atexit.register(os._exit, 0)
    except RuntimeError as error:
        if not lost_another(error):
            raise
        raise RunStopped(f"rank {processes()[0]} lost another process, which may have said why it ended") from error
    finally:
        distributed.destroy_process_group()


def lost_another(error: Exception) -> bool:
    """Whether an error says that another process ended or does not answer."""
    return processes()[1] > 1 and any(word in str(error) for word in ("gloo", "NCCL", "Connection", "Timed out"))


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let rank 0 do what is inside before the others, which find what it has made, such as a data set unpacked."""
    rank = processes()[0]
    if rank:
        barrier()
    yield
    if not rank:
        barrier()
