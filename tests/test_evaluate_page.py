"""docs/evaluate.md says what is so: its table holds the recipes' numbers, its commands parse."""

import re
import shlex
from pathlib import Path

import pytest

from collapse_lab.cli import commands
from collapse_lab.evaluation_flags import requested
from collapse_lab.recipes import FINETUNE, KINDS, LINEAR, Recipe

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "evaluate.md").read_text(encoding="utf-8")


def cells(recipe: Recipe) -> list[str]:
    optimizer = "SGD" if recipe.trust is None else f"LARS, trust {recipe.trust:g}"
    low, high = recipe.crop_scale
    numbers = (recipe.base_rate, recipe.batch, recipe.epochs, recipe.momentum, recipe.weight_decay)
    return [optimizer, *(f"{number:g}" for number in numbers), f"{low:g} to {high:g}", f"{recipe.flip:g}"]


def test_the_table_of_recipes_is_theirs():
    (table,) = re.findall(r"<!-- table recipes -->\n(.*?)<!-- end -->", PAGE, flags=re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    recipes = {**{f"linear-paper-{name}": recipe for name, recipe in LINEAR.items()}, "finetune": FINETUNE}
    assert {row[0]: row[1:-1] for row in rows} == {name: cells(recipe) for name, recipe in recipes.items()}


def test_every_feature_is_explained():
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE, flags=re.MULTILINE) == list(KINDS)


@pytest.mark.parametrize("line", re.findall(r"^collapse-lab .*$", PAGE, flags=re.MULTILINE))
def test_commands_parse(line):
    name, *arguments = shlex.split(line)[1:]
    assert requested(commands.commands[name].make_context(name, arguments).params).kinds
