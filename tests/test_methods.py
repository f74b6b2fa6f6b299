"""The table of methods: rows are parts, parts have tests, a step costs the passes that its parts need, a new row just works."""

import ast
import io
import json
import runpy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from collapse_lab import methods, parts, tables
from collapse_lab.cli import commands
from collapse_lab.config import build, flat
from collapse_lab.errors import InputError
from collapse_lab.methods import METHODS, method
from collapse_lab.networks import Encoder
from collapse_lab.objective import build_objective
from collapse_lab.optimisation import optimizer, update
from collapse_lab.paper import NUMBERS

ROOT = Path(__file__).resolve().parents[1]
FIGURE = runpy.run_path(str(ROOT / "figures" / "architectures.py"))
SIMSIAM = build("simsiam", method("simsiam").settings)


def source(test: str) -> str:
    """The text of ``file::test``, decorators and all."""
    file, name = test.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    (node,) = [x for x in ast.walk(ast.parse(text)) if isinstance(x, ast.FunctionDef) and x.name == name]
    return "\n".join(
        text.splitlines()[min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1 : node.end_lineno]
    )


def test_simsiam_is_the_row_that_the_others_are_held_against():
    assert next(iter(METHODS)) == "simsiam"
    assert parts.parts(method("simsiam")) == []
    assert all(parts.parts(row) for name, row in METHODS.items() if name != "simsiam")
    assert "def test_the_loss_is_the_papers" in source(parts.BASE)


@pytest.mark.parametrize("name", METHODS)
def test_all_that_tells_a_method_from_simsiam_is_said_by_its_parts(name):
    row = method(name)
    config, base = flat(build(name, row.settings)), flat(SIMSIAM)
    changed = {key for key in config if config[key] != base[key]}
    templates = [
        (key, part.what)
        for (key, value), part in parts.PARTS.items()
        if row.settings.get(key) == value or value == parts.ANY
    ]
    assert all(key in [k for k, _ in templates] or any(f"{{{key}" in what for _, what in templates) for key in changed)


def test_rows_are_told_apart_by_their_parts():
    words = [tuple(part.what for part in parts.parts(row)) for row in METHODS.values()]
    assert len(set(words)) == len(METHODS)


@pytest.mark.parametrize(("setting", "part"), parts.PARTS.items(), ids=lambda x: None)
def test_every_part_points_to_a_test_that_speaks_of_it(setting, part):
    key, value = setting
    having = [name for name, row in METHODS.items() if part.test in parts.pointers(row)]
    assert having, "no method has this part"
    words = {*having, str(value), str(value).replace("-", "_"), key.split(".")[-1], "METHODS"}
    assert any(word in source(part.test) for word in words)


def test_the_papers_numbers_exist_and_are_shown_with_their_place():
    keys = {name: row.paper for name, row in METHODS.items() if row.paper}
    assert set(keys.values()) <= set(NUMBERS)
    cells = {row["method"]: row for row in tables.method_cells()}
    assert all(cells[name]["paper"].startswith(f"{NUMBERS[key].text()} (") for name, key in keys.items())
    assert cells["no-predictor"]["paper"] == "0.1 (Table 1)"


