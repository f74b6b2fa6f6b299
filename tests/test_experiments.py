"""Every study file says what it asks, builds its arms under its own command, and stands in the table of experiments/."""

import importlib
import inspect
import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest

from collapse_lab.cli import commands
from collapse_lab.config import flat
from collapse_lab.flags import assignments, data_overrides
from collapse_lab.measured import resolve
from collapse_lab.methods import METHODS
from collapse_lab.paper import NUMBERS
from collapse_lab.plan import planned
from collapse_lab.study import QUANTITIES, read

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "experiments").glob("*.py"))
HEADLINES = {"alternation", "head", "mean_input", "stop_gradient"}
# Labels stand at the axis of a figure; from here on they are too long.
LONGEST = 40


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request):
    return found(request.param)


@lru_cache
def found(path):
    return read(path)


@lru_cache
def plan(path):
    """The arms of a study over two seeds, under its own command."""
    file = found(path)
    given = arguments(file)
    data = data_overrides(given["data"]) if given["data"] else {}
    return planned(file, {**data, **assignments(given["texts"])}, 2)


def arguments(file):
    """The flags that the file's own command gives, read by the command itself."""
    program, name, *words = shlex.split(file.command)
    assert (program, name) == ("collapse-lab", "study")
    return commands.commands["study"].make_context("study", words).params


def test_command_names_the_file_and_enough_seeds(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = arguments(file)
    assert [Path(path) for path in given["files"]] == [Path("experiments", file.path.name)]
    assert file.study.headline == (file.name in HEADLINES)
    assert given["seeds"] >= (8 if file.study.headline else 3)


def test_arms_build_under_the_command_and_in_smoke(file):
    assert len(plan(file.path).grid.runs) == 2 * len(file.study.arms)
    assert planned(file, {}, 1, smoke=True).grid.runs


def test_arms_are_what_their_labels_stand_for(file):
    grid, directories = plan(file.path).grid, plan(file.path).directories
    for label, arm in file.study.arms.items():
        values = flat(grid.runs[f"{directories[label]}/seed0"])
        expected = {key: value for key, value in arm.overrides.items() if key != "train.start"}
        assert {key: values[key] for key in expected} == expected
        assert METHODS[arm.method].overrides.items() <= values.items()


def test_words_are_there_and_short_where_they_stand_in_figures(file):
    study = file.study
    assert study.question.endswith("?")
    assert len(study.predictions) >= 2
    assert all(text.endswith(".") for text in (*study.predictions.values(), study.answer))
    assert all(len(label) < LONGEST and "\n" not in label for label in study.arms)
    assert {"CPU", "GPU"} <= set(re.findall(r"\w+", study.cost))


def test_contrasts_are_said_once_and_each_measured_quantity_has_a_measure(file):
    contrasts = file.study.contrasts
    assert len(set(contrasts)) == len(contrasts) > 0
    mirrored = {(contrast.other, contrast.one, contrast.quantity) for contrast in contrasts}
    assert not mirrored & set(contrasts)
    if any(contrast.quantity not in QUANTITIES for contrast in contrasts):
        assert file.study.measures


def test_measures_exist(file):
    for measure in file.study.measures:
        taken = inspect.signature(resolve(measure)).parameters
        assert measure.parameters.keys() <= taken.keys()


def test_paper_numbers_stand_once_in_a_study(file):
    keys = [arm.paper for arm in file.study.arms.values() if arm.paper is not None]
    assert set(keys) <= NUMBERS.keys()
    assert len(set(keys)) == len(keys)


def test_equal_arms_of_all_studies_of_the_same_data_share_their_runs():
    plans = [plan(path) for path in FILES if not found(path).study.settings]
    assert len({each.grid.name for each in plans}) == 1
    assert len({path for each in plans for path in each.grid.runs}) < sum(len(each.grid.runs) for each in plans)
    (simsiam,) = {plan(FILES[0].with_stem(name)).directories["simsiam, none"] for name in ("predictor", "zhang")}
    assert simsiam == "simsiam"


def test_the_table_is_that_of_the_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "figures")
    script = importlib.import_module("experiments_page")
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text
    assert re.findall(r"^\| \[(\w+)\]", text, flags=re.MULTILINE) == [path.stem for path in FILES]
