"""Alignment, uniformity and LiDAR against slow, obvious code, theory and the ends of their ranges."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from clouds import draws, gaussian, rotation, seeds
from hypothesis import given
from hypothesis import strategies as st

from collapse_lab.geometry import alignment, lidar, uniformity


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def grouped(n: int, q: int, d: int, signal: int, *, amplitude: float = 1, noise: float = 1, seed: int = 0):
    """q noisy views of each of n samples that differ in ``signal`` directions of d, and the sample of every row."""
    centres = amplitude * gaussian(n, 1, d, seed=seed) * (torch.arange(d) < signal)
    views = centres + noise * gaussian(n, q, d, seed=seed + 1)
    return views.flatten(0, 1), torch.arange(n).repeat_interleave(q)


# Alignment.


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_alignment_is_the_mean_distance_of_unit_rows(power):
    x, y = gaussian(40, 8), gaussian(40, 8, seed=1)
    obvious = [float((a - b).norm()) ** power for a, b in zip(unit(x), unit(y), strict=True)]
    assert alignment(x, y, power=power) == pytest.approx(sum(obvious) / 40, rel=1e-12)


def test_alignment_at_the_ends_of_its_range():
    x = gaussian(30, 8)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-24)
    assert alignment(x, -x) == pytest.approx(4, rel=1e-12)
    assert alignment(torch.ones(5, 3), torch.ones(5, 3)) == alignment(torch.zeros(5, 3), torch.zeros(5, 3)) == 0
    assert alignment(torch.ones(1, 3), -torch.ones(1, 3)) == pytest.approx(4)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_alignment_is_twice_one_minus_the_cosine_and_knows_no_scale_order_or_rotation(seed, scale):
    x, y = gaussian(20, 6, seed=seed), gaussian(20, 6, seed=seed + 1)
    order, turn = torch.randperm(20, generator=torch.Generator().manual_seed(seed)), rotation(6, seed)
    expected = 2 - 2 * torch.nn.functional.cosine_similarity(x, y).mean().item()
    assert alignment(x, y) == pytest.approx(expected, rel=1e-9)
    assert alignment(y[order] @ turn, scale * x[order] @ turn) == pytest.approx(expected, rel=1e-9)


def test_alignment_refuses_rows_that_cannot_be_paired():
    with pytest.raises(ValueError, match=r"y: found shape \(3, 4\), expected that of x, \(2, 4\)"):
        alignment(torch.ones(2, 4), torch.ones(3, 4))


# Uniformity.


def test_uniformity_is_the_mean_over_all_pairs():
    rows = unit(gaussian(30, 5))
    kernels = [math.exp(-2 * float((rows[i] - rows[j]).square().sum())) for i in range(30) for j in range(i)]
    assert uniformity(gaussian(30, 5)) == pytest.approx(math.log(sum(kernels) / len(kernels)), rel=1e-12)


@pytest.mark.parametrize(
    ("d", "bound"),
    [(32, -3.751805), (64, -3.875236), (128, -3.937530), (256, -3.968754), (512, -3.984375), (2048, -3.996094)],
)
def test_uniformity_of_an_isotropic_cloud_is_the_bound(d, bound):
    assert uniformity(gaussian(1448, d)) == pytest.approx(bound, abs=2e-3)


def test_uniformity_of_even_points_on_a_circle():
    n = 1448
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    value = uniformity(torch.stack([angle.cos(), angle.sin()], dim=1))
    with_equal_pairs = math.log((math.exp(value) * (n - 1) + 1) / n)
    assert with_equal_pairs == pytest.approx(-1.575027, abs=1e-6)


def test_uniformity_of_two_opposite_points():
    pair = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    assert uniformity(pair.repeat(500, 1)) == pytest.approx(-0.693813, abs=1e-6)
    assert uniformity(pair) == pytest.approx(-8)


def test_uniformity_hardly_sees_that_half_of_the_dimensions_are_gone():
    cloud = gaussian(1448, 128)
    moved = uniformity(cloud * (torch.arange(128) < 64)) - uniformity(cloud)
    assert moved == pytest.approx(-3.875236 + 3.937530, abs=3e-3)


@draws
@given(seed=seeds, scale=st.floats(1e-3, 1e3), t=st.floats(0.5, 50))
def test_uniformity_knows_no_scale_order_or_rotation(seed, scale, t):
    cloud = gaussian(20, 6, seed=seed) + 0.3
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    assert uniformity(scale * cloud[order] @ rotation(6, seed), t=t) == pytest.approx(uniformity(cloud, t=t), rel=1e-9)


def test_drawn_pairs_estimate_the_exact_value_and_repeat_with_their_seed():
    cloud = gaussian(700, 16) + 0.5
    exact = uniformity(cloud)
    drawn = [
        uniformity(cloud, most_pairs=40_000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn == pytest.approx([exact] * 5, abs=0.03)
    assert drawn != pytest.approx([exact] * 5, abs=1e-9)


def test_drawing_pairs_never_compares_a_row_with_itself_and_leaves_global_state_alone():
    state = torch.get_rng_state()
    value = uniformity(torch.eye(50), most_pairs=100, generator=torch.Generator().manual_seed(0))
    assert value == pytest.approx(-4)
    assert torch.equal(state, torch.get_rng_state())


def test_uniformity_of_constant_zero_and_not_finite_rows():
    assert uniformity(torch.ones(9, 4)) == uniformity(torch.zeros(9, 4)) == 0
    assert math.isnan(uniformity(torch.tensor([[1.0, 0.0], [math.nan, 0.0], [0.0, 1.0]])))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (torch.ones(1, 4), {}, "found 1 row, expected at least 2"),
        (torch.ones(5, 4), {"most_pairs": 9}, "generator: found None; 5 rows have over 9 pairs"),
        (torch.ones(5), {}, r"expected floating \(N, D\)"),
    ],
)
def test_uniformity_refuses_what_has_no_pairs(rows, options, message):
    with pytest.raises(ValueError, match=message):
        uniformity(rows, **options)


# LiDAR.


def test_lidar_solves_the_generalised_eigenproblem():
    rows, samples = grouped(60, 4, 7, 3)
    views = rows.reshape(60, 4, 7).numpy()
    between = np.cov(views.mean(1).T)
    within = np.mean([np.cov(sample.T) for sample in views], axis=0)
    for debias in (False, True):
        values = scipy.linalg.eigh(between - debias * within / 4, within + 1e-4 * np.eye(7), eigvals_only=True).clip(0)
        p = values / values.sum() + 1e-7
        assert lidar(rows, samples, debias=debias) == pytest.approx(np.exp(scipy.special.entr(p).sum()), rel=1e-9)


def test_lidar_of_signal_and_of_noise_alone():
    assert lidar(*grouped(1000, 10, 32, 8, amplitude=3)) == pytest.approx(9.5433, abs=0.15)
    assert lidar(*grouped(1000, 10, 32, 0)) == pytest.approx(31.4, abs=0.15)


def test_lidar_of_a_population():
    assert lidar(*grouped(20000, 10, 32, 8, amplitude=3)) == pytest.approx(9.5433, abs=0.03)
    assert lidar(*grouped(20000, 10, 32, 8, amplitude=3), debias=True) == pytest.approx(8, abs=0.05)


@pytest.mark.parametrize(("q", "plain", "debiased"), [(2, 51.2, 13.4), (5, 25.4, 6.7), (10, 13.9, 5.3), (50, 5.9, 4.3)])
def test_taking_the_views_noise_off_leaves_the_rank_of_the_signal(q, plain, debiased):
    rows, samples = grouped(1000, q, 128, 4, noise=0.3)
    assert lidar(rows, samples) == pytest.approx(plain, rel=0.1)
    assert lidar(rows, samples, debias=True) == pytest.approx(debiased, rel=0.1)


@pytest.mark.parametrize(("signal", "true"), [(1, 1), (4, 4), (16, 16)])
def test_views_of_one_batch_grouped_by_position_carry_no_information(signal, true):
    rows, samples = grouped(500, 10, 64, signal, noise=0.1)
    by_view = rows.reshape(500, 10, 64).transpose(0, 1).flatten(0, 1)
    assert lidar(by_view, samples.reshape(500, 10).T.flatten(), debias=True) == pytest.approx(true, rel=0.15)
    assert lidar(by_view, samples) > 55


@draws
@given(seed=seeds)
def test_lidar_knows_no_order_numbering_rotation_or_shift(seed):
    rows, samples = grouped(30, 3, 6, 4, seed=seed)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(seed))
    for debias in (False, True):
        expected = lidar(rows, samples, debias=debias)
        moved = lidar(rows[order] @ rotation(6, seed) + 5, 100 - 3 * samples[order], debias=debias)
        assert moved == pytest.approx(expected, rel=1e-6)


@draws
@given(seed=seeds, scale=st.floats(1e-2, 1e2))
def test_lidar_knows_no_scale_where_delta_scales_along(seed, scale):
    rows, samples = grouped(30, 3, 6, 4, seed=seed)
    assert lidar(scale * rows, samples, delta=1e-4 * scale**2) == pytest.approx(lidar(rows, samples), rel=1e-6)


def test_lidar_takes_unequal_numbers_of_views():
    rows, samples = grouped(2000, 6, 32, 8, amplitude=3)
    keep = torch.rand(len(rows), generator=torch.Generator().manual_seed(0)) < 0.7
    assert lidar(rows[keep], samples[keep], debias=True) == pytest.approx(8, abs=0.4)


def test_lidar_of_constant_zero_few_and_not_finite_rows():
    samples = torch.arange(6).repeat_interleave(2)
    for rows in (torch.full((12, 5), 0.1), torch.zeros(12, 5), gaussian(1, 5).half().repeat(12, 1)):
        assert lidar(rows, samples) == lidar(rows, samples, debias=True) == 1
    assert 1 <= lidar(gaussian(12, 64), samples) <= 5.01
    assert lidar(gaussian(12, 5).bfloat16(), samples) == lidar(gaussian(12, 5).bfloat16().double(), samples)
    broken = gaussian(12, 5)
    broken[3, 2] = math.inf
    assert math.isnan(lidar(broken, samples))


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (torch.arange(5), {}, r"samples: found shape \(5,\), torch.int64; expected one whole number a row, \(6,\)"),
        (torch.zeros(6), {}, "torch.float32; expected one whole number"),
        (torch.zeros(6, dtype=torch.int64), {}, "found 1 samples in 6 rows; expected at least 2 samples"),
        (torch.arange(6), {}, "found 6 samples in 6 rows; .* one of them with 2 views"),
        (torch.tensor([0, 0, 1, 1, 2, 2]), {"delta": 0.0}, "delta: found 0.0, which leaves the covariance of views"),
    ],
)
def test_lidar_refuses_what_cannot_be_grouped(samples, options, message):
    with pytest.raises(ValueError, match=message):
        lidar(gaussian(6, 8), samples, **options)
