"""Random numbers that are pure functions of what they are for: keyed, not drawn from a running state."""

from __future__ import annotations

import torch
from torch import Tensor

# Finaliser and increment of SplitMix64: Steele, Lea and Flood (2014), constants of Vigna's version.
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_INCREMENT = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def key(*numbers: int) -> int:
    """A seed in [0, 2^63) for a generator, well mixed from any number of integers.

    Order and count matter: ``key(1, 2)``, ``key(2, 1)`` and ``key(1, 2, 0)`` differ.

    >>> key(0, 1), key(1, 0)
    (6533154790548750547, 3395948882924712079)
    """
    state = len(numbers)
    for number in numbers:
        state = _mix_int((state + _INCREMENT) ^ (number & _MASK))
    return state >> 1


def uniforms(seed: int, epoch: int, view: int, samples: Tensor, count: int) -> Tensor:
    """Independent numbers uniform in [0, 1), (N, count) float64: row n belongs to image ``samples[n]``.

    ``samples``: (N,) int64, indices into the data set. Each number depends on (seed, epoch, view, sample, column)
    alone, so neither the batch an image is in nor its place there matters, and a larger ``count`` keeps the first
    columns. The bits are the same on the CPU and the GPU: SplitMix64 (Steele, Lea and Flood, 2014) from a start that is
    itself mixed from the five, the upper 53 bits of each result over 2^53. Raises ``ValueError`` where ``samples`` is
    not int64.
    """
    if samples.dtype != torch.int64 or samples.ndim != 1:
        raise ValueError(f"samples: found {samples.dtype} of shape {tuple(samples.shape)}, must be int64 of shape (N,)")
    columns = torch.arange(1, count + 1, dtype=torch.int64, device=samples.device)
    start = _mix(samples * _signed(_INCREMENT) + _signed(key(seed, epoch, view)))
    bits = _mix(start[:, None] + columns * _signed(_INCREMENT))
    return _shift_right(bits, 11).double() * 2.0**-53


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which the n samples of an epoch are visited, (n,) int64, a pure function of the three."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(key(seed, epoch)))


def _mix(bits: Tensor) -> Tensor:
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        bits = (bits ^ _shift_right(bits, shift)) * _signed(multiplier)
    return bits.bitwise_xor(_shift_right(bits, _SHIFTS[-1]))


def _mix_int(bits: int) -> int:
    bits &= _MASK
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        bits = ((bits ^ (bits >> shift)) * multiplier) & _MASK
    return bits ^ (bits >> _SHIFTS[-1])


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Shift as if unsigned: torch's ``>>`` repeats the sign."""
    return bits.bitwise_right_shift(count).bitwise_and(2 ** (64 - count) - 1)


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits
