"""A whole run with the compiler itself, beside the same run without it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.tiny import tiny, trained

pytestmark = pytest.mark.extras


def test_a_compiled_run_records_what_the_plain_one_does(tmp_path: Path) -> None:
    torch._dynamo.reset()
    tables = []
    for compiled in (False, True):
        status = trained(tiny(train__compile=compiled, train__epochs=1, monitor__every=1), tmp_path / str(compiled))
        assert status["state"] == "done"
        tables.append(pd.read_csv(tmp_path / str(compiled) / "metrics.csv", keep_default_na=False))
    plain, compiled = tables
    names = ["step", "epoch", "source", "layer", "metric", "index"]
    assert compiled[names].equals(plain[names])
    # kNN counts neighbours, which a last bit can exchange.
    first = (plain["source"] == "train") & plain["metric"].isin(["loss", "std_ratio", "rankme"])
    assert compiled[first]["value"].to_numpy() == pytest.approx(plain[first]["value"].to_numpy(), rel=0.01)
