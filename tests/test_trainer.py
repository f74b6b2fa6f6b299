"""A run repeats to the byte, resumes to the byte, and ends honestly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from collapse_lab import data, trainer
from collapse_lab.config import build
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.evaluate import calibrated, clean, evaluate, outputs, pixel_baselines
from collapse_lab.machine import pick_device
from collapse_lab.methods import method
from collapse_lab.monitors import STANDARD
from collapse_lab.objective import build_objective
from collapse_lab.optimisation import schedule
from collapse_lab.preflight import check
from collapse_lab.presets import DATA
from collapse_lab.run_records import final_values
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.trainer import Progress, train

SIZE = (8, 8)
SHORT = {"train.epochs": 4, "train.batch": 64, "data.train_images": 320, "monitor.evaluate_every": 2}


def short(name: str = "simsiam", **overrides: object) -> Config:
    extra = {key.replace("__", "."): value for key, value in overrides.items()}
    return build(name, DATA["digits"], method(name).settings, SHORT, extra)


def ignore(progress: Progress) -> None:
    assert progress.step <= progress.steps


def trained(config: Config, directory: Path, report=ignore) -> dict:
    with Run(directory, config) as run:
        return train(config, run, data.load(config.data), report)


@pytest.fixture(scope="module")
def digits() -> Images:
    return data.load(short().data)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("reference")
    assert trained(short(), directory)["state"] == "done"
    return directory


def table(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "metrics.csv", keep_default_na=False)


def test_the_same_command_writes_the_same_bytes(reference, tmp_path):
    trained(short(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def test_another_seed_writes_others(reference, tmp_path):
    trained(short(train__seed=1), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() != (reference / "metrics.csv").read_bytes()


@pytest.mark.parametrize("last", [3, 7, 11])
def test_interrupted_and_resumed_equals_undisturbed_to_the_byte(reference, tmp_path, last):
    def stop(progress: Progress) -> None:
        if progress.step >= last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(short(), tmp_path, stop)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "interrupted"
    assert trained(short(), tmp_path)["state"] == "done"
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()
    weights = [torch.load(d / "checkpoint.pt", weights_only=True)["objective"] for d in (tmp_path, reference)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_line_cut_short_by_a_crash_is_dropped_on_resume(reference, tmp_path):
    def stop(progress: Progress) -> None:
        if progress.step >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(short(), tmp_path, stop)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("6,2,train,projector,std,0,0.1\n7,2,train,proj")
    trained(short(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def test_a_finished_run_is_left_as_it_is(reference):
    before = (reference / "metrics.csv").stat().st_mtime_ns
    assert trained(short(), reference)["state"] == "done"
    assert (reference / "metrics.csv").stat().st_mtime_ns == before


def test_what_is_recorded(reference):
    recorded = table(reference)
    assert list(recorded.columns) == ["step", "epoch", "source", "layer", "metric", "index", "value"]
    train_rows = recorded[recorded["source"] == "train"]
    assert set(train_rows["layer"]) == {"", "backbone", "projector", "predictor"}
    assert sorted(set(train_rows[train_rows["metric"] == "loss"]["step"])) == [5, 10, 15, 20]
    projector = train_rows[train_rows["layer"] == "projector"]
    assert set(projector["metric"]) == {*(statistic.name for statistic in (*STANDARD, *trainer.AT_EPOCH_END))}
    probes = recorded[recorded["source"] == "probe"]
    assert sorted(set(probes[probes["metric"] == "knn"]["epoch"])) == [0, 2, 4]
    assert sorted(set(probes[probes["metric"] == "linear"]["epoch"])) == [0, 4]
    assert set(recorded[recorded["source"] == "eval"]["epoch"]) == {0, 2, 4}
    values = final_values(reference)
    last = train_rows[(train_rows["epoch"] == 4) & (train_rows["metric"] == "loss")]["value"].mean()
    assert values["loss"] == pytest.approx(last)
    protocol = probes[probes["metric"].isin(["k", "temperature"])].groupby("metric")["value"].unique()
    assert protocol["k"].tolist() == [20]
    assert protocol["temperature"].tolist() == [0.1]
    (environment,) = json.loads((reference / "environment.json").read_text())["starts"]
    assert environment["threads"] == 1
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]


def test_arms_of_one_seed_share_their_start(reference, tmp_path):
    trained(short("no-predictor"), tmp_path)
    one, other = (
        recorded[(recorded["source"] == "probe") & (recorded["epoch"] == 0)].reset_index(drop=True)
        for recorded in (table(reference), table(tmp_path))
    )
    pd.testing.assert_frame_equal(one, other)


def test_a_loss_that_is_not_finite_ends_the_run_as_failed_and_diverged(tmp_path):
    config = short(objective__loss="mse", train__base_lr=1e9)
    status = trained(config, tmp_path)
    assert status["state"] == "failed"
    assert status["verdict"] == "diverged"
    assert f"at step {status['step']}" in status["error"]
    assert 1 <= status["step"] <= 10
    assert trained(config, tmp_path) == status


class Breaking(trainer.Trainer):
    """Loses the stop-gradient and the predictor's use after step 80."""

    def _train_step(self, samples, epoch):
        if self.step == 80:
            self.objective.stop_gradient = "none"
            self.objective.predictor.forward = lambda z: z
        super()._train_step(samples, epoch)


