"""Which layer lost rank first, from records."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from collapse_lab import heatmap
from collapse_lab.errors import InputError
from collapse_lab.monitors import Reading, sinks
from collapse_lab.records import COLUMNS, read_metrics

STEPS = [10, 20, 30, 40]
RANKS = {"deep": [30.0, 12.0, 8.0, 9.0], "shallow": [30.0, 29.0, 31.0, 14.0], "sound": [5.0, 2.0, 6.0, 7.0]}


def table(tmp_path):
    write = sinks.table(tmp_path / "metrics.csv")
    for position, step in enumerate(STEPS):
        ranks = [Reading(step, layer, "rankme", 0, values[position]) for layer, values in RANKS.items()]
        write([*ranks, *(Reading(step, layer, "std_ratio", 0, 0.1 * position) for layer in RANKS)])
    return tmp_path / "metrics.csv"


def test_the_step_from_which_on_rank_is_lost_against_a_slow_reading_of_the_definition():
    generator = np.random.default_rng(0)
    rank = pd.DataFrame(generator.uniform(0, 1, (12, 40)) ** 2, index=range(5, 65, 5))
    rank.iloc[6:, :20] *= 0.3

    def slow(values):
        for start in range(len(values)):
            if all(values.iloc[i] < 0.5 * values.iloc[: i + 1].max() for i in range(start, len(values))):
                return values.index[start]
        return None

    found = heatmap.rank_lost(rank)
    assert found == {str(layer): slow(rank[layer]) for layer in rank}
    assert None in found.values()
    assert len(set(found.values())) > 3


def test_layers_in_the_order_of_the_table_and_crosses_where_rank_was_lost(tmp_path):
    records = read_metrics(table(tmp_path))
    assert heatmap.rank_lost(heatmap.by_layer(records, "rankme")) == {"deep": 20, "shallow": 40, "sound": None}
    left, right = heatmap.figure(records).axes[:2]
    assert [tick.get_text() for tick in left.get_yticklabels()] == list(RANKS)
    assert [tuple(line.get_xydata()[0]) for line in left.lines] == [(20, 0), (40, 1)]
    np.testing.assert_allclose(left.collections[0].get_array().reshape(3, 4)[0], [1, 12 / 30, 8 / 30, 9 / 30])
    np.testing.assert_allclose(right.collections[0].get_array().reshape(3, 4)[1], [0, 0.1, 0.2, 0.3])


def test_a_diverged_layer_is_lost():
    rank = pd.DataFrame({"a": [4.0, np.nan, np.nan]}, index=[1, 2, 3])
    assert heatmap.rank_lost(rank) == {"a": 2}


def test_files_are_written_without_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from collapse_lab.heatmap import draw\n"
        f"draw(Path({str(table(tmp_path))!r}), Path({str(tmp_path)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "layers.png").stat().st_size > 5000
    assert (tmp_path / "layers.pdf").read_bytes().startswith(b"%PDF")


def test_a_table_without_layers_is_refused():
    with pytest.raises(InputError, match="no train-mode readings of rankme or std_ratio"):
        heatmap.figure(pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()}))
