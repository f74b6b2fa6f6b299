"""``collapse-lab evaluate``: equal to what the run recorded, repeatable to the byte, and one line for whatever is wrong."""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from collapse_lab import cli, data, snapshots
from collapse_lab.config import build
from collapse_lab.errors import InputError
from collapse_lab.evaluation import results
from collapse_lab.feature_choice import feature_choice
from collapse_lab.methods import method
from collapse_lab.presets import DATA
from collapse_lab.recipes import FINETUNE, KINDS, Request
from collapse_lab.restored import restored
from collapse_lab.runs import Run
from collapse_lab.settings import Config, DataConfig
from collapse_lab.trainer import train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CIFAR = SHARED / "cifar10-jpeg" / "cifar10_lossless_part.npz"
FASHION = SHARED / "fashion-mnist"
CLOTHING = SHARED / "clothing-10"
SHORT = {"train.epochs": 2, "train.batch": 64, "data.train_images": 320, "monitor.evaluate_every": 2}
ALL = ["--features", ",".join(KINDS), "--views", "4"]
PAPER = ["--linear-paper", "sgd", "--linear-paper", "larc", "--linear.epochs", "2", "--linear.batch", "64"]


def trained(config: Config, directory: Path, images: data.Images | None = None) -> Path:
    with Run(directory, config) as run:
        train(config, run, images or data.load(config.data), lambda progress: None)
    return directory


def short(name: str = "simsiam", preset: str = "digits", **overrides: object) -> Config:
    extra = {key.replace("__", "."): value for key, value in overrides.items()}
    return build(name, DATA[preset], method(name).overrides, SHORT, extra)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return trained(short(), tmp_path_factory.mktemp("study") / "simsiam" / "seed0")


@pytest.fixture
def command(monkeypatch, capfd) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Exit code, standard output and standard error of the command line, in this process."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["collapse-lab", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capfd.readouterr()

    before = signal.getsignal(signal.SIGTERM)
    yield called
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refusal(command) -> Callable[..., str]:
    def refused(*arguments: object) -> str:
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        return line

    return refused


def accuracies(document: dict) -> dict[tuple[str, str, str, str], float]:
    keys = ("network", "layer", "feature", "classifier")
    return {tuple(result[key] for key in keys): result["accuracy"] for result in document["results"]}


def test_the_clean_features_of_end_and_start_read_what_the_run_recorded(run, command):
    code, out, err = command(run, "--json")
    document = json.loads(out)
    assert code == 0
    assert document == json.loads((run / "evaluation.json").read_text())
    assert len(err.splitlines()) == len(document["results"]) == 10
    found = accuracies(document)
    for network, epoch in (("start", 0), ("trained", 2)):
        recorded = probes(run, epoch)
        for layer in ("backbone", "projector"):
            assert found[network, layer, "clean", "knn"] == pytest.approx(recorded[layer, "knn"], abs=1e-9)
        assert found[network, "backbone", "clean", "linear-fast"] == pytest.approx(
            recorded["backbone", "linear"], abs=1e-9
        )


def probes(run: Path, epoch: int) -> pd.Series:
    table = pd.read_csv(run / "metrics.csv", keep_default_na=False)
    return table[(table["source"] == "probe") & (table["epoch"] == epoch)].set_index(["layer", "metric"])["value"]


@pytest.mark.parametrize("start", [{"network__start": "near-constant"}, {"train__start": "simsiam"}])
def test_the_start_is_where_the_run_began_whatever_the_seed_gave(run, start):
    directory = trained(short(train__epochs=1, **start), run.parents[1] / next(iter(start)) / "seed0")
    found = next(one for one in results(restored(directory), Request()) if one[1:3] == ("start", "projector"))
    recorded = probes(directory, 0)
    assert (found.classifier, found.accuracy) == ("knn", pytest.approx(recorded["projector", "knn"], abs=1e-9))
    assert recorded["projector", "knn"] != probes(run, 0)["projector", "knn"]


def test_each_number_has_its_protocol_and_every_byte_repeats(run, command, tmp_path):
    documents = []
    for name in ("one.json", "two.json"):
        code, out, _ = command(run, *ALL, *PAPER, "--no-baselines", "--out", tmp_path / name)
        assert code == 0
        documents.append((tmp_path / name).read_bytes())
    assert documents[0] == documents[1]
    document = json.loads(documents[0])
    assert [document[name] for name in ("method", "seed", "state", "step", "threads")] == ["simsiam", 0, "done", 10, 1]
    assert len(document["results"]) == 3 * 2 * 2 + 2
    for result in document["results"]:
        assert 0 <= result["accuracy"] <= 1
        assert result["protocol"]["queries"] == 360
        assert f"{100 * result['accuracy']:.2f}" in out
    protocols = {(result["classifier"], result["feature"]): result["protocol"] for result in document["results"]}
    assert protocols["knn", "clean"]["k"] == 20
    assert protocols["knn", "clean"]["views"] is None
    assert protocols["knn", "mean-input"]["views"] == 4
    assert protocols["linear-fast", "clean"]["penalty"] in (0.001, 0.01, 0.1)
    assert protocols["linear-fast", "clean"]["penalty_is"] == "best of 0.001, 0.01, 0.1 on every 5th training row"
    sgd, larc = (protocols[f"linear-paper-{name}", "augmented views"] for name in ("sgd", "larc"))
    assert (sgd["optimizer"], sgd["rate"], sgd["epochs"], sgd["batch"], sgd["momentum"]) == ("SGD", 7.5, 2, 64, 0.9)
    assert (larc["optimizer"], larc["rate"], larc["trust"], larc["weight_decay"]) == ("LARS", 0.025, 0.001, 0.0)
    # The digits are not flipped by their preset.
    assert (sgd["flip"], sgd["crop_scale"], sgd["accuracy_of"]) == (0.0, [0.08, 1.0], "last epoch")


