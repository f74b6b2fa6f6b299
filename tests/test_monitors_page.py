"""docs/monitors.md says what is so: its tables are generated, its code runs, its commands parse."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from collapse_lab.cli import commands
from collapse_lab.monitors.verdict import Kind

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "monitors.md").read_text(encoding="utf-8")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "figures")
    return importlib.import_module("monitors_page")


def test_tables_are_those_of_the_recorded_benchmarks_and_the_bounds(script):
    assert script.page(PAGE) == PAGE
    assert re.findall(r"<!-- table (\S+) -->\n[^<]", PAGE) == list(script.TABLES)


def test_the_confusion_counts_every_labelled_run_once(script):
    cells = re.findall(r"(?<=\| )\d+ \+ \d+(?= \|)", script.confusion_table())
    counted = sum(int(number) for cell in cells for number in cell.split(" + "))
    assert counted == sum(script.result("collapse_zoo")["labels"].values())


def test_the_example_raises_an_alarm_and_ends_in_a_collapse(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    seeded = f"import torch; torch.manual_seed(0); torch.set_num_threads(1)\n{code}"
    done = subprocess.run([sys.executable, "-c", seeded], capture_output=True, text=True, check=True, cwd=tmp_path)
    alert, kind = done.stdout.splitlines()
    step = int(re.match(r"step (\d+): .* of layer 'projector'", alert)[1])
    assert 100 < step < 200
    assert kind in ("complete-collapse", "dimensional-collapse")


@pytest.mark.parametrize("line", re.findall(r"^collapse-lab .*$", PAGE, flags=re.MULTILINE))
def test_commands_parse(line):
    name, *arguments = shlex.split(line, comments=True)[1:]
    assert commands.commands[name].make_context(name, arguments).params


def test_every_kind_is_explained():
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", PAGE, flags=re.MULTILINE)) == sorted(get_args(Kind))


def test_it_is_short():
    assert len(PAGE.splitlines()) < 150
