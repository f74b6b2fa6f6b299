"""h(z) against E_T[f(T x)]: unbiased at any number of views, exact where the expectation is known, invisible to training."""

import copy
import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import data, expectation
from collapse_lab.config import build
from collapse_lab.errors import InputError
from collapse_lab.evaluate import calibrated
from collapse_lab.expectation import Halves, cosines, direction_gaps, expectation_values, fitted, squared_gaps
from collapse_lab.geometry import expectation_gap, unit_rows
from collapse_lab.methods import method
from collapse_lab.objective import Objective, build_objective
from collapse_lab.presets import DATA
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.trainer import train

draws = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy_views(x: torch.Tensor, noise: float, views: int, seed: int = 1) -> tuple[torch.Tensor, Halves]:
    """A fresh view z = x + noise, and the halves of K others."""
    seen = x + noise * gaussian(views + 1, *x.shape, seed=seed)
    return seen[0], Halves(seen[1::2].mean(0), seen[2::2].mean(0))


def mean_and_error(rows: torch.Tensor) -> tuple[float, float]:
    return float(rows.mean()), float(rows.std() / math.sqrt(len(rows)))


# The pure functions.


def test_gaussian_views_give_every_guess_its_closed_form():
    d, s, views = 4, 0.7, 8
    x = gaussian(6000, d)
    z, eta = noisy_views(x, s, views)
    guesses = {"exact": x, "identity": z, **fitted(z, eta)}
    expected = {"exact": 0.0, "identity": d * s**2, "linear": d * s**2 / (1 + s**2), "constant": float(d)}
    for name, value in expected.items():
        found, error = mean_and_error(squared_gaps(guesses[name], eta))
        assert found == pytest.approx(value, abs=4 * error + 0.003 * d), name
    floor, error = mean_and_error((eta.a - eta.b).square().sum(1))
    assert floor == pytest.approx(4 * s**2 * d / views, abs=4 * error)


def test_the_exact_direction_reads_no_gap_and_any_other_reads_more():
    direction = unit_rows(gaussian(5000, 6))
    seen = unit_rows((direction + 0.5 * gaussian(9, 5000, 6, seed=2)).flatten(0, 1)).view(9, 5000, 6)
    eta = Halves(seen[1::2].mean(0), seen[2::2].mean(0))
    found, error = mean_and_error(direction_gaps(3 * direction, eta))
    assert abs(found) < 4 * error
    for other in (seen[0], gaussian(5000, 6, seed=3)):
        found, error = mean_and_error(direction_gaps(other, eta))
        assert found > 50 * error


@draws
@given(seed=seeds)
def test_over_all_pairs_of_halves_the_noise_cancels_exactly(seed):
    population, guess = gaussian(6, 3, 4, seed=seed), gaussian(3, 4, seed=seed + 1)
    pairs = [Halves(a, b) for a in population for b in population]
    eta = population.mean(0)
    squared = torch.stack([squared_gaps(guess, pair) for pair in pairs]).mean(0)
    torch.testing.assert_close(squared, (guess - eta).square().sum(1))
    directions = torch.stack([direction_gaps(guess, pair) for pair in pairs]).mean(0)
    torch.testing.assert_close(directions, eta.square().sum(1) - (unit_rows(guess) * eta).sum(1).square())


@draws
@given(seed=seeds)
def test_the_distance_to_the_mean_of_all_views_is_too_large_by_a_quarter_of_the_floor(seed):
    guess, a, b = gaussian(3, 7, 5, seed=seed)
    floor = (a - b).square().sum(1)
    torch.testing.assert_close((guess - (a + b) / 2).square().sum(1), squared_gaps(guess, Halves(a, b)) + floor / 4)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_direction_gaps_know_no_scale_no_sign_and_no_basis(seed, scale):
    guess, a, b = gaussian(3, 7, 5, seed=seed)
    turn = torch.linalg.qr(gaussian(5, 5, seed=seed + 1)).Q
    expected = direction_gaps(guess, Halves(a, b))
    torch.testing.assert_close(direction_gaps(-scale * guess @ turn, Halves(a @ turn, b @ turn)), expected)
    torch.testing.assert_close(cosines(-scale * guess, Halves(a, b)), -cosines(guess, Halves(a, b)))


