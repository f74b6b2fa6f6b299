"""Every study of this project can be carried out and says what it must."""

import shlex
from pathlib import Path

import pytest

from collapse_lab.cli import commands
from collapse_lab.plan import planned
from collapse_lab.study import read

FILES = sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_is_whole(path):
    file = read(path)
    study = file.study
    assert study.question.endswith("?")
    assert len(study.predictions) >= 2
    assert all((study.answer, study.contrasts, study.cost))
    assert all(len(label) < 40 for label in study.arms)
    name, *arguments = shlex.split(file.command)[1:]
    assert commands.commands[name].make_context(name, arguments).params["files"] == (Path("experiments") / path.name,)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_arms_can_be_built(path):
    file = read(path)
    fashion = {"data.name": "fashion-mnist", "data.root": ".data/fashion", "data.train_images": 10000}
    for chosen in ({}, fashion):
        found = planned(file, chosen, 2)
        assert len(found.grid.runs) == 2 * len(file.study.arms)
    smoke = planned(file, {}, 1, smoke=True)
    assert {label for label, runs in smoke.runs(Path()).items() if len(runs) == 1} == set(file.study.arms)
