"""The answer of ``toy deep``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from collapse_lab.errors import InputError
from collapse_lab.methods import method
from collapse_lab.toy import draw_deep
from collapse_lab.toy.deep import DeepToy, study
from collapse_lab.toy.report import Report

MEASURES = ("loss", "std_ratio", "mean_energy", "rankme")
HEADS = {"none": "no output BN", "affine": "output BN"}


def deep_report(methods: Sequence[str], seeds: int, steps: int, noise2: float) -> Report:
    """The methods without and with output BatchNorm, their last readings over seeds."""
    if not 0 <= noise2 < float("inf"):
        raise InputError(f"noise2: found {noise2}, must be finite and not negative")
    names = tuple(methods)
    for name in names:
        method(name)
    threads = torch.get_num_threads()
    # The networks are small: one thread is the fastest, and tables repeat to the byte.
    torch.set_num_threads(1)
    try:
        table = study(names, ("none", "affine"), range(seeds), DeepToy(steps=steps, noise2=noise2))
    finally:
        torch.set_num_threads(threads)
    last = table[table["step"] == table["step"].max()]
    arms: dict[str, dict[str, dict[str, float | None]]] = {}
    for (name, head), rows in last.groupby(["method", "head"], sort=False):
        arms[f"{name}, {HEADS[str(head)]}"] = {measure: _spread(rows[measure]) for measure in MEASURES}
    cells = [{"arm": arm, **{measure: _cell(value) for measure, value in row.items()}} for arm, row in arms.items()]
    caption = f"Train mode, last step, mean ± std over {seeds} seeds; d = 128, a healthy std ratio is near 1."
    answer = {"steps": steps, "seeds": seeds, "arms": arms}
    return Report("deep", answer, cells, caption, table, draw_deep.deep)


def _spread(values: pd.Series[float]) -> dict[str, float | None]:
    return {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else None}


def _cell(value: dict[str, float | None]) -> str:
    return f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value["std"] is not None else "")