def test_the_gap_is_the_least_distance_over_multiples_and_bounds_the_excess_loss():
    guess, eta = gaussian(2, 200, 5)
    gaps = direction_gaps(guess, Halves(eta, eta))
    u, norm = unit_rows(guess), eta.norm(dim=1)
    along = (u * eta).sum(1, keepdim=True) * u
    torch.testing.assert_close(gaps, (eta - along).square().sum(1))
    near = eta + 0.01 * guess
    excess = norm - (unit_rows(near) * eta).sum(1)
    torch.testing.assert_close(direction_gaps(near, Halves(eta, eta)) / (2 * norm), excess, rtol=1e-2, atol=1e-9)


def test_cosines_are_those_of_the_monitors_gap():
    views, guess = gaussian(8, 30, 5), gaussian(30, 5, seed=1)
    unit = unit_rows(views.flatten(0, 1)).view_as(views)
    found = cosines(guess, Halves(unit[0::2].mean(0), unit[1::2].mean(0)))
    assert 1 - float(found.mean()) == pytest.approx(expectation_gap(guess, views), abs=1e-12)


def test_a_fitted_guess_never_sees_the_image_that_it_is_scored_on():
    z, a, b = gaussian(3, 40, 3)
    for row in (0, 7):
        other = a.clone()
        other[row] += 100
        for name in ("constant", "linear"):
            before, after = fitted(z, Halves(a, b))[name], fitted(z, Halves(other, b))[name]
            same = torch.arange(40) % 2 == row % 2
            torch.testing.assert_close(before[same], after[same], rtol=0, atol=0)
            assert (before[~same] != after[~same]).all()


def test_an_affine_map_is_found_again_and_noise_gains_nothing():
    z = gaussian(60, 4) + 3
    eta = z @ gaussian(4, 4, seed=1) + 2
    torch.testing.assert_close(fitted(z, Halves(eta, eta))["linear"], eta, rtol=1e-4, atol=1e-4)
    unrelated = Halves(*2 * [gaussian(200, 50, seed=5)])
    gaps = {name: squared_gaps(guess, unrelated).mean() for name, guess in fitted(gaussian(200, 50), unrelated).items()}
    assert gaps["linear"] == pytest.approx(float(gaps["constant"]), rel=0.05)


def test_from_a_constant_z_the_linear_guess_is_the_constant_one():
    eta = Halves(*gaussian(2, 10, 3))
    found = fitted(torch.ones(10, 3), eta)
    torch.testing.assert_close(found["linear"], found["constant"])


