"""The examples that need no other framework, as they are."""

import importlib
from pathlib import Path

import pytest

from collapse_lab import heatmap
from collapse_lab.records import read_metrics

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def test_a_plain_loop_shows_which_stage_lost_rank(tmp_path):
    plain = importlib.import_module("plain_loop")
    ranks = {}
    for stop_gradient in (True, False):
        out = tmp_path / str(stop_gradient)
        assert all(path.exists() for path in plain.main(out, stop_gradient=stop_gradient, epochs=12))
        ranks[stop_gradient] = heatmap.by_layer(read_metrics(out / "metrics.csv"), "rankme")
    assert list(ranks[True]) == plain.STAGES
    assert list(ranks[True].index) == list(range(10, 12 * 14 + 1, 10))
    assert heatmap.rank_lost(ranks[True])["projector"] is None
    assert heatmap.rank_lost(ranks[False])["projector"] is not None


def test_a_vision_transformer_is_read_by_token_pooled_and_by_class_token():
    transformer = importlib.import_module("vision_transformer")
    readings = transformer.main(steps=40, every=20)
    assert {reading.layer for reading in readings} == set(transformer.LAYERS)
    assert {reading.step for reading in readings} == {20, 40}
    rank = {r.layer: r.value for r in readings if r.metric == "rankme" and r.step == 40}
    # Rows of the same image differ by position; images hardly do.
    assert rank["patches"] > 3 * rank["pooled patches"]
    assert rank["pooled patches"] < 4 > rank["class token"]
