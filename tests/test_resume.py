"""No moment of a run, and nothing that lies in its directory, makes it lose or borrow a number."""

import io
import json
import logging
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import STEPS, Collapsing, load, same, signalled, tiny, trained, weights

from collapse_lab import trainer
from collapse_lab.errors import InputError
from collapse_lab.methods import METHODS
from collapse_lab.monitors import Alarm, Reading
from collapse_lab.run_records import final_values, train_readings
from collapse_lab.runs import Run
from collapse_lab.snapshots import sealed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    assert trained(tiny(), directory)["state"] == "done"
    return directory


def interrupted(directory: Path, step: int, config=None, loop=trainer.Trainer) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(config or tiny(), directory, signalled(step, loop))
    assert json.loads((directory / "status.json").read_text())["state"] == "interrupted"


def state(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("step", [0, 1, 4, 5, 8, 9, 13, 14])
def test_a_signal_in_any_step_lets_it_end_and_saves_there(undisturbed, tmp_path, step):
    interrupted(tmp_path, step)
    assert state(tmp_path / "checkpoint.pt")["step"] == step + 1
    assert trained(tiny(), tmp_path)["state"] == "done"
    assert same(tmp_path, undisturbed)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_to_the_byte(tmp_path, name):
    config = tiny(name, train__epochs=2, data__train_images=40)
    trained(config, tmp_path / "one")
    interrupted(tmp_path / "other", 2, config)
    trained(config, tmp_path / "other")
    assert same(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("step", [3, 8, 13])
def test_a_run_in_bfloat16_resumes_to_the_byte(tmp_path, step):
    config = tiny(train__precision="bfloat16", train__accumulate=2, augment__blur=0.5)
    trained(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(config, tmp_path / "cut", signalled(step))
    trained(config, tmp_path / "cut")
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_interrupted_at_every_step_is_the_same_run(undisturbed, tmp_path):
    for step in range(3 * STEPS):
        interrupted(tmp_path, step)
    trained(tiny(), tmp_path)
    assert same(tmp_path, undisturbed)


@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_an_evaluation_is_interrupted_at_once_and_done_again(undisturbed, tmp_path, epoch):
    class Impatient(trainer.Trainer):
        def _evaluation(self, objective, at):
            rows = super()._evaluation(objective, at)
            if at == epoch:
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("the signal was not obeyed")
            return rows

    with pytest.raises(KeyboardInterrupt):
        trained(tiny(), tmp_path, Impatient)
    assert (tmp_path / "checkpoint.pt").exists() == (epoch > 0)
    trained(tiny(), tmp_path)
    assert same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("error", "every", "saved"), [(MemoryError, 1, STEPS), (KeyboardInterrupt, 1, STEPS), (MemoryError, 2, 0)]
)
def test_an_error_in_the_middle_of_a_step_goes_on_from_the_last_checkpoint(undisturbed, tmp_path, error, every, saved):
    class Broken(trainer.Trainer):
        def _train_step(self, samples, epoch):
            super()._train_step(samples, epoch)
            # Weights, step and table do not belong together here.
            if self.step == 8:
                raise error

    config = tiny(train__save_every=every)
    with pytest.raises(error):
        trained(config, tmp_path, Broken)
    assert state(tmp_path / "checkpoint.pt")["step"] == saved
    trained(config, tmp_path)
    assert same(tmp_path, undisturbed)


def test_the_one_before_is_kept(undisturbed):
    last, before = (state(undisturbed / name) for name in ("checkpoint.pt", "checkpoint-previous.pt"))
    assert (last["step"], before["step"]) == (3 * STEPS, 2 * STEPS)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


def of_another_program(content: bytes) -> bytes:
    return sealed({"model": torch.zeros(3)})


def of_another_seed(content: bytes) -> bytes:
    return sealed({**torch.load(io.BytesIO(content), weights_only=True), "config": {"train": {"seed": 1}}})


def of_a_strange_place(content: bytes) -> bytes:
    return sealed({**torch.load(io.BytesIO(content), weights_only=True), "rows": -1})


DAMAGE = {
    truncated: "no checksum at its end",
    changed: "its checksum does not fit",
    emptied: "no checksum at its end",
    of_another_program: "holds no 'config'",
    of_another_seed: "belongs to another run",
    of_a_strange_place: "its 'rows' is -1: another program or version wrote it",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_used_is_named_and_the_one_before_is(undisturbed, tmp_path, caplog, damage):
    interrupted(tmp_path, 7)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        trained(tiny(), tmp_path)
    (line,) = caplog.messages
    assert line.startswith(f"checkpoint '{path}' is refused: ")
    assert DAMAGE[damage] in line
    assert line.endswith("; going on from checkpoint-previous.pt at step 5")
    assert same(tmp_path, undisturbed)


def test_a_checkpoint_that_the_disk_does_not_give_back_is_named_as_such(undisturbed, tmp_path, caplog):
    interrupted(tmp_path, 7)
    path = tmp_path / "checkpoint.pt"
    path.unlink()
    path.mkdir()
    trained(tiny(), tmp_path)
    assert caplog.messages[0].startswith(f"checkpoint '{path}' is refused: it cannot be read: Is a directory; going on")
    assert same(tmp_path, undisturbed)


@pytest.mark.parametrize("damage", DAMAGE)
def test_where_none_can_be_used_each_is_named_and_nothing_is_lost(tmp_path, damage):
    interrupted(tmp_path, 7)
    paths = [tmp_path / name for name in ("checkpoint.pt", "checkpoint-previous.pt")]
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pt", ".csv")}
    with pytest.raises(InputError, match=r"checkpoint.pt' is refused.*previous.pt' is refused.*--overwrite starts"):
        trained(tiny(), tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pt", ".csv")}


def test_a_refused_checkpoint_never_takes_the_place_of_the_good_one_before(undisturbed, tmp_path):
    interrupted(tmp_path, 7)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(truncated(path.read_bytes()))
    with Run(tmp_path, tiny()) as run:
        assert run.resume(torch.device("cpu"))["step"] == STEPS
        # As a crash between the two renames of the next checkpoint would leave it.
        assert not path.exists()
        assert (tmp_path / "checkpoint-refused.pt").exists()
    trained(tiny(), tmp_path)
    assert same(tmp_path, undisturbed)


def test_a_crash_between_the_renames_loses_nothing(undisturbed, tmp_path, caplog):
    interrupted(tmp_path, 7)
    (tmp_path / "checkpoint.pt").rename(tmp_path / "checkpoint-previous.pt")
    trained(tiny(), tmp_path)
    assert "checkpoint.pt' is missing; going on from checkpoint-previous.pt at step 8" in caplog.text
    assert same(tmp_path, undisturbed)


def test_a_half_written_file_is_never_read(undisturbed, tmp_path):
    interrupted(tmp_path, 7)
    for name in ("checkpoint.pt", "status.json", "config.json", "environment.json"):
        (tmp_path / f"{name}.partial").write_bytes(b"half")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("8,2,train,projector,std,0,0.1\n9,2,tra")
    with (tmp_path / "timing.csv").open("a") as file:
        file.write("2,0.0")
    trained(tiny(), tmp_path)
    assert same(tmp_path, undisturbed)
    assert all(line.count(",") == 2 for line in (tmp_path / "timing.csv").read_text().splitlines())


def test_a_table_that_was_cut_behind_the_runs_back_is_no_basis(tmp_path):
    interrupted(tmp_path, 7)
    (tmp_path / "metrics.csv").write_text("step,epoch,source,layer,metric,index,value\n")
    with pytest.raises(InputError, match=r"it follows [\d,]+ bytes of '.*metrics.csv', which has only 43"):
        trained(tiny(), tmp_path)


def test_other_images_under_the_same_name_do_not_go_on_with_this_run(tmp_path, monkeypatch):
    interrupted(tmp_path, 7)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    images = load(tiny().data)
    train = images.train.clone()
    train[3, 0, 2, 2] ^= 1
    monkeypatch.setattr("tiny.load", lambda config: replace(images, train=train))
    with pytest.raises(InputError, match="was begun on other images than 'digits.*' now has: bring them back"):
        trained(tiny(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"\xff\xfe" * 40_000, b"a,b\n1,2\n" * 9_000])
def test_a_damaged_table_is_refused_by_name(tmp_path, content):
    interrupted(tmp_path, 7)
    (tmp_path / "metrics.csv").write_bytes(content)
    for read in (final_values, train_readings):
        with pytest.raises(
            InputError, match=r"table '.*metrics.csv' (is damaged|has columns a,b; expected step,epoch)"
        ):
            read(tmp_path)
    with pytest.raises(InputError, match="metrics.csv"):
        trained(tiny(), tmp_path)


def test_a_damaged_record_is_refused_by_name(tmp_path):
    interrupted(tmp_path, 7)
    for name, content in (("status.json", "[1]"), ("environment.json", "{}"), ("config.json", "[" * 100_000)):
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=f"{name}' is damaged"):
            trained(tiny(), tmp_path)
        (tmp_path / name).write_text(before)


# solo-learn's auto-resume compared neither the seed nor the augmentations nor the settings of the method.


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"train__seed": 1}, "train.seed: 0 against 1"),
        ({"augment__flip": 0.5}, "augment.flip: 0.0 against 0.5"),
        ({"network__predictor_hidden": 4}, "network.predictor_hidden: 8 against 4"),
        ({"train__epochs": 2}, "train.epochs: 3 against 2"),
    ],
)
def test_solo_learns_bug_another_seed_or_augmentation_does_not_resume_this_run(tmp_path, overrides, named):
    interrupted(tmp_path, 7)
    with pytest.raises(InputError, match=f"another configuration .*{named}.*--overwrite"):
        trained(tiny(**overrides), tmp_path)


