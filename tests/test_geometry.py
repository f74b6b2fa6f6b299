"""Identities and reference values of the geometry of a cloud."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import geometry
from collapse_lab.geometry import Moments, moments

METRICS = [geometry.std, geometry.std_ratio, geometry.mean_energy, geometry.rankme]


def gaussian(n: int, d: int, seed: int = 0, eigenvalues: torch.Tensor | None = None) -> torch.Tensor:
    draw = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw if eigenvalues is None else draw * eigenvalues.sqrt()


def rotation(d: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(gaussian(d, d, seed)).Q


@pytest.mark.parametrize("d", [32, 64, 128, 256, 512])
def test_channel_variances_and_mean_energy_add_up_to_one(d):
    cloud = gaussian(300, d) * torch.linspace(0.1, 3, d) + 0.3
    rows = torch.nn.functional.normalize(cloud, dim=1)
    variances = rows.var(0, correction=0).sum().item()
    assert variances + geometry.mean_energy(moments(cloud)) == pytest.approx(1, abs=1e-12)
    bound = math.sqrt((1 - geometry.mean_energy(moments(cloud))) / d)
    assert 0 < geometry.std(moments(cloud)) <= bound + 1e-12


def test_std_is_the_papers_definition():
    cloud = gaussian(200, 16) + 1
    expected = torch.nn.functional.normalize(cloud, dim=1).std(0, correction=0).mean().item()
    assert geometry.std(moments(cloud)) == pytest.approx(expected, rel=1e-12)


def test_std_cannot_see_rank():
    v = torch.ones(64) / 8
    cloud = torch.stack([v, -v]).repeat(50, 1)
    assert geometry.std(moments(cloud)) == pytest.approx(0.125, rel=1e-6)
    assert geometry.rankme(moments(cloud)) == pytest.approx(1, abs=1e-3)


def test_ten_one_hot_clusters():
    cloud = torch.eye(64)[:10].repeat(7, 1)
    m = moments(cloud)
    assert geometry.std(m) == pytest.approx(0.046875, rel=1e-9)
    assert geometry.mean_energy(m) == pytest.approx(0.1, rel=1e-9)
    assert geometry.rankme(m) == pytest.approx(10, abs=1e-3)


@pytest.mark.parametrize(("d", "expected"), [(512, 1.000824), (2048, 1.003305)])
def test_rank_one_survives_the_second_moment(d, expected):
    cloud = torch.outer(gaussian(400, 1)[:, 0], gaussian(1, d)[0]).float()
    assert geometry.effective_rank(torch.eye(1, d)[0].double()) == pytest.approx(expected, abs=1e-6)
    assert geometry.rankme(moments(cloud)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        (torch.ones(128), 128.0),
        (1 / torch.arange(1, 129).double(), 107.047658),
        (torch.arange(1, 129).double() ** -2, 46.952451),
        (0.5 ** torch.arange(16.0), 7.682847),
        (torch.arange(128) < 64, 64.0),
    ],
)
def test_effective_rank_of_analytic_spectra(eigenvalues, expected):
    assert geometry.effective_rank(eigenvalues.double().sqrt(), epsilon=0) == pytest.approx(expected, abs=1e-6)


def test_effective_rank_of_a_flat_spectrum_exceeds_d_by_the_papers_epsilon():
    assert geometry.effective_rank(torch.ones(2048).double()) == pytest.approx(2050.7804, abs=1e-3)


@pytest.mark.parametrize(("n", "expected"), [(512, 123.65), (2048, 126.99)])
def test_rankme_of_a_gaussian(n, expected):
    assert geometry.rankme(moments(gaussian(n, 128))) == pytest.approx(expected, abs=0.3)


def test_spectrum_is_that_of_the_rows():
    cloud = gaussian(100, 20) * torch.linspace(0.01, 1, 20)
    rows = torch.nn.functional.normalize(cloud, dim=1)
    torch.testing.assert_close(geometry.spectrum(moments(cloud)), torch.linalg.svdvals(rows) / 10)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 99), st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_values_do_not_depend_on_split_order_or_scale(cut, scale, seed):
    cloud = gaussian(100, 8, seed) + 0.5
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    whole, split = moments(cloud), moments(scale * cloud[order][:cut]) + moments(cloud[order][cut:])
    for metric in METRICS:
        assert metric(split) == pytest.approx(metric(whole), rel=1e-9)


def test_rank_and_mean_energy_do_not_depend_on_rotation_but_std_does():
    cloud = torch.eye(64).double()[:10].repeat(7, 1)
    m, rotated = moments(cloud), moments(cloud @ rotation(64))
    assert geometry.rankme(rotated) == pytest.approx(geometry.rankme(m), abs=1e-4)
    assert geometry.mean_energy(rotated) == pytest.approx(geometry.mean_energy(m))
    assert geometry.std(rotated) > 2 * geometry.std(m)


@pytest.mark.parametrize(("n", "d"), [(1, 4), (3, 64), (100, 1)])
def test_few_rows_have_defined_values(n, d):
    m = moments(gaussian(n, d))
    assert all(math.isfinite(metric(m)) for metric in METRICS)
    assert geometry.rankme(m) <= min(n, d) + 1e-3


def test_constant_and_zero_clouds():
    constant, zero = moments(torch.ones(10, 8)), moments(torch.zeros(10, 8))
    assert geometry.std(constant) == pytest.approx(0, abs=1e-7)
    assert geometry.mean_energy(constant) == pytest.approx(1)
    assert geometry.rankme(constant) == pytest.approx(1, abs=1e-4)
    assert (geometry.std(zero), geometry.mean_energy(zero), geometry.rankme(zero)) == (0, 0, 1)


def test_half_precision_is_read_in_float64():
    cloud = gaussian(200, 16).bfloat16()
    assert geometry.rankme(moments(cloud)) == geometry.rankme(moments(cloud.double()))
    assert isinstance(moments(cloud), Moments)


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(0, 4), torch.zeros(3, 4, dtype=torch.int64)])
def test_other_shapes_and_types_are_refused(bad):
    with pytest.raises(ValueError, match=r"expected floating \(N, D\)"):
        moments(bad)