def broken(directory: Path, monkeypatch, on_collapse: str) -> tuple[dict, list]:
    monkeypatch.setattr(trainer, "Trainer", Breaking)
    alerts = []
    config = short(train__epochs=24, monitor__every=1, monitor__evaluate_every=24, monitor__on_collapse=on_collapse)
    status = trained(config, directory, lambda p: alerts.extend([p.alert] if p.alert else []))
    return status, alerts


def test_on_stop_the_checkpoint_from_before_the_collapse_is_kept_and_named(tmp_path, monkeypatch):
    status, _ = broken(tmp_path, monkeypatch, "stop")
    assert status["state"] == "stopped"
    assert 80 < status["step"] == status["alarm"]["step"] < 105
    assert status["alarm"]["onset"][0] <= 80
    assert status["healthy_checkpoint"] == "checkpoint-healthy.pt"
    kept = torch.load(tmp_path / "checkpoint-healthy.pt", weights_only=True)
    assert kept["step"] <= status["alarm"]["onset"][1] <= status["step"]
    assert table(tmp_path)["step"].max() == status["step"]
    assert status["verdict"] != "healthy"
    assert (
        trained(
            short(train__epochs=24, monitor__every=1, monitor__evaluate_every=24, monitor__on_collapse="stop"), tmp_path
        )
        == status
    )


def test_on_warn_the_run_goes_on_and_ignoring_leaves_no_trace(tmp_path, monkeypatch):
    warned, alerts = broken(tmp_path / "warn", monkeypatch, "warn")
    assert warned["state"] == "done"
    assert warned["verdict"] != "healthy"
    assert warned["alarm"]["layer"] == alerts[0].layer
    ignored, alerts = broken(tmp_path / "ignore", monkeypatch, "ignore")
    assert ("alarm" in ignored, alerts) == (False, [])
    assert not (tmp_path / "ignore" / "checkpoint-healthy.pt").exists()
    tables = [(tmp_path / mode / "metrics.csv").read_bytes() for mode in ("warn", "ignore")]
    assert tables[0] == tables[1]


def test_a_run_whose_few_rows_carry_all_variance_is_named_outlier_collapse(digits, tmp_path):
    kept = (torch.arange(len(digits.train)) % 64 == 0).to(torch.uint8).view(-1, 1, 1, 1)
    config = short(network__projector_output_norm="affine", train__epochs=12, monitor__evaluate_every=12)
    with Run(tmp_path, config) as run:
        status = train(config, run, replace(digits, train=digits.train * kept), ignore)
    assert status["verdict"] == "outlier-collapse"


def test_weights_that_overflow_at_the_end_of_an_epoch_are_divergence_too(tmp_path):
    config = short(
        objective__loss="mse", train__base_lr=1e30, train__epochs=1, train__batch=320, monitor__evaluate_every=1
    )
    status = trained(config, tmp_path)
    assert (status["state"], status["verdict"], status["error"]) == (
        "failed",
        "diverged",
        "the features were not finite at step 1",
    )
    assert set(table(tmp_path)["step"]) == {0, 1}


def test_readings_before_a_divergence_are_kept(tmp_path):
    config = short(objective__loss="mse", train__base_lr=1e9, monitor__every=1)
    step = trained(config, tmp_path)["step"]
    assert step > 1
    losses = table(tmp_path).query("metric == 'loss'")["step"]
    assert losses.tolist() == list(range(1, step))