def calls(name: str) -> parts.Passes:
    """Encoder calls of one step, counted at every encoder that the objective holds."""
    config = build(name, method(name).settings, {"network.width": 4, "train.batch": 8})
    objective = build_objective(config, torch.tensor([0.5]), torch.tensor([0.3]), 8, 16).train()
    seen: list[bool] = []
    for module in objective.modules():
        if isinstance(module, Encoder):
            module.register_forward_hook(lambda module, inputs, z: seen.append(z.requires_grad))
    views = torch.rand(objective.views, 8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = config.train.predictor_steps
    update(objective, optimizer(objective, config.train), views, torch.arange(8), 1, predictor_steps=steps)
    return parts.Passes(sum(seen), len(seen) - sum(seen))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_makes_the_encoder_passes_that_its_parts_need_and_no_more(name):
    assert calls(name) == parts.passes(build(name, method(name).settings))


def test_a_mean_of_k_views_needs_k_passes_more():
    for count in (1, 5):
        config = build("mean-output", method("mean-output").settings, {"target.views": count})
        assert parts.passes(config) == (2, count)


@pytest.fixture
def added(monkeypatch):
    """A method of existing parts as one more row."""
    row = methods._row(
        "BYOL with the mean output of K views",
        "a test",
        {"target.network": "lagged", "target.estimate": "mean-output"},
        defaults={"target.momentum": 0.9, "target.views": 3},
    )
    monkeypatch.setitem(METHODS, "byol-mean-output", row)
    return "byol-mean-output"


def test_a_row_of_existing_parts_is_a_method_that_trains(added, tmp_path):
    sizes = {"train.epochs": 2, "train.batch": 32, "data.train_images": 100, "data.test_images": 40, "network.width": 4}
    flags = [word for key, value in sizes.items() for word in (f"--{key}", str(value))]
    done = CliRunner().invoke(
        commands, ["train", added, "--out", str(tmp_path), "--json", *flags], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["state"] == "done"
    assert answer["step"] == 6
    assert -1 <= answer["values"]["loss"] < 0
    assert calls(added) == parts.passes(build(added, method(added).settings)) == (2, 3)
    with pytest.raises(InputError, match="method 'byol-mean-output' is made by 'lagged'"):
        methods.require_consistent(added, {"target.network": "online"})


def test_a_row_of_existing_parts_is_listed_and_drawn(added):
    (row,) = [row for row in tables.method_cells() if row["method"] == added]
    assert row["other than SimSiam"] == "lagged weights (m = 0.9, every 1); mean output of 3 views"
    assert row["passes"] == "2 + 3"
    nodes = list(FIGURE["target"](build(added, method(added).settings)))
    assert [(node.text, node.other) for node in nodes] == [
        ("moving average\nm = 0.9", True),
        ("mean of\n3 outputs", True),
    ]
    assert len(FIGURE["sheet"]([added], 1).axes) == 1


def coloured(name: str) -> bool:
    """Whether the drawing has anything in the colour of what is not SimSiam's."""
    (axes,) = FIGURE["sheet"]([name], 1).axes
    other = FIGURE["OTHER"]
    texts = [text for text in axes.texts if text.get_text() and text.get_color() == other]
    return bool(texts) or any(line.get_color() == other for line in axes.lines)


@pytest.mark.parametrize("name", METHODS)
def test_the_drawing_shows_in_colour_what_is_not_simsiams(name):
    assert coloured(name) == (name != "simsiam")


@pytest.mark.parametrize("name", ["architectures", "architectures_all"])
def test_the_drawings_are_small(name):
    assert 20_000 < (ROOT / "figures" / "gallery" / f"{name}.png").stat().st_size < 300_000


@pytest.mark.parametrize(("cells", "width"), [(tables.narrow_method_cells, 80), (tables.method_cells, 200)])
def test_a_terminal_shows_every_name_and_number_whole(cells, width):
    console = Console(width=width, file=io.StringIO())
    console.print(tables.terminal(cells()))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for row in cells():
        (line,) = [line for line in lines if f"│ {row['method']} " in line]
        assert row["paper"] in line
    # Brackets are text, not markup.
    assert "E[zz']" in "".join(lines)


def test_json_says_all_that_a_row_says():
    found = {
        row["method"]: row for row in json.loads(CliRunner().invoke(commands, ["methods", "--json"]).stdout)["methods"]
    }
    assert list(found) == list(METHODS)
    byol = found["byol"]
    assert byol["settings"]["target.network"] == "lagged"
    assert byol["defaults"] == {"target.momentum": 0.99}
    assert byol["encoder_passes"] == {"graph": 2, "bare": 2}
    assert byol["paper"]["source"] == "Chen & He (2020), Table 4"
    assert all("::" in test for row in found.values() for test in row["tested_in"])
