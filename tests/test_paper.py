"""The papers' numbers are those that the papers print."""

import math
import re
from pathlib import Path

import pytest

from collapse_lab import tables
from collapse_lab.methods import METHODS
from collapse_lab.paper import NUMBERS

THEORY = Path(__file__).resolve().parents[2] / "shared" / "reference" / "theory.md"
PARTS = {"Chen & He (2020)": ("### A.2", "### A.3"), "appendix D": ("### A.4", "---"), "Tian": ("### C.2", "---")}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("figure-2/stop-gradient", 67.7),
        ("table-1/b", 1.5),
        ("table-2/4096", 64.0),
        ("table-3/a", 34.6),
        ("section-4.6/asymmetric-2x", 67.3),
        ("section-5.2/100-step", 68.9),
        ("section-5.2/moving-average", 55.0),
        ("appendix-B/256", 65.3),
        ("appendix-D/simsiam", 91.8),
        ("table-4/byol/800", 74.3),
        ("table-4/swav/200", 69.1),
        ("table-5/simsiam-optimal/voc0712/ap75", 63.7),
        ("table-5/mocov2/coco-mask/ap50", 55.5),
        ("table-C.1/byol-300/reproduction", 72.4),
        ("directpred/stl10/linear/no-ema/regular", 72.85),
        ("directpred/stl10/eps-0.1", 77.86),
    ],
)
def test_values(key, value):
    assert NUMBERS[key].value == value


@pytest.mark.skipif(not THEORY.exists(), reason=f"{THEORY.name} is not here")
@pytest.mark.parametrize("key", NUMBERS)
def test_every_value_stands_in_the_fact_sheet_where_its_source_is_treated(key):
    number = NUMBERS[key]
    first, last = next(place for name, place in reversed(PARTS.items()) if name in number.source)
    text = THEORY.read_text(encoding="utf-8").split(first)[1].split(last)[0]
    printed = "NaN" if math.isnan(number.value) else rf"{number.value:.2f}0?|{number.value:.1f}|{number.value:g}"
    assert re.search(rf"(?<![\d.])({printed})(?!\d|\.\d)", text)


def test_every_number_says_what_it_is_and_where_it_stands():
    assert all(number.what and number.source and number.setting for number in NUMBERS.values())
    assert all(0 <= number.value <= 100 for number in NUMBERS.values() if not math.isnan(number.value))


def test_methods_name_keys_and_tables_print_the_numbers():
    keys = {name: row.paper for name, row in METHODS.items() if row.paper is not None}
    assert set(keys.values()) <= set(NUMBERS)
    printed = {row["method"]: row["paper"] for row in tables.method_cells()}
    assert {name: printed[name] for name in keys} == {name: NUMBERS[key].text() for name, key in keys.items()}
    assert printed["simsiam"] == "67.7 ± 0.1"
