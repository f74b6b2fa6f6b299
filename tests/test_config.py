"""The configuration: complete, equal after a round trip, and deaf to nothing."""

from pathlib import Path

import pytest
from click import Command
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab.config import build, differences, from_json, leaves, read_toml, to_json
from collapse_lab.errors import InputError
from collapse_lab.flags import configuration_flags, configured
from collapse_lab.methods import METHODS
from collapse_lab.presets import AUGMENT, DATA, PRESETS
from collapse_lab.settings import Config

NO_FLAGS = {"config": None, "preset": ()}


def one(name: str, **values: object) -> Config:
    """The configuration of one method under the given flags."""
    return configured((name,), {**NO_FLAGS, **values})[1][0]


@pytest.mark.parametrize("preset", [*DATA.values(), *PRESETS.values(), *(row.settings for row in METHODS.values())])
def test_every_preset_and_method_is_valid_and_survives_json(preset):
    config = build("simsiam", preset)
    assert from_json(to_json(config)) == config


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-300, 1e300), st.integers(0, 2**62), st.text())
def test_values_survive_json_exactly(rate, seed, root):
    config = build("simsiam", {"train.base_lr": rate, "train.seed": seed, "data.root": Path(root)})
    assert from_json(to_json(config)) == config


def test_every_field_is_a_flag_and_a_toml_key(tmp_path):
    @configuration_flags
    def command(**values):
        return values

    flags = {name for parameter in Command("x", params=command.__click_params__).params for name in parameter.opts}
    assert {f"--{leaf.name}" for leaf in leaves()} <= flags
    lines = []
    for leaf in leaves():
        section, name = leaf.name.split(".")
        if leaf.default is not None:
            default = list(leaf.default) if isinstance(leaf.default, tuple) else leaf.default
            lines.append(f"{section}.{name} = {str(default).lower() if isinstance(default, bool) else repr(default)}")
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines))
    assert build("simsiam", read_toml(file)) == build("simsiam")


def test_layers_win_in_order_data_preset_method_file_flags(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('[train]\nepochs = 7\nbatch = 32\n[network]\npredictor_hidden = 8\n[data]\nname = "mnist"\n')
    values = {**NO_FLAGS, "config": file, "train__epochs": "9", "preset": ("imagenet-views",)}
    config = one("no-predictor", **values)
    assert (config.train.epochs, config.train.batch) == (9, 32)
    assert config.network.predictor == "identity"
    assert config.data.name == "mnist"
    assert config.monitor.k == 200
    assert config.augment.size == 224


def test_a_flag_may_say_none_where_none_is_allowed():
    assert one("simsiam", network__projector_hidden="none").network.projector_hidden is None


def test_a_file_may_say_none_too(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('[network]\nprojector_hidden = "none"\nprojector_output_norm = "none"')
    network = one("simsiam", config=file, preset=("cifar-head",)).network
    assert (network.projector_hidden, network.projector_output_norm) == (None, "none")


def test_what_runs_share_has_no_method():
    shared, configs = configured(("no-predictor", "simsiam"), NO_FLAGS)
    assert shared == build("", AUGMENT["digits"])
    assert [config.method for config in configs] == ["no-predictor", "simsiam"]


@pytest.mark.parametrize(
    ("name", "flag", "value", "message"),
    [
        ("simsiam", "objective__stop_gradient", "none", "the method with that setting is no-stop-gradient"),
        ("fixed-predictor", "network__predictor_frozen", False, "method 'fixed-predictor' is made by 'True'"),
    ],
)
def test_flags_cannot_turn_a_method_into_another(name, flag, value, message):
    with pytest.raises(InputError, match=message):
        one(name, **{flag: value})


def test_digits_is_the_default():
    assert one("simsiam") == build("simsiam", AUGMENT["digits"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch": 3}, "unknown configuration key 'train.epoch'; did you mean train.epochs"),
        ({"bogus": 3}, "unknown configuration key 'bogus'"),
        ({"train.epochs": -1}, "train.epochs: found -1, input should be greater than or equal to 0"),
        ({"train.batch": "many"}, "train.batch: found 'many', input should be a valid integer"),
        ({"train.batch": 2.5}, "train.batch: found 2.5, input should be a valid integer"),
        ({"train.base_lr": float("nan")}, "train.base_lr: found nan, input should be"),
        ({"data.name": "cifr"}, "data.name: found 'cifr', input should be 'digits', 'cifar10'"),
        ({"objective.stop_gradient": "both"}, "objective.stop_gradient: found 'both', input should be 'target'"),
        ({"augment.crop_scale": (0.5,)}, "augment.crop_scale: found"),
        ({"augment.crop_scale": (0.5, 0.2)}, "augment.crop_scale: found .* may not exceed the second"),
        ({"augment.crop_scale": (0.5, 1.2)}, "a crop is at most the image"),
        ({"network.predictor": "identity", "network.predictor_frozen": True}, "which has no trained weights"),
        ({"train.epochs": 5, "train.warmup_epochs": 5}, "train.warmup_epochs: found 5, must be less than train.epochs"),
    ],
)
def test_wrong_values_and_impossible_combinations_are_refused_by_name(overrides, message):
    with pytest.raises(InputError, match=message):
        build("simsiam", overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", "'epochs' stands outside a table such as"),
        ("[train\nepochs = 3", "is not TOML"),
        ("[train]\nepoch = 3", "unknown configuration key 'train.epoch'"),
        ('[train]\nepochs = "3"', "train.epochs: found '3', input should be a valid integer"),
        ("[train]\nseed = true", "train.seed: found True, input should be a valid integer"),
        ("[augment]\nflip = true", "augment.flip: found True, input should be a valid number"),
        ('[data]\ndownload = "yes"', "data.download: found 'yes', input should be a valid boolean"),
        ('[data]\nname = ["a"]', "data.name: found"),
        ("[data.name]", "data.name: found"),
        ("[trian]\nepochs = 3", "unknown configuration key 'trian.epochs'; did you mean train.epochs"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        configured(("simsiam",), {**NO_FLAGS, "config": file})


def test_differences_name_the_fields():
    one, other = build("simsiam"), build("simsiam", {"train.epochs": 3, "data.root": Path("x")})
    assert differences(one, other) == ["data.root: None against x", "train.epochs: 60 against 3"]
    assert differences(one, one) == []
