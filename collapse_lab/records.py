"""What a study recorded, read back from its tables alone, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from collapse_lab.errors import InputError

COLUMNS = {"step": int, "epoch": int, "source": str, "layer": str, "metric": str, "index": int, "value": float}
BASELINE = "simsiam"
HEADS = {"none": "no BatchNorm on z", "affine": "BatchNorm on z, affine", "non-affine": "BatchNorm on z, not affine"}


class Arm(NamedTuple):
    """One method over its seeds: the rows of every ``metrics.csv`` with a column ``seed``, and which seeds ended how."""

    table: pd.DataFrame
    seeds: list[int]
    failed: list[int]

    @property
    def number(self) -> str:
        """The number of seeds in words, with those that failed.

        >>> Arm(pd.DataFrame(), [0, 2], [1]).number
        '2 of 3 seeds'
        """
        total = len(self.seeds) + len(self.failed)
        of = f"{len(self.seeds)} of {total}" if self.failed else f"{total}"
        return f"{of} seed{'' if total == 1 else 's'}"

    def rows(self, source: str, layer: str, metric: str) -> pd.DataFrame:
        """The rows of one metric, of every seed."""
        table = self.table
        return table[(table["source"] == source) & (table["layer"] == layer) & (table["metric"] == metric)]

    def curves(self, source: str, layer: str, metric: str) -> pd.DataFrame:
        """Values of a scalar by step (rows) and seed (columns); NaN where a seed has not recorded that step."""
        return self.rows(source, layer, metric).pivot(index="step", columns="seed", values="value")

    def finished(self, by_seed: pd.DataFrame) -> pd.DataFrame:
        """The columns of the seeds that finished: only they are averaged, as in the summary."""
        return by_seed.loc[:, by_seed.columns.isin(self.seeds)]


class Records(NamedTuple):
    """A study as recorded: the protocol of its summary and its arms, the baseline first."""

    path: Path
    protocol: dict[str, Any]
    arms: dict[str, Arm]

    @property
    def dimension(self) -> int | None:
        """d, the width of the projector's output: the last rank of its recorded spectra."""
        ranks = pd.concat(
            [arm.rows(source, "projector", "spectrum") for arm in self.arms.values() for source in SOURCES]
        )
        return None if ranks.empty else int(ranks["index"].max())

    @property
    def data(self) -> str:
        """The data set, named for a caption."""
        return str(self.protocol.get("data", self.path.name))

    def setting(self, section: str, name: str) -> Any:
        """A value of the configuration that the arms share, None where the protocol has none."""
        return self.protocol.get("config", {}).get(section, {}).get(name)

    @property
    def head(self) -> str:
        """Whether z has BatchNorm, in words; empty where the protocol does not say."""
        return HEADS.get(self.setting("network", "projector_output_norm"), "")


SOURCES = ("train", "eval")


def read(study: Path) -> Records:
    """The summary of a study directory and the tables of the seeds that the summary names.

    Raises ``InputError`` naming the path where either is missing, empty or damaged, or where an arm has no seed that ended.
    """
    path = study / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        protocol = dict(summary["protocol"])
        ended = {str(name): (list(arm["seeds"]), list(arm["failed"])) for name, arm in summary["arms"].items()}
    except OSError:
        raise InputError(f"study '{study}' has no readable summary.json; `collapse-lab compare` writes one") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"summary '{path}' is damaged ({type(error).__name__}: {error}); run compare again") from None
    if not ended:
        raise InputError(f"summary '{path}' names no arm; run compare again")
    names = sorted(ended, key=lambda name: name != BASELINE)
    return Records(study, protocol, {name: arm(study / name, *ended[name]) for name in names})


def arm(directory: Path, seeds: list[int], failed: list[int]) -> Arm:
    """The tables of the named seeds in an arm's directory; ``InputError`` where none of them is there."""
    # A run can fail before its first reading.
    tables = [directory / f"seed{seed}" / "metrics.csv" for seed in seeds]
    tables += [path for seed in failed if (path := directory / f"seed{seed}" / "metrics.csv").exists()]
    if not tables:
        raise InputError(f"arm '{directory}' has no finished seed; run compare again to resume it")
    return Arm(pd.concat([read_table(path) for path in tables], ignore_index=True), seeds, failed)


def read_table(path: Path) -> pd.DataFrame:
    """One ``metrics.csv`` of a study with the seed of its directory as a column; raises as ``read_metrics`` does."""
    return read_metrics(path).assign(seed=int(path.parent.name.removeprefix("seed")))


def read_metrics(path: Path) -> pd.DataFrame:
    """One table of readings, of a run or written by a watch.

    Raises ``InputError`` naming the path where the file is missing, empty or not such a table.
    """
    try:
        table = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, na_values={"value": ["nan"]})
    except OSError as error:
        raise InputError(f"table '{path}' cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"table '{path}' is damaged: {' '.join(str(error).split())}") from None
    if list(table.columns) != list(COLUMNS):
        raise InputError(f"table '{path}' has columns {','.join(table.columns)}; expected {','.join(COLUMNS)}")
    if table.empty:
        raise InputError(f"table '{path}' has no rows; the run recorded nothing")
    twice = table.duplicated(["step", "source", "layer", "metric", "index"])
    if twice.any():
        raise InputError(f"table '{path}' is damaged: line {int(twice.argmax()) + 2} repeats an earlier reading")
    return table