def test_shapes_that_do_not_fit_are_refused():
    eta = Halves(torch.ones(4, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"found shapes \[\(4, 3\), \(4, 2\), \(4, 2\)\]"):
        squared_gaps(torch.ones(4, 3), eta)
    with pytest.raises(ValueError, match="found 2 rows; a fit on half of them needs at least 4"):
        fitted(torch.ones(2, 2), Halves(torch.ones(2, 2), torch.ones(2, 2)))


@draws
@given(count=st.integers(1, 500), most=st.integers(1, 500))
def test_spread_images_are_distinct_ordered_and_from_end_to_end(count, most):
    index = expectation.spread(count, most).tolist()
    assert len(set(index)) == len(index) == min(count, most)
    assert index == sorted(index)
    assert index[0] == 0
    assert index[-1] == (count - 1 if most > 1 else 0)


# On a network.


def short(name: str = "simsiam", **overrides: object) -> Config:
    extra = {key.replace("__", "."): value for key, value in overrides.items()}
    return build(name, DATA["digits"], {"train.epochs": 2, "train.batch": 64, "data.train_images": 320}, extra)


@pytest.fixture(scope="module")
def digits() -> data.Images:
    return data.load(short().data)


def network(config: Config, digits: data.Images) -> Objective:
    initial = build_objective(config, *data.statistics(digits.train), 8, len(digits.train))
    return calibrated(initial, digits.train, (8, 8))


def values(objective: Objective, digits: data.Images, config: Config, views: int = 4) -> dict[str, float]:
    found = expectation_values(objective, digits, config, views)
    assert {(value.source, value.layer, value.index) for value in found} == {("probe", "predictor", 0)}
    return {value.metric.removeprefix("expectation_"): value.value for value in found}


@pytest.mark.parametrize("loss", ["negative-cosine", "mse", "cross-entropy"])
def test_without_a_predictor_the_prediction_is_z_itself(digits, loss):
    config = short("no-predictor", objective__loss=loss, network__predictor="identity")
    found = values(network(config, digits), digits, config)
    assert found["gap_predictor"] == found["gap_identity"] > found["gap_constant"] > 0
    assert found["cosine_predictor"] == found["cosine_identity"]


def test_more_views_move_the_floor_and_not_the_gap(digits):
    config = short()
    objective = network(config, digits)
    few, many = values(objective, digits, config, 4), values(objective, digits, config, 32)
    assert few["floor"] == pytest.approx(8 * many["floor"], rel=0.05)
    # Uncorrected, four views would add a quarter of their floor.
    assert few["floor"] / 4 > 0.05
    for name in ("gap_predictor", "gap_identity", "gap_constant", "energy"):
        assert few[name] == pytest.approx(many[name], abs=0.015), name


def test_a_constant_output_reads_no_gap_at_all(digits):
    config = short()
    objective = network(config, digits)
    last = objective.encoder.projector[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    found = values(objective, digits, config)
    for name in ("gap_identity", "gap_linear", "gap_constant", "floor"):
        assert found[name] == pytest.approx(0, abs=1e-9), name
    assert found["cosine_constant"] == pytest.approx(1)
    assert found["energy"] == pytest.approx(1)


def test_reading_changes_neither_weights_nor_statistics_nor_mode_nor_random_state(digits):
    config = short()
    objective = network(config, digits).train()
    before, state = copy.deepcopy(objective.state_dict()), torch.get_rng_state()
    first, again = (values(objective, digits, config) for _ in range(2))
    assert first == again
    assert objective.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in objective.state_dict().items())
    assert values(objective, digits, short(train__seed=1)) != first


def test_outputs_that_are_not_finite_and_odd_views_are_refused(digits):
    config = short()
    objective = network(config, digits)
    with pytest.raises(ValueError, match="views: found 5; two equal halves need an even number"):
        values(objective, digits, config, 5)
    with pytest.raises(InputError, match="monitor.expectation_views: found 3"):
        short(monitor__expectation_views=3)
    torch.nn.init.constant_(objective.encoder.projector[-1].bias, math.nan)
    with pytest.raises(FloatingPointError, match="views of the test images were not finite"):
        values(objective, digits, config)


def test_a_run_records_them_at_every_evaluation_and_is_otherwise_the_same_to_the_bit(digits, tmp_path):
    tables = {}
    for views in (0, 4):
        config = build(
            "simsiam",
            method("simsiam").overrides,
            DATA["digits"],
            {"train.epochs": 4, "train.batch": 64, "data.train_images": 320, "monitor.every": 1},
            {"monitor.evaluate_every": 2, "monitor.expectation_views": views},
        )
        with Run(tmp_path / str(views), config) as run:
            train(config, run, digits, lambda progress: None)
        tables[views] = pd.read_csv(tmp_path / str(views) / "metrics.csv", keep_default_na=False, dtype=str)
    added = tables[4]["metric"].str.startswith("expectation_")
    pd.testing.assert_frame_equal(tables[4][~added].reset_index(drop=True), tables[0])
    rows = tables[4][added]
    assert set(rows["epoch"]) == {"0", "2", "4"}
    assert rows.groupby("epoch").size().tolist() == [10, 10, 10]
