"""Verdicts on clouds whose state is known, and on histories of runs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import data
from collapse_lab.config import build
from collapse_lab.evaluate import outputs
from collapse_lab.geometry import moments, outlier_share, rankme, std_ratio
from collapse_lab.monitors import History, bounds, judge, judge_features, judge_run, measure
from collapse_lab.monitors.verdict import COLLAPSED, Verdict, compare_modes, judge_measures
from collapse_lab.objective import build_objective
from collapse_lab.presets import DATA


def gaussian(rows: int, dimension: int, alpha: float = 0.0, seed: int = 0) -> torch.Tensor:
    scale = torch.arange(1, dimension + 1, dtype=torch.float64) ** (-alpha / 2)
    return torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def rotated(cloud: torch.Tensor, seed: int = 1) -> torch.Tensor:
    basis, _ = torch.linalg.qr(gaussian(cloud.shape[1], cloud.shape[1], seed=seed))
    return cloud @ basis


def low_rank(rows: int, dimension: int, rank: int, seed: int = 0) -> torch.Tensor:
    return gaussian(rows, rank, seed=seed) @ gaussian(rank, dimension, seed=seed + 1)


CLOUDS = {
    "isotropic": (gaussian(2048, 128), "healthy"),
    "power law 1": (rotated(gaussian(4096, 256, 1.0)), "healthy"),
    "power law 2": (rotated(gaussian(2048, 128, 2.0)), "healthy"),
    "constant and noise": (torch.ones(2048, 128) + 1e-4 * gaussian(2048, 128), "complete-collapse"),
    "constant": (torch.ones(512, 64), "complete-collapse"),
    "zeros": (torch.zeros(512, 64), "complete-collapse"),
    "signs times one direction": (
        gaussian(2048, 1).sign() * gaussian(1, 128, seed=5),
        "dimensional-collapse",
    ),
    "rank 4": (low_rank(2048, 128, 4), "dimensional-collapse"),
    "too few rows": (gaussian(32, 512), "insufficient-data"),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_of_known_state(name):
    cloud, kind = CLOUDS[name]
    assert judge_features(cloud).kind == kind
    assert judge_features(cloud.float()).kind == kind


def test_rows_in_another_order_or_scale_change_nothing():
    cloud = rotated(gaussian(512, 128, 1.5))
    one, other = judge_features(cloud), judge_features(3 * cloud.flip(0))
    assert (one.kind, round(one.severity, 9)) == (other.kind, round(other.severity, 9))


def test_a_healthy_std_does_not_hide_a_lost_rank_and_the_verdict_says_so():
    cloud = gaussian(2048, 1).sign() * torch.ones(128)
    assert std_ratio(moments(cloud)) == pytest.approx(1.0, abs=1e-3)
    verdict = judge_features(cloud)
    assert verdict.kind == "dimensional-collapse"
    assert any("std alone looks healthy" in note for note in verdict.notes)


@pytest.mark.parametrize("rows", [128, 256, 1024])
def test_one_outlier_behind_batch_norm_reads_two_over_root_n_and_is_named(rows):
    z = torch.zeros(rows, 64)
    z[0] = 1 + torch.rand(64, generator=torch.Generator().manual_seed(0))
    z = torch.nn.BatchNorm1d(64, affine=False, eps=1e-12)(z).detach()
    assert std_ratio(moments(z)) == pytest.approx(2 / math.sqrt(rows), rel=0.01)
    assert judge_features(z, mode="train").kind == "outlier-collapse"


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.5])
def test_the_verdict_on_a_sound_cloud_is_one_for_all_batch_sizes(alpha):
    kinds = {
        judge_features(rotated(gaussian(rows, 128, alpha, seed))).kind
        for rows in (64, 128, 256, 512, 1024)
        for seed in range(5)
    }
    assert kinds == {"healthy"}


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_the_verdict_on_a_lost_rank_is_one_for_all_batch_sizes(rank):
    kinds = {
        judge_features(low_rank(rows, 128, rank, seed)).kind for rows in (64, 128, 256, 512, 1024) for seed in range(5)
    }
    assert kinds == {"dimensional-collapse"}


SOUND = {"std_ratio": 0.85, "mean_energy": 0.2, "rankme": 60.0, "centred_rankme": 64.0, "outlier_share": 0.03}
EXTREME = {"std_ratio": 0.01, "mean_energy": 0.9999, "rankme": 1.0, "centred_rankme": 1.0, "outlier_share": 1.0}


def test_the_sound_values_are_healthy_with_severity_0_and_the_extreme_ones_collapsed_with_severity_1():
    best = judge(**SOUND, rows=256, dimension=128)
    assert (best.kind, best.severity) == ("healthy", 0.0)
    worst = judge(**EXTREME, rows=256, dimension=128)
    assert worst.kind in COLLAPSED
    assert worst.severity == pytest.approx(1.0)


@pytest.mark.parametrize("name", EXTREME)
def test_one_measure_never_decides_alone(name):
    verdict = judge(**{**SOUND, name: EXTREME[name]}, rows=256, dimension=128)
    assert verdict.kind not in COLLAPSED
    assert next(vote for vote in verdict.votes if vote.measure == name).says == "collapse"


def test_every_vote_names_value_bound_and_origin():
    verdict = judge(**SOUND, rows=256, dimension=128, tap="projector")
    assert (verdict.tap, verdict.mode) == ("projector", "train")
    assert {vote.measure: vote.value for vote in verdict.votes} == SOUND
    assert all("collapse" in vote.bound and "zoo" in vote.origin for vote in verdict.votes)


def test_values_that_are_not_finite_are_diverged():
    verdict = judge(std_ratio=math.nan, mean_energy=0.1, rankme=math.nan, rows=256, dimension=128)
    assert (verdict.kind, verdict.severity) == ("diverged", 1.0)


@given(st.floats(0.02, 1), st.floats(0, 1), st.floats(1, 128), st.sampled_from([64, 256, 1024]))
@settings(max_examples=200, deadline=None)
def test_severity_is_a_share_and_zero_where_all_is_healthy(std, energy, rank, rows):
    verdict = judge(std_ratio=std, mean_energy=energy, rankme=rank, rows=rows, dimension=128)
    assert 0 <= verdict.severity <= 1
    if all(vote.says == "healthy" for vote in verdict.votes):
        assert (verdict.kind, verdict.severity) == ("healthy", 0.0)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_every_band_runs_from_healthy_over_collapse_to_total(mode):
    for rows, dimension in ((64, 128), (256, 128), (4096, 2048), (256, 64)):
        for band in bounds.bands(mode, rows, dimension).values():
            assert (band.healthy - band.collapse) * (band.collapse - band.total) >= 0
            assert band.says(band.total) == "collapse"
            assert band.severity(band.healthy) == 0
            assert band.severity(band.total) == 1


def test_the_stored_table_reads_what_a_fresh_draw_between_its_knots_reads():
    for rows, dimension, alpha in ((300, 96, 1.2), (150, 200, 1.7), (900, 100, 0.7)):
        drawn = np.mean([rankme(moments(gaussian(rows, dimension, alpha, seed))) for seed in range(3)])
        assert bounds.rankme_of_power_law(rows, dimension, alpha) == pytest.approx(drawn, rel=0.05)


@pytest.mark.parametrize("rows", [64, 256, 2048])
def test_the_equivalent_exponent_does_not_depend_on_the_number_of_rows(rows):
    found = rankme(moments(gaussian(rows, 128, 1.5)))
    assert bounds.equivalent_alpha(found, rows, 128) == pytest.approx(1.5, abs=0.12)


def test_outlier_share_of_equal_rows_is_0_and_of_even_ones_2_percent():
    assert outlier_share(torch.ones(100, 8)) == 0
    assert outlier_share(torch.eye(100)) == pytest.approx(0.02)


def history(rank, std, tap="projector", **kept) -> History:
    made = History(tap, 256, 128, **kept)
    for step, (r, s) in enumerate(zip(rank, std, strict=True), 1):
        for name, value in (("rankme", r), ("std_ratio", s), ("mean_energy", max(0.0, 1 - s**2 / 0.95))):
            made.add(step, name, value)
    return made


def curve(levels, seed=0, noise=0.02):
    return np.asarray(levels, float) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(levels)))


STEADY = [0.85] * 200
FALLING = [60] * 100 + [60 * 0.97**k for k in range(1, 101)]


def test_a_run_that_fell_is_judged_by_its_end_with_the_step_since_when():
    verdict = judge_run({"projector": history(curve(FALLING), curve(STEADY, noise=0.002))})["projector"]
    assert verdict.kind == "dimensional-collapse"
    assert verdict.onset[0] <= 101 <= verdict.onset[1] + 5
    assert verdict.first_tap == "projector"


def test_the_tap_whose_alarm_came_first_is_named_for_all():
    early = [0.5] * 80 + [0.5 * 0.9**k for k in range(120)]
    taps = {
        "backbone": history(curve([30] * 200), curve(early, noise=0.002), "backbone", absolute=False),
        "projector": history(curve(FALLING), curve(STEADY, noise=0.002)),
    }
    assert {verdict.first_tap for verdict in judge_run(taps).values()} == {"backbone"}


def test_a_layer_without_absolute_bounds_is_healthy_while_its_own_history_is_quiet():
    quiet = history(curve([20] * 200), curve([0.5] * 200, noise=0.002), "backbone", absolute=False)
    assert judge_run({"backbone": quiet})["backbone"].kind == "healthy"
    short = history(curve([20] * 10), curve([0.5] * 10, noise=0.002), "backbone", absolute=False)
    assert judge_run({"backbone": short})["backbone"].kind == "unknown"


def test_against_a_reference_a_rank_that_would_pass_alone_is_a_loss():
    good = history(curve([100] * 200), curve(STEADY, noise=0.002))
    half = history(curve([50] * 200, seed=1), curve(STEADY, seed=1, noise=0.002))
    assert judge_run({"projector": half})["projector"].kind == "healthy"
    verdict = judge_run({"projector": half}, {"projector": good})["projector"]
    assert verdict.kind == "dimensional-collapse"
    assert any("reference" in vote.origin for vote in verdict.votes)
    assert judge_run({"projector": good}, {"projector": good})["projector"].kind == "healthy"


def test_a_spread_cloud_whose_predictions_do_not_agree_is_not_learning():
    flat = dict(enumerate([0.2] * 200, 1))
    rising = dict(enumerate(np.linspace(0, 0.4, 200).tolist(), 1))
    learned = dict(enumerate([0.8] * 200, 1))
    kinds = [
        judge_run({"p": history(curve([60] * 200), curve(STEADY, noise=0.002), agreement=agreement)})["p"].kind
        for agreement in (flat, rising, learned)
    ]
    assert kinds == ["not-learning", "healthy", "healthy"]


def test_swings_from_reading_to_reading_are_unstable():
    wild = history(curve([60] * 200, noise=0.3), curve(STEADY, noise=0.002))
    assert judge_run({"p": wild})["p"].kind == "unstable"


def test_a_history_that_ends_in_nan_is_diverged_since_the_first_nan():
    ended = history([60.0] * 50 + [math.nan] * 10, [0.8] * 60)
    verdict = judge_run({"p": ended})["p"]
    assert (verdict.kind, verdict.onset) == ("diverged", (50, 51))


def test_no_readings_are_insufficient_data():
    assert judge_run({"p": History("p", 256, 128)})["p"].kind == "insufficient-data"


def test_eval_mode_at_initialisation_looks_collapsed_and_the_disagreement_is_named():
    config = build("simsiam", DATA["digits"])
    images = data.load(config.data)
    mean, std = data.statistics(images.train)
    objective = build_objective(config, mean, std, 8, 1437)
    stale = judge_features(outputs(objective, images.test, (8, 8))["projector"], mode="eval")
    z = objective.train().encoder(images.test.float() / 255).detach()
    fresh = judge_measures(measure(moments(z), z), mode="train")
    assert (fresh.kind, stale.kind in COLLAPSED) == ("healthy", True)
    noted = compare_modes(fresh, stale)
    assert all(any("running statistics may be stale" in note for note in verdict.notes) for verdict in noted)
    assert compare_modes(fresh, fresh) == (fresh, fresh)
    assert isinstance(noted[0], Verdict)