def test_an_unexpected_error_leaves_a_run_that_can_be_resumed(reference, tmp_path):
    def fail(progress: Progress) -> None:
        if progress.step >= 7:
            raise MemoryError("no room")

    with pytest.raises(MemoryError):
        trained(short(), tmp_path, fail)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["error"]) == ("interrupted", "MemoryError: no room")
    trained(short(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


@pytest.mark.parametrize("name", ["config.json", "status.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    def stop(progress: Progress) -> None:
        if progress.step >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(short(), tmp_path, stop)
    damaged = tmp_path / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(InputError, match=f"{name}' is damaged .* --overwrite starts"):
        trained(short(), tmp_path)


def test_an_empty_table_counts_as_none(reference, tmp_path):
    (tmp_path / "metrics.csv").touch()
    trained(short(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def test_evaluation_sees_images_of_the_size_of_a_view(tmp_path, digits):
    assert clean(digits.test[:2], (16, 16)).shape == (2, 1, 16, 16)
    torch.testing.assert_close(clean(digits.test, SIZE), digits.test.float() / 255)
    trained(short(augment__size=16, train__epochs=1), tmp_path)
    assert final_values(tmp_path)["knn"] > 0.5


def test_no_epochs_only_evaluate_the_start(tmp_path):
    status = trained(short(train__epochs=0), tmp_path)
    assert (status["state"], status["verdict"]) == ("done", None)
    assert set(table(tmp_path)["epoch"]) == {0}


def test_another_configuration_is_refused_by_field_and_overwritten_on_request(tmp_path):
    with Run(tmp_path, short()):
        pass
    with pytest.raises(InputError, match="train.epochs: 4 against 3.*--overwrite"):
        Run(tmp_path, short(train__epochs=3))
    with Run(tmp_path, short(train__epochs=3), overwrite=True) as run:
        assert run.status()["state"] == "new"


def test_a_directory_in_use_is_refused(tmp_path):
    with Run(tmp_path, short()), pytest.raises(InputError, match="in use by another process"):
        Run(tmp_path, short())


def test_batch_and_k_must_fit_the_data(digits):
    with pytest.raises(InputError, match="train.batch: found 321, the training images are only 320"):
        check(short(train__batch=321), digits)
    with pytest.raises(InputError, match="monitor.k: found 400, the bank has only 320"):
        check(short(monitor__k=400), digits)


def test_a_linear_probe_needs_two_classes(digits):
    alike = replace(digits, train_labels=torch.zeros_like(digits.train_labels))
    with pytest.raises(InputError, match="monitor.probe: found true, the training labels are of one class"):
        check(short(), alike)
    check(short(monitor__probe=False), alike)


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert pick_device(short(train__device="cuda").train).type == "cuda"
    else:
        with pytest.raises(InputError, match="train.device: found 'cuda'"):
            pick_device(short(train__device="cuda").train)


def test_schedule_warms_up_and_falls_as_a_cosine():
    factors = [schedule(step, 100, 10) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert all(a > b for a, b in zip(factors[10:], factors[11:], strict=False))


@pytest.mark.parametrize(("predictor_lr", "expected"), [("constant", 0.05), ("decayed", 0.05 * schedule(7, 20, 0))])
def test_the_predictors_rate_is_constant_or_decays(tmp_path, predictor_lr, expected):
    config = short(train__predictor_lr=predictor_lr)
    with Run(tmp_path, config) as run:
        loop = trainer.Trainer(config, run, data.load(config.data), ignore)
        loop.step = 7
        loop._train_step(torch.arange(64), 2)
    encoder, predictor = (group["lr"] for group in loop.optimizer.param_groups)
    assert encoder == pytest.approx(0.05 * schedule(7, 20, 0))
    assert predictor == pytest.approx(expected)


@pytest.mark.parametrize("overrides", [{"train__precision": "bfloat16"}, {"train__channels_last": True}])
def test_precision_and_layout_change_numbers_a_little(reference, tmp_path, overrides):
    trained(short(**overrides), tmp_path)
    losses = [final_values(directory)["loss"] for directory in (reference, tmp_path)]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    assert losses[0] != losses[1]


def test_calibration_is_the_average_over_the_images_and_touches_no_original(digits):
    config = short()
    mean, std = data.statistics(digits.train)
    original = build_objective(config, mean, std, 8, 1437)
    # Two chunks, whose naive split would be 512 and 2.
    images = torch.cat([digits.train, digits.train])[:514]
    copied = calibrated(original, images, SIZE)
    assert original.encoder.backbone[1][0][1].running_mean.abs().sum() == 0
    first = copied.encoder.backbone[1][0]
    convolved = first[0](copied.encoder.backbone[0](images.float() / 255))
    torch.testing.assert_close(first[1].running_mean, convolved.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first[1].running_var, convolved.var((0, 2, 3)), rtol=2e-2, atol=1e-5)
    at_start = outputs(original, digits.test, SIZE)["projector"]
    assert outputs(copied, digits.test, SIZE)["projector"].std(0).mean() > 5 * at_start.std(0).mean()


def test_evaluation_uses_every_image_and_eval_mode(digits):
    config = short()
    mean, std = data.statistics(digits.train)
    objective = calibrated(build_objective(config, mean, std, 8, 1437), digits.train, SIZE)
    whole = outputs(objective, digits.test, SIZE)
    alone = outputs(objective, digits.test[:1], SIZE)
    assert whole["projector"].shape == (360, 128)
    torch.testing.assert_close(whole["projector"][:1], alone["projector"], rtol=1e-4, atol=1e-6)
    assert objective.training
    values = {(v.layer, v.metric): v.value for v in evaluate(objective, digits, config.monitor, SIZE, linear=True)}
    assert 0.8 < values["backbone", "knn"] <= 1
    assert 0.8 < values["backbone", "linear"] <= 1


def test_pixel_baselines_are_those_of_scikit_learn(digits):
    from sklearn.neighbors import KNeighborsClassifier

    config = short()
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
    reference.fit(digits.train.flatten(1).numpy() / 255, digits.train_labels.numpy())
    expected = reference.score(digits.test.flatten(1).numpy() / 255, digits.test_labels.numpy())
    assert pixel_baselines(digits, config.monitor)["knn"] == pytest.approx(expected, abs=1e-9)
