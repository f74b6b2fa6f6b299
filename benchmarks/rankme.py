"""RankMe of 25,600 rows of 2,048 channels on one thread: from the second moment, and from the SVD of stored rows.

    python benchmarks/rankme.py

Every contender gets the same float32 features in batches of 256, as a training loop hands them out, and gives one number.
Contenders take turns, round by round; a ratio is the mean over rounds of the time of a contender over ours in that round.
What was gathered can be read again at the price of the reading; stored rows have to be decomposed again.
``value`` is of unit rows whose spectrum falls as a power law; ``rank one`` is of a cloud whose true value is 1.0033.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import torch
from measure import ROOT, commit, machine, summary
from torch import Tensor

from collapse_lab.geometry import Moments, effective_rank, moments, rankme, unit_rows

BATCH = 256
OURS = "second moment, float64 (collapse_lab)"
READING = "of which the reading, once gathered"
Contender = Callable[[tuple[Tensor, ...]], float]


def gather(batches: tuple[Tensor, ...]) -> Moments:
    """Moments added up batch by batch."""
    gathered = moments(batches[0])
    for batch in batches[1:]:
        gathered = moments(batch, onto=gathered)
    return gathered


def from_moments(batches: tuple[Tensor, ...]) -> float:
    """This package: float64 moments added up batch by batch, (d, d) kept, then its eigenvalues."""
    return rankme(gather(batches))


def stored_rows(batches: tuple[Tensor, ...], dtype: torch.dtype = torch.float32) -> float:
    """What a user writes with a metric that stores its rows: append, concatenate, normalise, SVD."""
    rows = torch.nn.functional.normalize(torch.cat(batches).to(dtype), dim=1)
    p = torch.linalg.svdvals(rows)
    p = p / p.sum() + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))


def stored_rows_in_double(batches: tuple[Tensor, ...]) -> float:
    """The same in float64: the reference value."""
    return stored_rows(batches, torch.float64)


def float32_moments(batches: tuple[Tensor, ...]) -> float:
    """The second moment, as fast as it gets and not exact: float32 throughout."""
    second = reduce(add, (u.T @ u for u in (unit_rows(batch).float() for batch in batches)))
    return effective_rank(torch.linalg.eigvalsh(second).clamp(min=0).sqrt())


CONTENDERS: dict[str, Contender] = {
    OURS: from_moments,
    "SVD of stored rows, float32": stored_rows,
    "SVD of stored rows, float64": stored_rows_in_double,
    "second moment, float32": float32_moments,
}


def cloud(count: int, dimension: int) -> Tensor:
    """Gaussian rows with eigenvalues j^-1 and a mean."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dimension + 1).float().rsqrt()
    return torch.randn(count, dimension, generator=generator) * scale + 0.1 * scale


def line(count: int, dimension: int) -> Tensor:
    """Rows along one direction."""
    generator = torch.Generator().manual_seed(1)
    return torch.outer(torch.randn(count, generator=generator), torch.randn(dimension, generator=generator))


def measure(batches: tuple[Tensor, ...], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each contender by round, and its value."""
    gathered = gather(batches)
    runs = {**CONTENDERS, READING: lambda _: rankme(replace(gathered))}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    values: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            values[name] = run(batches)
            seconds[name].append(time.perf_counter() - start)
    return seconds, values


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25600)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "rankme.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count, dimension = arguments.rows, arguments.channels
    started, found_on = commit(), machine()
    seconds, values = measure(cloud(count, dimension).split(BATCH), arguments.rounds)
    rank_one = {name: run(line(count, dimension).split(BATCH)) for name, run in CONTENDERS.items()}
    rank_one[READING] = rank_one[OURS]
    ours = seconds[OURS]
    results = {
        name: {
            "seconds": summary(times),
            "times_ours": summary([other / own for other, own in zip(times, ours, strict=True)]),
            "value": values[name],
            "rank_one": rank_one[name],
        }
        for name, times in seconds.items()
    }
    report = {
        "what": f"RankMe of {count} unit rows of {dimension} channels, batches of {BATCH}, one thread",
        "kept_bytes": {"second moment": 8 * dimension * (dimension + 1), "stored rows": 4 * count * dimension},
        "results": results,
        "machine": found_on,
        "commit": started,
        "command": f"python benchmarks/rankme.py --rows {count} --channels {dimension} --rounds {arguments.rounds}",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(report["what"])
    for name, r in results.items():
        took, ratio = r["seconds"], r["times_ours"]
        print(
            f"{name:38s} {took['mean']:7.2f} +- {took['std']:5.2f} s  {ratio['mean']:6.2f} +- {ratio['std']:4.2f} x ours  "
            f"n = {took['n']}  value {r['value']:.4f}  rank one {r['rank_one']:.4f}"
        )


if __name__ == "__main__":
    main()