def test_the_measure_of_a_study_is_the_same_numbers(run, command):
    _, out, _ = command(run, *ALL, "--no-baselines", "--json")
    found = accuracies(json.loads(out))
    measured = feature_choice(run, data.load(short().data), views=4)
    assert len(measured) == len(found) == 12
    assert measured["knn_clean"] == found["trained", "backbone", "clean", "knn"]
    assert measured["linear_fast_mean_input"] == found["trained", "backbone", "mean-input", "linear-fast"]
    assert measured["knn_mean_output_projector"] == found["trained", "projector", "mean-output", "knn"]


def test_k_temperature_and_penalty_are_the_callers(run, command):
    _, out, _ = command(run, "--k", 1, "--temperature", 0.5, "--penalty", 0.2, "--no-baselines", "--json")
    knn, linear = (result["protocol"] for result in json.loads(out)["results"][:2])
    assert (knn["k"], knn["temperature"], linear["penalty"]) == (1, 0.5, 0.2)
    assert linear["penalty_is"] == "given"


def test_transfer_and_fine_tuning_on_images_of_another_colour(run, command, tmp_path):
    digits = data.load(DataConfig("digits", train_images=200))
    grey = {f"{name}_images": getattr(digits, name).permute(0, 2, 3, 1) for name in ("train", "test")}
    labels = {"train_labels": digits.train_labels.numpy(), "test_labels": digits.test_labels.numpy()}
    np.savez(tmp_path / "rgb.npz", **{key: images.repeat(1, 1, 1, 3).numpy() for key, images in grey.items()}, **labels)
    tuning = ["--finetune", "--finetune.epochs", 3, "--finetune.batch", 50, "--finetune.rate", 0.4]
    code, out, _ = command(run, "--transfer", tmp_path / "rgb.npz", *tuning, "--json")
    assert code == 0
    others = [result for result in json.loads(out)["results"] if result["data"] == "rgb"]
    assert [result["classifier"] for result in others] == ["knn", "linear-fast"] * 3 + ["finetune"] * 2
    assert others[4]["protocol"]["width"] == 3 * 64
    assert others[4]["protocol"]["input"] == json.loads(out)["transfer"]["image"] == [3, 8, 8]
    assert others[0]["protocol"]["input"] == others[6]["protocol"]["input"] == [1, 8, 8]
    found = accuracies({"results": others})
    # Three equal channels are grey again, so the encoder sees the digits themselves.
    expected = accuracies_on(run, digits, Request(baselines=False))
    assert len(expected) == 2
    assert {key: found[key] for key in expected} == expected
    assert found["trained", "backbone", "augmented views", "finetune"] > 0.2


def accuracies_on(run: Path, images: data.Images, request: Request) -> dict:
    """What a request reads on images to transfer to."""
    found = [result._asdict() for result in results(restored(run), request, images)]
    return accuracies({"results": [result for result in found if result["data"] == images.name]})


