"""Where training starts: another run's weights to the bit, or outputs moved by the last bias alone."""

from pathlib import Path

import pytest
import torch

from collapse_lab import data, geometry, networks
from collapse_lab.config import build
from collapse_lab.errors import InputError
from collapse_lab.evaluate import clean
from collapse_lab.methods import method
from collapse_lab.presets import DATA
from collapse_lab.settings import DataConfig
from collapse_lab.starts import start_encoder
from collapse_lab.workers import run_one

SHORT = {"train.epochs": 1, "network.width": 4, "data.train_images": 400, "monitor.probe": False}


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return data.load(DataConfig()).train


@pytest.mark.parametrize("norm", ["none", "affine"])
def test_outputs_are_moved_by_the_last_bias_alone(digits, norm):
    def outputs(start):
        config = build("simsiam", {"network.start": start, "network.projector_output_norm": norm})
        encoder = networks.encoder(config.network, torch.tensor([0.5]), torch.tensor([0.3]), 8, 0)
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        start_encoder(encoder, config, None, digits, (8, 8))
        changed = [name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])]
        with torch.no_grad():
            return encoder.train()(clean(digits[:512], (8, 8))), changed

    default, changed = outputs("default")
    assert changed == []
    centred, changed = outputs("centred")
    assert changed in (["projector.3.bias"], ["projector.4.bias"], [])
    assert centred.mean(0).norm() < 1e-4 * centred.norm(dim=1).mean()
    constant, _ = outputs("near-constant")
    torch.testing.assert_close(constant - constant.mean(0), default - default.mean(0), rtol=1e-3, atol=1e-4)
    assert geometry.mean_energy(geometry.moments(constant)) == pytest.approx(100 / 101, abs=2e-3)


def test_a_head_that_sets_the_mean_itself_refuses_another_start():
    with pytest.raises(InputError, match="network.start: found 'centred' with projector_output_norm 'non-affine'"):
        build("simsiam", {"network.start": "centred", "network.projector_output_norm": "non-affine"})


def run(study: Path, name: str, **extra: object) -> Path:
    overrides = {key.replace("__", "."): value for key, value in extra.items()}
    config = build(name, DATA["digits"], method(name).settings, SHORT, overrides)
    directory = study / "-".join([name, *overrides]) / "seed0"
    run_one(config, directory, overwrite=False, listen=lambda news: None)
    return directory


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoint.pt", weights_only=True)["objective"]


@pytest.mark.parametrize("name", ["simsiam", "byol"])
def test_a_run_starts_with_the_final_weights_of_the_arm_it_names(tmp_path, name):
    first = run(tmp_path, "no-stop-gradient")
    second = run(tmp_path, name, train__start="no-stop-gradient", train__epochs=0)
    before, after = weights(first), weights(second)
    trained = [key for key in before if key.startswith(("encoder.", "predictor."))]
    assert all(torch.equal(before[key], after[key]) for key in trained)
    lagged = [key for key in after if key.startswith("target.network.copy.")]
    assert all(torch.equal(after[key], after[key.replace("target.network.copy", "encoder")]) for key in lagged)
    assert bool(lagged) == (name == "byol")


def test_a_start_that_is_not_there_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"train.start: found 'elsewhere', whose run .* is new; it has to be done"):
        run(tmp_path, "simsiam", train__start="elsewhere")
    run(tmp_path, "no-stop-gradient", network__projector_dim=16)
    with pytest.raises(InputError, match="train.start: the weights there are those of another network"):
        run(tmp_path, "byol", train__start="no-stop-gradient-network.projector_dim")
