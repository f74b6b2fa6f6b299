"""What this process may use of the machine: cores, threads, a device and its memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from collapse_lab.errors import InputError
from collapse_lab.settings import TrainConfig

MEMINFO = Path("/proc/meminfo")


def cores() -> int:
    """Cores for this process: those it may use, shared with the other processes that torchrun started on this machine."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads, and put the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fastest_kernels() -> Iterator[None]:
    """Let cuDNN measure which of its kernels are the fastest for each shape, unless they are to be deterministic."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = before or not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled())
    try:
        yield
    finally:
        cudnn.benchmark = before


def pick_device(config: TrainConfig) -> torch.device:
    """The device of a run; raises ``InputError`` where a GPU is asked for and there is none."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "train.device: found 'cuda', this machine has no usable GPU; allowed here are 'cpu' and 'auto'"
        )
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def device_here(config: TrainConfig) -> torch.device:
    """The device for work on what was trained elsewhere: a run's own where this machine has it, else the CPU."""
    return pick_device(config) if torch.cuda.is_available() else torch.device("cpu")


def free_memory(device: torch.device) -> float:
    """Bytes free on a GPU, or that this machine can give to a process without swapping.

    All of the machine's where the system does not say what is free, infinity where it says nothing.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, KeyError):
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
