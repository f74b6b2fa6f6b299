"""Reading the collapse zoo: one record a run, and its label from intervention, spectrum and linear probe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from collapse_zoo import FAILURES, SETTINGS

from collapse_lab.monitors.history import History

LAST = 20
SOUND_RANK, SOUND_VARIANCE, OUTLIERS, SOUND_GAIN, LOST_AGREEMENT = 0.6, 0.1, 0.5, 0.5, 0.25


class Record(NamedTuple):
    """One run: its plan, what every step looked like at the projector, evaluations, and the backbone's linear probe."""

    name: str
    setting: str
    failure: str
    seed: int
    step: int
    error: str
    train: pd.DataFrame
    evaluated: pd.DataFrame
    layers: pd.DataFrame
    linear: tuple[float, float]
    rows: int
    dimension: int
    cosine: bool

    @property
    def tuning(self) -> bool:
        """Whether bounds may be tuned on it: neither its kind nor its architecture or setting is held back."""
        held = (self.setting in SETTINGS and SETTINGS[self.setting].held_back) or (
            self.failure in FAILURES and FAILURES[self.failure].held_back
        )
        return not held and self.setting in SETTINGS

    @property
    def end(self) -> pd.Series:
        """Medians over the last readings."""
        return self.train.tail(LAST).median()

    def history(self, layer: str = "projector", until: int | None = None) -> History:
        """The train-mode history that a verdict reads."""
        agreement = (-self.train["loss"]).to_dict() if self.cosine else {}
        if layer != "projector":
            table = self.layers[self.layers["layer"] == layer]
            history = History(layer, self.rows, self.dimension, absolute=False)
            for step, metric, value in table[["step", "metric", "value"]].itertuples(index=False):
                history.add(step, metric, value)
            return history
        history = History(layer, self.rows, self.dimension, agreement=agreement)
        table = self.train if until is None else self.train.loc[:until]
        for name in ("std_ratio", "mean_energy", "rankme", "centred_rankme", "outlier_share"):
            metric = "rankme_centred" if name == "centred_rankme" else name
            for step, value in table[name].items():
                history.add(step, metric, value)
        return history


def load(directory: Path) -> Record | None:
    """The record of one run, None where it has not ended."""
    if not (directory / "run.json").exists():
        return None
    ending = json.loads((directory / "run.json").read_text())
    config = json.loads((directory / "config.json").read_text())
    table = pd.read_csv(directory / "metrics.csv", keep_default_na=False, na_values=["nan"])
    table = table[table["metric"] != "spectrum"]
    train = table[(table["source"] == "train") & (table["layer"] == "projector")]
    wide = train.pivot_table(index="step", columns="metric", values="value")
    wide["loss"] = table[(table["source"] == "train") & (table["metric"] == "loss")].set_index("step")["value"]
    wide = wide.join(pd.read_csv(directory / "extra.csv").set_index("step"))
    evaluated = table[(table["source"] == "eval") & (table["layer"] == "projector")]
    probe = table[(table["source"] == "probe") & (table["metric"] == "linear")].set_index("step")["value"]
    names = ("name", "setting", "failure", "seed", "step", "error")
    return Record(
        *(ending[name] for name in names),
        wide,
        evaluated.pivot_table(index="step", columns="metric", values="value"),
        table[(table["source"] == "train") & (table["layer"] != "")],
        (probe.iloc[0], ending.get("linear", probe.iloc[-1])),
        2 * config["train"]["batch"],
        config["network"]["projector_dim"],
        config["objective"]["loss"] == "negative-cosine",
    )


def load_all(zoo: Path) -> dict[str, Record]:
    """Every run that has ended, by name."""
    records = (load(directory) for directory in sorted(zoo.iterdir()))
    return {record.name: record for record in records if record is not None}


def label(run: Record, control: Record) -> str:
    """What became of a run beside its control, the same setting and seed without the intervention.

    Fixed before any bound was tuned. ``diverged``: the loss was not finite. ``complete-collapse``: less than a tenth of the
    control's residual energy is left. ``dimensional-collapse``: less than 0.6 of its RankMe. Either is ``outlier-collapse``
    where 2 % of the rows carry half of the variance. ``not-learning``: less than half of the control's gain of the linear
    probe, or an agreement of predictions and targets 0.25 below the control's. ``survived``: none of these.
    """
    if run.step == -1:
        return "healthy"
    if run.error:
        return "diverged"
    end, sound = run.end, control.end
    complete = end.std_ratio < 1e-6 or 1 - end.mean_energy < SOUND_VARIANCE * (1 - sound.mean_energy)
    if complete or end.rankme < SOUND_RANK * sound.rankme:
        if end.outlier_share > OUTLIERS:
            return "outlier-collapse"
        return "complete-collapse" if complete else "dimensional-collapse"
    gain = (run.linear[1] - control.linear[0]) / (control.linear[1] - control.linear[0])
    if gain < SOUND_GAIN or end.loss > sound.loss + LOST_AGREEMENT:
        return "not-learning"
    return "survived"


def labels(records: dict[str, Record]) -> dict[str, str]:
    """The label of every run whose control has been trained."""
    controls = {name: records.get(f"healthy-{run.setting}-{run.seed}") for name, run in records.items()}
    return {name: label(run, controls[name]) for name, run in records.items() if controls[name] is not None}  # type: ignore[arg-type]


def select(records: dict[str, Record], given: dict[str, str], kinds: Iterable[str], tuning: bool = True) -> list[Any]:
    """The runs of these labels in one half of the zoo."""
    return [run for name, run in records.items() if given.get(name) in set(kinds) and run.tuning == tuning]
