"""The deep toy: repeatable, its arms differ as their methods say, and output BatchNorm hides what RankMe shows."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
import torch

from collapse_lab.errors import InputError
from collapse_lab.settings import OutputNorm
from collapse_lab.toy.deep import DIM, DeepToy, images, objective, train, views_of
from collapse_lab.toy.reports_deep import deep_report


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_equal_settings_give_equal_tables_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, two = (train(DeepToy(steps=3, seed=4), every=1) for _ in range(2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not one.equals(train(DeepToy(steps=3, seed=5), every=1))


def test_arms_of_one_seed_start_from_the_same_encoder() -> None:
    starts = [objective(DeepToy(name)).encoder.state_dict() for name in ("simsiam", "no-stop-gradient", "no-predictor")]
    for other in starts[1:]:
        assert all(torch.equal(value, other[name]) for name, value in starts[0].items())


def test_without_predictor_the_stop_gradient_halves_the_encoders_gradient() -> None:
    clean = images(0, 64)
    views = views_of(clean, 0.25, torch.Generator().manual_seed(0))
    gradients = []
    for cut in ("target", "none"):
        learner = objective(DeepToy("no-predictor")).double()
        learner.stop_gradient = cut
        learner(views.double(), torch.arange(64)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in learner.encoder.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1] / 2, rtol=1e-4, atol=1e-7)


def test_data_has_the_stated_content_and_noise() -> None:
    clean = images(1, 4000)
    views = views_of(clean, 0.25, torch.Generator().manual_seed(1))
    assert clean.std().item() == pytest.approx(1)
    assert (views - clean).var().item() == pytest.approx(0.25, rel=0.02)
    assert torch.corrcoef(torch.stack([(view - clean).flatten() for view in views]))[0, 1].abs() < 0.01


def last(name: str, head: OutputNorm) -> pd.Series:
    return train(DeepToy(name, head, steps=300), every=300).iloc[-1]


def test_output_batchnorm_masks_collapse_from_the_std_and_not_from_the_rank() -> None:
    plain = {name: last(name, "none") for name in ("simsiam", "no-stop-gradient")}
    masked = {name: last(name, "affine") for name in ("simsiam", "no-stop-gradient")}
    assert plain["no-stop-gradient"]["std_ratio"] < 0.5 < plain["simsiam"]["std_ratio"]
    assert plain["no-stop-gradient"]["mean_energy"] > 0.8
    assert masked["no-stop-gradient"]["std_ratio"] > 0.95
    assert masked["no-stop-gradient"]["rankme"] < 0.6 * masked["simsiam"]["rankme"]
    for arm in (*plain.values(), *masked.values()):
        assert 1 <= arm["rankme"] <= DIM
        assert -1 <= arm["loss"] <= 1


def test_report_and_refusals() -> None:
    report = deep_report(["simsiam", "wrong-branch"], seeds=2, steps=2, noise2=0.1)
    assert list(report.answer["arms"]) == [
        "simsiam, no output BN",
        "simsiam, output BN",
        "wrong-branch, no output BN",
        "wrong-branch, output BN",
    ]
    assert report.answer["arms"]["simsiam, output BN"]["std_ratio"]["std"] > 0
    with pytest.raises(InputError, match="unknown method 'nothing'"):
        deep_report(["nothing"], 1, 1, 0.1)
    with pytest.raises(InputError, match="noise2: found -1"):
        deep_report(["simsiam"], 1, 1, -1.0)