def test_solo_learns_bug_nor_does_a_checkpoint_that_was_copied_from_another_seed(undisturbed, tmp_path):
    interrupted(tmp_path / "one", 7, tiny(train__seed=1))
    interrupted(tmp_path / "two", 7)
    for name in ("checkpoint.pt", "checkpoint-previous.pt", "metrics.csv"):
        shutil.copy(tmp_path / "one" / name, tmp_path / "two" / name)
    with pytest.raises(InputError, match=r"belongs to another run \(train.seed: 1 against 0\)"):
        trained(tiny(), tmp_path / "two")


def test_lightly_trains_bug_the_learning_rate_goes_on_where_it_was(tmp_path):
    rates: list[list[float]] = [[], []]

    def noting(into: list[float], base: type[trainer.Trainer]) -> type[trainer.Trainer]:
        class Noting(base):
            def _train_step(self, samples, epoch):
                super()._train_step(samples, epoch)
                into.extend(group["lr"] for group in self.optimizer.param_groups)

        return Noting

    config = tiny(train__warmup_epochs=1)
    trained(config, tmp_path / "one", noting(rates[0], trainer.Trainer))
    with pytest.raises(KeyboardInterrupt):
        trained(config, tmp_path / "two", noting(rates[1], signalled(7)))
    trained(config, tmp_path / "two", noting(rates[1], trainer.Trainer))
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > STEPS


