"""The README says what is so: its tables are generated, its code runs, its commands parse."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from collapse_lab.cli import commands

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_tables_are_those_of_the_package_and_the_results(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "figures" / "readme.py"))["rewritten"](text) == text


def test_rewriting_keeps_all_else_and_fills_empty_tables():
    rewritten = runpy.run_path(str(ROOT / "figures" / "readme.py"))["rewritten"]
    text = "a\n<!-- table families -->\n<!-- end -->\nb\n<!-- table metrics -->\n<!-- end -->\nc\n"
    assert [line for line in rewritten(text).splitlines() if not line.startswith("|")] == text.splitlines()
    assert "| stop-gradient | no-stop-gradient, wrong-branch |" in rewritten(text)
    assert rewritten(rewritten(text)) == rewritten(text)


def test_the_python_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(r"^4 fc rankme \d", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^2 layer4 std_ratio 0\.\d+", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("line", re.findall(r"^collapse-lab .*$", README, flags=re.MULTILINE))
def test_commands_parse(line):
    name, *arguments = shlex.split(line, comments=True)[1:]
    context = commands.commands[name].make_context(name, arguments)
    assert context.params


@pytest.mark.parametrize("path", re.findall(r"!\[.*?\]\((.*?)\)", README))
def test_figures_are_there_and_small(path):
    assert 1000 < (ROOT / path).stat().st_size < 1_000_000


def test_it_is_short():
    assert len(README.splitlines()) < 150
