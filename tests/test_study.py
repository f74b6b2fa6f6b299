"""Study files are data: what they mean under given settings, where their runs lie, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from collapse_lab import config as configuration
from collapse_lab.errors import InputError
from collapse_lab.grid import Grid, over_seeds, stages, study_name
from collapse_lab.plan import SMOKE, planned
from collapse_lab.study import Arm, Contrast, Measure, Study, StudyFile, arm_directory, read

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"question": "q?", "predictions": {"a": "b"}, "answer": "c", "cost": "d"}
HEAD = "network.projector_output_norm"


def study_of(arms, contrasts=(), **more) -> Study:
    return Study(arms=arms, contrasts=tuple(contrasts), **WORDS, **more)


def file_of(arms, **more) -> StudyFile:
    return StudyFile(Path("x.py"), study_of(arms, **more), "collapse-lab study x.py")


TWO = {"with": Arm("simsiam"), "without": Arm("no-stop-gradient")}


# directories


def test_a_directory_names_what_differs_in_any_order():
    overrides = {"train.batch": 64, HEAD: "affine"}
    assert arm_directory("simsiam", overrides) == arm_directory("simsiam", dict(reversed(overrides.items())))
    assert arm_directory("simsiam", {}) == "simsiam"
    assert arm_directory("byol", {"augment.crop_scale": (0.2, 1.0)}) == "byol,augment.crop_scale=0.2+1"


def test_directories_are_short_safe_and_different():
    long = [{"train.start": "x" * length} for length in (300, 301)]
    odd = [{"train.start": text} for text in ("a/b", "a_b", "a b", "../a")]
    names = [arm_directory("simsiam", overrides) for overrides in long + odd]
    assert len(set(names)) == len(names)
    assert all(len(name) < 200 and not set(name) & set("/\\ :") for name in names)


def test_an_override_that_changes_nothing_leaves_no_trace():
    arms = {"none": Arm("simsiam", {HEAD: "none"}), "affine": Arm("simsiam", {HEAD: "affine"})}
    assert planned(file_of(arms), {}, 1).directories == {"none": "simsiam", "affine": f"simsiam,{HEAD}=affine"}
    # Under other settings it is the other head that changes nothing.
    assert planned(file_of(arms), {HEAD: "affine"}, 1).directories == {
        "none": f"simsiam,{HEAD}=none",
        "affine": "simsiam",
    }


def test_equal_arms_of_different_studies_and_of_compare_are_the_same_runs():
    first = planned(file_of(TWO), {"train.epochs": 3}, 2).grid
    second = planned(file_of({**TWO, "head": Arm("simsiam", {HEAD: "affine"})}), {"train.epochs": 3}, 2).grid
    assert first.name == second.name
    assert first.runs.items() <= second.runs.items()
    assert list(first.runs) == ["simsiam/seed0", "no-stop-gradient/seed0", "simsiam/seed1", "no-stop-gradient/seed1"]
    assert planned(file_of(TWO), {"train.epochs": 4}, 2).grid.name != first.name


def test_a_key_at_its_default_does_not_move_a_study():
    defaults = configuration.flat(configuration.build(""))
    assert study_name(configuration.build("", {"train.batch": defaults["train.batch"]})) == study_name(
        configuration.build("")
    )
    assert study_name(configuration.build("", {"train.batch": 32})) != study_name(configuration.build(""))


def test_later_layers_win():
    arms = {"proposed": Arm("momentum-eta"), "own": Arm("momentum-eta", {"target.eta_momentum": 0.5})}
    found = planned(file_of(arms, settings={"train.epochs": 7}), {}, 1)
    values = [config.target.eta_momentum for config in found.grid.runs.values()]
    assert values == [0.8, 0.5]
    assert {config.train.epochs for config in found.grid.runs.values()} == {7}
    changed = planned(file_of(arms, settings={"train.epochs": 7}), {"train.epochs": 9, "target.eta_momentum": 0.9}, 1)
    assert [config.target.eta_momentum for config in changed.grid.runs.values()] == [0.9, 0.5]
    assert {config.train.epochs for config in changed.grid.runs.values()} == {9}


def test_an_arm_that_starts_from_another_names_its_directory_and_is_trained_after_it():
    arms = {
        "rescued": Arm("simsiam", {"train.start": "collapsed"}),
        "collapsed": Arm("no-stop-gradient", {HEAD: "affine"}),
    }
    found = planned(file_of(arms), {}, 1)
    assert list(found.directories) == ["rescued", "collapsed"]
    config = found.grid.runs[f"{found.directories['rescued']}/seed0"]
    assert config.train.start == found.directories["collapsed"]
    first, second = stages(found.grid.runs)
    assert [list(first), list(second)] == [
        [f"{found.directories['collapsed']}/seed0"],
        [f"{found.directories['rescued']}/seed0"],
    ]


def test_a_smoke_run_is_small_whatever_the_study_says_and_keeps_every_arm():
    arms = {f"batch {size}": Arm("simsiam", {"train.batch": size, "train.epochs": 800}) for size in (32, 4096)}
    found = planned(file_of(arms, settings={"train.epochs": 100}), {"data.name": "cifar10"}, 1, smoke=True)
    assert set(found.directories) == set(arms)
    for config in found.grid.runs.values():
        values = configuration.flat(config)
        assert {key: values[key] for key in SMOKE if key != "train.batch"} == {
            key: value for key, value in SMOKE.items() if key != "train.batch"
        }
        assert config.train.batch <= config.data.train_images


def test_seeds_are_counted_from_that_of_the_settings():
    grid: Grid = planned(file_of(TWO), {"train.seed": 5}, 2).grid
    assert sorted({config.train.seed for config in grid.runs.values()}) == [5, 6]
    assert list(over_seeds({"a": grid.shared}, [3])) == ["a/seed3"]


# refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: study_of({"one": Arm("simsiam")}), "arms: found 1, a study compares at least 2"),
        (lambda: Arm("simsam"), "unknown method 'simsam'"),
        (lambda: Arm("simsiam", paper="table-9/z"), "paper.NUMBERS has no 'table-9/z'"),
        (lambda: Measure("no colon"), "found 'no colon', expected module:function"),
        (lambda: study_of({**TWO, "x": Arm("simsiam", {"train.epoch": 1})}), "unknown configuration key 'train.epoch'"),
        (lambda: study_of(TWO, settings={"train.epoch": 1}), "unknown configuration key 'train.epoch'"),
        (lambda: study_of({**TWO, "again": Arm("simsiam")}), "arms 'with' and 'again' are the same run"),
        (lambda: study_of(TWO, [Contrast("with", "witout")]), "no arm 'witout'; the arms are with, without"),
        (lambda: study_of(TWO, [Contrast("with", "with")]), "'with' is compared with itself"),
        (lambda: study_of(TWO, [Contrast("with", "with", "knn", "knn")]), "'with' is compared with itself"),
        (lambda: study_of(TWO, [Contrast("with", "with", "knn", "rank")]), "found quantity 'rank'"),
        (lambda: study_of(TWO, [Contrast("with", "without", "rank")]), "found quantity 'rank'"),
        (lambda: study_of(TWO, shown=("eq8",)), "shown: found 'eq8', the study has no measure that could give it"),
    ],
)
def test_a_study_that_cannot_be_is_refused_when_made(make, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        make()


@pytest.mark.parametrize(
    ("arms", "settings", "message"),
    [
        ({**TWO, "x": Arm("simsiam", {"network.predictor": "identity"})}, {}, "method 'simsiam' is made by 'mlp'"),
        ({**TWO, "x": Arm("simsiam", {"train.batch": "many"})}, {}, "train.batch"),
        ({**TWO, "x": Arm("simsiam", {HEAD: "none"})}, {}, "arms 'with' and 'x' are the same run in these settings"),
        ({**TWO, "x": Arm("simsiam", {"train.start": "whom"})}, {}, "train.start: found 'whom', expected the label"),
        (
            {**TWO, "x": Arm("simsiam", {"train.start": "with"}), "y": Arm("simsiam", {"train.start": "x"})},
            {},
            "arm 'x' starts from another arm itself",
        ),
        (TWO, {"objective.stop_gradient": "none"}, "method 'simsiam' is made by 'target'"),
    ],
)
def test_arms_that_cannot_be_run_are_refused_with_the_file(arms, settings, message):
    with pytest.raises(InputError, match=message) as error:
        planned(file_of(arms), settings, 1)
    assert str(error.value).startswith("study file 'x.py'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("STUDY = (", "cannot be run: SyntaxError"),
        ("import nowhere_at_all", "cannot be run: ModuleNotFoundError"),
        ('"""Doc.\n\ncollapse-lab study x.py\n"""', "defines no STUDY"),
        ("from collapse_lab.study import Arm\nArm('simsam')", "unknown method 'simsam'"),
    ],
)
def test_a_file_that_is_no_study_is_named(tmp_path, text, message):
    path = tmp_path / "x.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_its_command_is_refused(tmp_path):
    text = (ROOT / "experiments" / "stop_gradient.py").read_text()
    (tmp_path / "x.py").write_text(text.replace("collapse-lab study", "run"))
    with pytest.raises(InputError, match="no docstring with its command"):
        read(tmp_path / "x.py")


def test_reading_study_files_loads_no_torch():
    code = (
        "import sys; from pathlib import Path; from collapse_lab.study import read\n"
        "for path in map(Path, sys.argv[1:]): read(path)\n"
        "assert 'torch' not in sys.modules"
    )
    paths = sorted((ROOT / "experiments").glob("*.py"))
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