@pytest.mark.parametrize("step", [0, 3, 2 * STEPS - 1])
def test_in_the_warm_up_epochs_can_be_added_and_the_run_is_one_of_so_many(tmp_path, step):
    short, long = tiny(train__warmup_epochs=2), tiny(train__epochs=4, train__warmup_epochs=2)
    interrupted(tmp_path / "grown", step, short)
    assert trained(long, tmp_path / "grown")["state"] == "done"
    trained(long, tmp_path / "long")
    assert same(tmp_path / "grown", tmp_path / "long")
    assert (tmp_path / "grown" / "config.json").read_text() == (tmp_path / "long" / "config.json").read_text()


@pytest.mark.parametrize("warmup", [0, 2])
def test_after_the_warm_up_a_run_cannot_become_a_longer_one(undisturbed, tmp_path, warmup):
    config = tiny(train__warmup_epochs=warmup)
    interrupted(tmp_path, warmup * STEPS, config)
    for directory, found in ((tmp_path, config), (undisturbed, tiny())):
        with pytest.raises(
            InputError, match=r"train.epochs: 3 against 5\).* schedule of 3 epochs.*before the warm-up ends"
        ):
            trained(tiny(train__warmup_epochs=found.train.warmup_epochs, train__epochs=5), directory)
    assert trained(config, tmp_path)["state"] == "done"


def test_opening_a_directory_for_more_epochs_changes_nothing_yet(tmp_path):
    config = tiny(train__warmup_epochs=2)
    interrupted(tmp_path, 3, config)
    with Run(tmp_path, tiny(train__epochs=4, train__warmup_epochs=2)):
        pass
    assert trained(config, tmp_path)["state"] == "done"


def test_the_healthy_checkpoint_and_the_alarm_are_those_of_the_undisturbed_run(tmp_path):
    config = tiny(train__epochs=18, monitor__every=1, monitor__on_collapse="warn")
    one, two = tmp_path / "one", tmp_path / "two"
    whole = trained(config, one, Collapsing)
    assert (whole["alarm"]["layer"], whole["healthy_checkpoint"]) == ("projector", "checkpoint-healthy.pt")
    assert state(one / "checkpoint-healthy.pt")["step"] <= whole["alarm"]["onset"][1]
    for step in (31, 62, 66, 80):
        interrupted(two, step, config, Collapsing)
    assert trained(config, two, Collapsing) == whole
    assert same(one, two)
    healthy = [weights(directory, "checkpoint-healthy.pt") for directory in (one, two)]
    assert healthy[0].keys() == healthy[1].keys()
    assert all(torch.equal(healthy[0][key], healthy[1][key]) for key in healthy[0])


def test_a_resumed_run_that_ignores_collapse_says_nothing_of_it(tmp_path):
    config = tiny(train__epochs=18, monitor__every=1)
    interrupted(tmp_path, 80, config, Collapsing)
    assert Alarm().update(Reading(*row) for row in train_readings(tmp_path))
    assert "alarm" not in trained(config, tmp_path, Collapsing)


def test_the_alarm_hears_the_values_of_the_table(tmp_path):
    heard = []

    class Overheard(trainer.Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alarm = self.alarm._alarm
            update = alarm.update
            alarm.update = lambda readings: update(heard.extend(found := list(readings)) or found)

    trained(tiny(monitor__on_collapse="warn"), tmp_path, Overheard)
    assert [tuple(reading) for reading in heard if reading.metric == "rankme"] == [
        row for row in train_readings(tmp_path) if row[2] == "rankme"
    ]


def test_overwrite_removes_all_that_a_run_leaves(tmp_path):
    interrupted(tmp_path, 7)
    for name in ("checkpoint-refused.pt", "checkpoint.pt.partial", "traceback.txt", "traceback-rank1.txt"):
        (tmp_path / name).touch()
    with Run(tmp_path, tiny(train__seed=1), overwrite=True):
        assert {path.name for path in tmp_path.iterdir()} <= {"config.json", "lock"}
