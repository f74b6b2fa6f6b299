"""Identities, invariances and reference values of the measures of a cloud's moments."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import geometry
from collapse_lab.geometry import Moments, covariance_moments, moments

METRICS = {
    "std": geometry.std,
    "std_ratio": geometry.std_ratio,
    "mean_energy": geometry.mean_energy,
    "residual_energy": geometry.residual_energy,
    "correlation": geometry.mean_absolute_correlation,
    "rankme": geometry.rankme,
    "rankme of eigenvalues": lambda m: geometry.rankme(m, eigenvalues=True),
    "rankme centred": lambda m: geometry.rankme(m, centred=True),
    "participation": geometry.participation_ratio,
    "participation uncentred": lambda m: geometry.participation_ratio(m, centred=False),
    "alpha": lambda m: geometry.alpha_req(m, first=2, last=8),
    "auc": geometry.explained_auc,
    "auc of eigenvalues": lambda m: geometry.explained_auc(m, eigenvalues=True),
}
CENTRED = ("correlation", "rankme centred", "participation", "alpha", "auc", "auc of eigenvalues")
SCALE_FREE = (*CENTRED, "rankme", "rankme of eigenvalues", "participation uncentred")
CHANNEL_BOUND = ("std", "std_ratio", "correlation")

EVERY = pytest.mark.parametrize("name", METRICS)
draws = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
RANKS = torch.arange(1, 129, dtype=torch.float64)


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uneven(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """A cloud with a decaying spectrum, correlated channels and a mean."""
    return gaussian(n, d, seed) * torch.linspace(2, 0.2, d) @ rotation(d, seed + 1) + 0.5


def rotation(d: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(gaussian(d, d, seed)).Q


def population(eigenvalues: torch.Tensor) -> Moments:
    return covariance_moments(torch.diag(eigenvalues.double()), count=10**6)


# What std sees, and what it does not.


@pytest.mark.parametrize("d", [32, 64, 128, 256, 512])
def test_channel_variances_and_mean_energy_add_up_to_one(d):
    cloud = gaussian(300, d) * torch.linspace(0.1, 3, d) + 0.3
    m, rows = moments(cloud), torch.nn.functional.normalize(cloud, dim=1)
    assert rows.var(0, correction=0).sum().item() + geometry.mean_energy(m) == pytest.approx(1, abs=1e-12)
    assert geometry.residual_energy(m) + geometry.mean_energy(m) == pytest.approx(1, abs=1e-12)
    assert 0 < geometry.std(m) <= math.sqrt((1 - geometry.mean_energy(m)) / d) + 1e-12


@pytest.mark.parametrize(
    ("d", "expected"),
    [(32, 0.1767767), (64, 0.125), (128, 0.0883883), (256, 0.0625), (512, 0.0441942), (2048, 0.0220971)],
)
def test_std_of_an_isotropic_cloud_is_one_over_the_root_of_d(d, expected):
    assert geometry.std(moments(gaussian(1000, d))) == pytest.approx(expected, rel=5e-3)
    axes = torch.cat([torch.eye(d), -torch.eye(d)])
    assert geometry.std(moments(axes)) == pytest.approx(expected, abs=5e-8)


def test_std_is_the_papers_definition():
    cloud = gaussian(200, 16) + 1
    expected = torch.nn.functional.normalize(cloud, dim=1).std(0, correction=0).mean().item()
    assert geometry.std(moments(cloud)) == pytest.approx(expected, rel=1e-12)


def test_std_cannot_see_rank():
    v = torch.ones(64) / 8
    m = moments(torch.stack([v, -v]).repeat(50, 1))
    assert geometry.std(m) == pytest.approx(0.125, rel=1e-6)
    assert geometry.rankme(m) == pytest.approx(1, abs=1e-3)
    assert geometry.participation_ratio(m) == pytest.approx(1, abs=1e-9)
    assert geometry.mean_absolute_correlation(m) == pytest.approx(1, abs=1e-9)


def test_ten_one_hot_clusters():
    cloud = torch.eye(64, dtype=torch.float64)[:10].repeat(7, 1)
    m, rotated = moments(cloud), moments(cloud @ rotation(64))
    assert geometry.std(m) == pytest.approx(0.046875, rel=1e-9)
    assert geometry.std(rotated) == pytest.approx(0.116424, abs=2e-3)
    assert geometry.std(rotated) < math.sqrt((1 - 0.1) / 64) == pytest.approx(0.118585, abs=1e-6)
    assert math.sqrt(geometry.mean_energy(m)) == pytest.approx(0.316228, abs=1e-6)
    assert geometry.rankme(m) == pytest.approx(10, abs=1e-3)
    assert geometry.rankme(m, centred=True) == pytest.approx(9, abs=1e-3)


def test_one_outlier_under_batch_normalisation_reads_two_over_the_root_of_n():
    n = 128
    cloud = torch.full((n, 64), -1 / math.sqrt(n - 1), dtype=torch.float64)
    cloud[0] = math.sqrt(n - 1)
    signs = torch.sign(gaussian(1, 64))
    assert geometry.std_ratio(moments(cloud * signs)) == pytest.approx(2 / math.sqrt(n), rel=0.01)


# Rank.


@pytest.mark.parametrize(("d", "expected"), [(512, 1.000824), (2048, 1.003305)])
def test_rank_one_survives_the_second_moment(d, expected):
    cloud = torch.outer(gaussian(400, 1)[:, 0], gaussian(1, d)[0]).float()
    assert geometry.effective_rank(torch.eye(1, d)[0].double()) == pytest.approx(expected, abs=1e-6)
    assert geometry.rankme(moments(cloud)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("eigenvalues", "rankme", "erank", "participation", "auc", "auc_eigenvalues"),
    [
        (torch.ones(128), 128, 128, 128, 0.503906, 0.503906),
        (1 / RANKS, 107.047658, 46.952451, 18.030755, 0.650216, 0.823757),
        (RANKS**-2, 46.952451, 4.867728, 2.476402, 0.823757, 0.981885),
        (0.5 ** torch.arange(16.0), 7.682847, 3.999262, 2.999908, 0.853033, 0.937515),
        (RANKS <= 64, 64, 64, 64, 0.753906, 0.753906),
    ],
)
def test_analytic_spectra(eigenvalues, rankme, erank, participation, auc, auc_eigenvalues):
    m = population(eigenvalues)
    for centred in (False, True):
        assert geometry.rankme(m, centred=centred, epsilon=0) == pytest.approx(rankme, abs=1e-6)
        assert geometry.rankme(m, eigenvalues=True, centred=centred, epsilon=0) == pytest.approx(erank, abs=1e-6)
        assert geometry.participation_ratio(m, centred=centred) == pytest.approx(participation, abs=1e-6)
    assert geometry.explained_auc(m) == pytest.approx(auc, abs=1e-6)
    assert geometry.explained_auc(m, eigenvalues=True) == pytest.approx(auc_eigenvalues, abs=1e-6)


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 2])
def test_alpha_of_a_power_law_at_any_fit_range(alpha):
    m = population(RANKS**-alpha)
    for bounds in ({}, {"first": 1}, {"first": 5, "last": 20}, {"last": 1000}):
        assert geometry.alpha_req(m, **bounds) == pytest.approx(alpha, abs=1e-9)


def test_alpha_is_infinite_where_the_spectrum_ends_inside_the_fit_range():
    assert geometry.alpha_req(population(RANKS <= 64)) == math.inf
    assert geometry.alpha_req(population(RANKS <= 64), last=64) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "d", "options", "left"),
    [(1000, 12, {}, 2), (13, 128, {}, 2), (1000, 5, {"first": 0}, 6), (1, 8, {"first": 1}, 0)],
)
def test_alpha_refuses_too_few_ranks(n, d, options, left):
    with pytest.raises(ValueError, match=f"found N = {n}, D = {d}, which leave {left} ranks; a fit needs at least 3"):
        geometry.alpha_req(moments(gaussian(n, d)), **options)


def test_effective_rank_of_a_flat_spectrum_exceeds_d_by_the_papers_epsilon():
    assert geometry.effective_rank(torch.ones(2048)) == pytest.approx(2050.7804, abs=1e-3)


@pytest.mark.parametrize(("n", "rankme", "participation"), [(512, 123.65, 102.40), (2048, 126.99, 120.47)])
def test_rank_of_a_finite_gaussian_sample(n, rankme, participation):
    m = moments(gaussian(n, 128), normalise=False)
    assert geometry.rankme(m) == pytest.approx(rankme, abs=0.3)
    assert geometry.participation_ratio(m) == pytest.approx(participation, abs=1)
    assert 1 / (1 / n + 1 / 128) == pytest.approx(participation, abs=0.01)


def test_rank_of_the_papers_number_of_rows():
    parts = [moments(gaussian(5120, 128, seed), normalise=False) for seed in range(5)]
    m = sum(parts[1:], parts[0])
    assert m.count == 25600
    assert geometry.rankme(m) == pytest.approx(127.92, abs=0.03)
    assert geometry.participation_ratio(m) == pytest.approx(127.36, abs=0.1)


@pytest.mark.parametrize(("n", "share"), [(32, 0.24), (64, 0.46), (512, 0.97)])
def test_too_few_rows_read_as_lost_rank(n, share):
    assert geometry.rankme(moments(gaussian(n, 128))) / 128 == pytest.approx(share, abs=0.01)


def test_centred_rank_cannot_see_complete_collapse_and_uncentred_rank_mistakes_a_mean_for_it():
    collapsed = moments(1 + 1e-4 * gaussian(2000, 64))
    assert geometry.rankme(collapsed) < 1.2 < 60 < geometry.rankme(collapsed, centred=True)
    shifted = moments(gaussian(2000, 64) + 2)
    assert geometry.rankme(shifted) < 45 < 60 < geometry.rankme(shifted, centred=True)


def test_independent_channels_correlate_by_chance_alone():
    expected = math.sqrt(2 / (math.pi * 1000))
    assert geometry.mean_absolute_correlation(moments(gaussian(1000, 64))) == pytest.approx(expected, rel=0.05)


# Against numpy, from the rows themselves.


def test_parity_with_an_independent_implementation():
    z = uneven(300, 24).numpy()
    m = moments(torch.from_numpy(z), normalise=False)
    s, centred = np.linalg.svd(z, compute_uv=False), np.linalg.svd(z - z.mean(0), compute_uv=False)
    p, eigenvalues = s / s.sum() + 1e-7, np.linalg.eigvalsh(np.cov(z.T, ddof=0))[::-1]
    correlation = np.abs(np.corrcoef(z.T)[~np.eye(24, dtype=bool)]).mean()
    ranks = np.arange(3, 11)
    slope = np.polyfit(np.log(ranks), np.log(eigenvalues[2:10]), 1, w=ranks**-0.5)[0]
    np.testing.assert_allclose(geometry.spectrum(m), s / math.sqrt(300), rtol=1e-9)
    np.testing.assert_allclose(geometry.spectrum(m, centred=True), centred / math.sqrt(300), rtol=1e-9)
    assert geometry.rankme(m) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert geometry.participation_ratio(m) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-9)
    assert geometry.mean_absolute_correlation(m) == pytest.approx(correlation, rel=1e-9)
    assert geometry.explained_auc(m) == pytest.approx((np.cumsum(centred) / centred.sum()).mean(), rel=1e-9)
    assert geometry.alpha_req(m, first=3, last=10) == pytest.approx(-slope, rel=1e-9)


# Invariances.


@EVERY
@draws
@given(cut=st.integers(1, 99), scale=st.floats(1e-3, 1e3), seed=seeds)
def test_values_do_not_depend_on_split_order_or_scale_of_rows(name, cut, scale, seed):
    cloud = uneven(100, 10, seed)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    whole, split = moments(cloud), moments(scale * cloud[order][:cut]) + moments(cloud[order][cut:])
    assert METRICS[name](split) == pytest.approx(METRICS[name](whole), rel=1e-7)


@draws
@given(cut=st.integers(1, 99), seed=seeds, normalise=st.booleans(), inference=st.booleans())
def test_adding_onto_moments_is_adding_moments(cut, seed, normalise, inference):
    cloud = uneven(100, 10, seed)
    first, rest = cloud[:cut], cloud[cut:]
    with torch.inference_mode(inference):
        start = moments(first, normalise=normalise)
    together = start + moments(rest, normalise=normalise)
    found = moments(rest, normalise=normalise, onto=start)
    assert found.count == together.count == 100
    torch.testing.assert_close(found.total, together.total)
    torch.testing.assert_close(found.second, together.second)


@EVERY
@draws
@given(seed=seeds, times=st.integers(2, 5))
def test_values_do_not_depend_on_repetition_or_order_of_channels(name, seed, times):
    cloud = uneven(50, 10, seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    expected = METRICS[name](moments(cloud))
    assert METRICS[name](moments(cloud.repeat(times, 1))) == pytest.approx(expected, rel=1e-7)
    assert METRICS[name](moments(cloud[:, order])) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in CHANNEL_BOUND])
@draws
@given(seed=seeds)
def test_rank_and_energy_do_not_depend_on_rotation(name, seed):
    cloud = uneven(60, 10, seed)
    rotated = cloud @ rotation(10, seed + 2)
    assert METRICS[name](moments(rotated)) == pytest.approx(METRICS[name](moments(cloud)), rel=1e-7)


@pytest.mark.parametrize("name", CHANNEL_BOUND)
def test_measures_of_channels_do_depend_on_rotation(name):
    m, rotated = (moments(torch.eye(64).double()[:10].repeat(7, 1) @ q) for q in (torch.eye(64).double(), rotation(64)))
    assert METRICS[name](rotated) != pytest.approx(METRICS[name](m), rel=0.1)


@pytest.mark.parametrize("name", SCALE_FREE)
@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_rank_of_rows_as_they_are_does_not_depend_on_the_clouds_scale(name, seed, scale):
    cloud = uneven(60, 10, seed)
    expected = METRICS[name](moments(cloud, normalise=False))
    assert METRICS[name](moments(scale * cloud, normalise=False)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", CENTRED)
@draws
@given(seed=seeds, shift=st.floats(-100, 100))
def test_centred_rank_of_rows_as_they_are_does_not_depend_on_the_mean(name, seed, shift):
    cloud = uneven(60, 10, seed)
    expected = METRICS[name](moments(cloud, normalise=False))
    assert METRICS[name](moments(cloud + shift, normalise=False)) == pytest.approx(expected, rel=1e-5)


def test_correlation_does_not_depend_on_the_scale_of_channels_and_leaves_constant_ones_out():
    cloud = uneven(80, 6)
    expected = geometry.mean_absolute_correlation(moments(cloud, normalise=False))
    scaled = torch.cat([cloud * torch.logspace(-3, 3, 6), torch.full((80, 2), 7.0)], dim=1)
    assert geometry.mean_absolute_correlation(moments(scaled, normalise=False)) == pytest.approx(expected, rel=1e-6)


@EVERY
def test_moments_of_a_covariance_are_those_of_a_cloud_that_has_it(name):
    cloud = uneven(100, 10)
    whitened = gaussian(100, 10, seed=5)
    whitened = torch.linalg.qr(whitened - whitened.mean(0)).Q * 10
    covariance = torch.cov(cloud.T, correction=0)
    factor = torch.linalg.cholesky(covariance)
    same = moments(whitened @ factor.T, normalise=False)
    assert METRICS[name](covariance_moments(covariance, 100)) == pytest.approx(METRICS[name](same), rel=1e-6, abs=1e-9)


# Few rows, constant rows, other dtypes, bad input.


@EVERY
@pytest.mark.parametrize(("n", "d"), [(10, 64), (4, 9), (1, 4), (100, 1)])
@pytest.mark.parametrize("normalise", [True, False])
def test_few_rows_have_values_within_range(name, n, d, normalise):
    m = moments(gaussian(n, d), normalise=normalise)
    if name == "alpha" and min(n - 1, d) < 4:
        with pytest.raises(ValueError, match="a fit needs at least 3"):
            METRICS[name](m)
    else:
        assert math.isfinite(METRICS[name](m))
    assert geometry.rankme(m) <= min(n, d) + 1e-3
    assert geometry.rankme(m, centred=True) <= max(1, min(n - 1, d)) + 1e-3


CONSTANT = {
    "std": 0,
    "std_ratio": 0,
    "mean_energy": 1,
    "residual_energy": 0,
    "correlation": 1,
    "rankme": 1,
    "rankme of eigenvalues": 1,
    "rankme centred": 1,
    "participation": 1,
    "participation uncentred": 1,
    "alpha": math.inf,
    "auc": 1,
    "auc of eigenvalues": 1,
}


@pytest.mark.parametrize("normalise", [True, False])
def test_few_rows_have_the_spectrum_of_their_second_moment(normalise):
    cloud = uneven(24, 60)
    few = moments(cloud[:9].float(), normalise=normalise) + moments(cloud[9:].float(), normalise=normalise)
    many = Moments(few.count, few.total, few.second)
    assert few.rows is not None
    assert many.rows is None
    for one, other in ((few.eigenvalues, many.eigenvalues), (few.centred_eigenvalues, many.centred_eigenvalues)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13 * float(other[0]))
        assert one.shape == (60,)
    onto = moments(cloud[9:].float(), normalise=normalise, onto=moments(cloud[:9].float(), normalise=normalise))
    torch.testing.assert_close(onto.eigenvalues, few.eigenvalues, rtol=1e-12, atol=0)


def test_rows_are_kept_only_while_they_are_fewer_than_channels_and_as_a_copy():
    cloud = gaussian(24, 20)
    few = moments(cloud[:19], normalise=False)
    assert few.rows is not None
    assert moments(cloud[19:], normalise=False, onto=moments(cloud[:19], normalise=False)).rows is None
    assert (few + moments(cloud[:1])).rows is None
    before = few.eigenvalues.clone()
    cloud.zero_()
    assert torch.equal(Moments(few.count, few.total, few.second, few.rows).eigenvalues, before)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_constant_cloud_reads_as_collapse(name, dtype):
    cloud = gaussian(1, 16).to(dtype).repeat(50, 1)
    assert METRICS[name](moments(cloud)) == pytest.approx(CONSTANT[name], abs=1e-4)
    if name not in ("mean_energy", "residual_energy"):
        assert METRICS[name](moments(cloud, normalise=False)) == pytest.approx(CONSTANT[name], abs=1e-4)


@EVERY
@pytest.mark.parametrize("normalise", [True, False])
def test_a_zero_cloud_has_no_energy_and_reads_as_collapse(name, normalise):
    expected = 0 if name == "mean_energy" else CONSTANT[name]
    assert METRICS[name](moments(torch.zeros(20, 16), normalise=normalise)) == expected


@EVERY
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_read_nan(name, bad):
    cloud = gaussian(50, 16)
    cloud[3, 5] = bad
    assert math.isnan(METRICS[name](moments(cloud)))
    if name in SCALE_FREE:
        assert math.isnan(METRICS[name](moments(cloud, normalise=False)))


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_in_float64(name, dtype):
    cloud = gaussian(200, 16).to(dtype)
    assert METRICS[name](moments(cloud)) == METRICS[name](moments(cloud.double()))
    assert moments(cloud).second.dtype == torch.float64


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(0, 4), torch.zeros(3, 4, dtype=torch.int64)])
def test_other_shapes_and_types_are_refused(bad):
    for read in (moments, geometry.unit_rows):
        with pytest.raises(ValueError, match=r"features: found shape .*; expected floating \(N, D\)"):
            read(bad)


@pytest.mark.parametrize(
    ("covariance", "count", "message"),
    [
        (torch.ones(2, 3), 5, r"covariance: found shape \(2, 3\); expected a symmetric \(D, D\)"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 5, "expected a symmetric"),
        (torch.eye(2), 0, "count: found 0, expected at least 1 row"),
        (torch.eye(2, dtype=torch.int64), 5, "covariance: found shape .*, torch.int64; expected floating"),
    ],
)
def test_matrices_that_are_no_covariance_are_refused(covariance, count, message):
    with pytest.raises(ValueError, match=message):
        covariance_moments(covariance, count)