def test_an_unfinished_run_is_refused_unless_its_last_checkpoint_is_asked_for(run, command, refusal, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    status = json.loads((run / "status.json").read_text())
    (copied / "status.json").write_text(json.dumps({**status, "state": "interrupted", "step": 7}))
    line = refusal(copied)
    assert "is not at its end (interrupted at step 7)" in line
    assert "--last-checkpoint evaluates what it saved last" in line
    code, out, _ = command(copied, "--last-checkpoint", "--no-baselines", "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["step"]) == (0, "interrupted", 10)


def test_a_run_that_diverged_says_so(refusal, tmp_path):
    directory = trained(short(objective__loss="mse", train__base_lr=1e9), tmp_path)
    assert "diverged: " in (line := refusal(directory))
    assert "at step" in line
    with pytest.raises(InputError, match="diverged"):
        feature_choice(directory, data.load(short().data))


def test_what_is_no_finished_run_is_refused(run, refusal, tmp_path):
    assert "is no directory" in refusal(tmp_path / "nowhere")
    line = refusal(run.parents[1])
    assert "has no config.json; it is a study, its runs are " in line
    assert "simsiam/seed0" in line
    assert refusal(run.parent).endswith("has no config.json; it is an arm, its runs are seed0")
    assert "has no config.json; a run is made by `collapse-lab train`" in refusal(tmp_path)
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    whole = (copied / "checkpoint.pt").read_bytes()
    (copied / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    assert "checkpoint.pt' cannot be read" in refusal(copied)
    (copied / "checkpoint.pt").unlink()
    assert "has no checkpoint.pt: nothing was saved" in refusal(copied)


def test_a_checkpoint_that_would_run_code_or_fits_another_network_is_refused(run, refusal, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    state = snapshots.read(run / "checkpoint.pt", torch.device("cpu"))
    (copied / "checkpoint.pt").write_bytes(snapshots.sealed({**state, "more": Path()}))
    assert "cannot be read" in refusal(copied)
    del state["objective"]["encoder.projector.0.weight"]
    (copied / "checkpoint.pt").write_bytes(snapshots.sealed(state))
    assert "does not fit its config.json" in refusal(copied)


def test_images_that_are_not_the_runs_are_refused(run):
    digits = data.load(short().data)
    with pytest.raises(InputError, match=r"are not those that run .* was trained on: channel mean 0\.\d+ against 0\.3"):
        restored(run, replace(digits, train=digits.train // 2))
    with pytest.raises(InputError, match="are not those"):
        restored(run, replace(digits, train=digits.train.repeat(1, 3, 1, 1)))


def test_one_class_is_nothing_to_classify(run, refusal, tmp_path):
    images, labels = np.zeros((30, 8, 8, 1), dtype=np.uint8), np.zeros(30, dtype=np.int64)
    np.savez(tmp_path / "one.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    assert "'one' has one class, 0; a classifier needs at least two" in refusal(run, "--transfer", tmp_path / "one.npz")


def test_flags_that_cannot_be_meant_are_refused(run, refusal, tmp_path):
    assert "--features: found 'mean'; expected some of clean, mean-input, mean-output" in refusal(
        run, "--features", "clean,mean"
    )
    assert "--k: found 400, 'digits, 320 of 1,437 training images' has only 320" in refusal(run, "--k", 400)
    assert "--linear.batch: found 4096 for lars" in refusal(run, "--linear-paper", "lars")
    assert "belong to --linear-paper" in refusal(run, "--linear.epochs", 3)
    assert "belong to --finetune" in refusal(run, "--finetune.epochs", 3)
    assert "--finetune: no images; --transfer names" in refusal(run, "--finetune")
    assert "--data.root: belongs to --transfer" in refusal(run, "--data.root", tmp_path)
    assert "--transfer: found 'nothing', which does not exist" in refusal(run, "--transfer", "nothing")
    assert "Missing argument 'RUN'" in refusal()
    assert "--temperature: found nan; expected a positive number" in refusal(run, "--temperature", "nan")
    assert f"--out: folder '{tmp_path / 'no'}' does not exist" in refusal(run, "--out", tmp_path / "no" / "where.json")


def test_a_rate_that_breaks_the_weights_is_named_and_nothing_is_written(run, command, tmp_path):
    tuning = ["--finetune", "--finetune.epochs", 2, "--finetune.batch", 64, "--finetune.rate", 1e30]
    code, _, err = command(run, "--transfer", "digits", *tuning, "--no-baselines", "--out", tmp_path / "no.json")
    assert code == 2
    assert "finetune of the trained network: the weights stopped being finite in epoch" in err.splitlines()[-1]
    assert not (tmp_path / "no.json").exists()


@pytest.fixture(scope="module")
def cifar_run(tmp_path_factory) -> Path:
    if not CIFAR.exists():
        pytest.skip(f"needs {CIFAR}")
    extra = {"data__name": "npz", "data__root": str(CIFAR), "monitor__k": 20, "monitor__probe": False}
    config = short(preset="npz", network__width=8, data__train_images=640, train__epochs=1, **extra)
    return trained(config, tmp_path_factory.mktemp("cifar"))


def test_an_encoder_of_cifar_reads_fashion_mnist(cifar_run, tmp_path):
    if not FASHION.is_dir():
        pytest.skip(f"needs {FASHION}")
    shutil.copytree(FASHION, tmp_path / "fashion", copy_function=shutil.copyfile)
    config = DataConfig("fashion-mnist", tmp_path / "fashion", download=True, train_images=500, test_images=200)
    recipe = replace(FINETUNE, epochs=8, batch=50, base_rate=0.4)
    found = accuracies_on(cifar_run, data.load(config), Request(finetune=recipe, baselines=False))
    # The grey images are known from single pixels: a tenth would be chance.
    assert 0.5 < found["trained", "backbone", "clean", "linear-fast"] < 0.95
    assert 0.4 < found["trained", "backbone", "clean", "knn"] < 0.95
    assert 0.3 < found["trained", "backbone", "augmented views", "finetune"] < 0.95


def test_an_encoder_of_cifar_reads_photographs_of_clothing(cifar_run):
    if not CLOTHING.is_dir():
        pytest.skip(f"needs {CLOTHING}")
    config = DataConfig("imagefolder", CLOTHING, train_images=200, test_images=70, image_size=32)
    found = accuracies_on(cifar_run, data.load(config), Request(baselines=False))
    assert 0.1 < found["trained", "backbone", "clean", "linear-fast"] < 0.9
    assert 0.1 < found["trained", "backbone", "clean", "knn"] < 0.9
