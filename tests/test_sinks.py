"""Sinks give on what was read, all of it."""

import pytest
import torch
from torch import nn

from collapse_lab.monitors import FULL, Reading, Watch, sinks
from collapse_lab.records import read_metrics


def watched(*into):
    """The readings of four steps, with the given sinks."""
    model = nn.ModuleDict({"layer": nn.Linear(6, 20)})
    generator, found = torch.Generator().manual_seed(0), []
    with Watch(model, ["layer"], every=2, statistics=FULL, sinks=into) as watch:
        for _ in range(4):
            for _ in range(2):
                model["layer"](torch.randn(30, 6, generator=generator))
            found += watch.step()
    return found


def test_a_callable_is_given_the_readings_of_each_scheduled_step():
    seen = []
    readings = watched(seen.append)
    assert [step[0].step for step in seen] == [2, 4]
    assert [reading for step in seen for reading in step] == readings


def test_the_table_is_read_back_as_a_run_is(tmp_path):
    readings = watched(sinks.table(tmp_path / "metrics.csv", steps_per_epoch=3))
    table = read_metrics(tmp_path / "metrics.csv")
    assert list(table["value"]) == pytest.approx([r.value for r in readings], rel=1e-8)
    rows = table[["step", "layer", "metric", "index"]].itertuples(index=False, name=None)
    assert list(rows) == [tuple(r[:-1]) for r in readings]
    assert set(table["source"]) == {"train"}
    assert list(table.groupby("epoch")["step"].unique().map(list)) == [[2], [4]]


def test_a_table_is_not_written_over_another(tmp_path):
    sinks.table(tmp_path / "metrics.csv")
    with pytest.raises(FileExistsError, match="metrics.csv"):
        sinks.table(tmp_path / "metrics.csv")


def test_values_with_an_index_are_not_scalars():
    readings = [Reading(1, "a", "spectrum", 1, 0.5), Reading(1, "a", "std", 0, 0.25)]
    assert sinks.scalars(readings) == {"a/std": 0.25}
