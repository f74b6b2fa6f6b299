"""Keyed random numbers: pure, well mixed, and independent of the batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from collapse_lab import draws

SAMPLES = torch.arange(20_000)


def test_finaliser_is_that_of_splitmix64():
    # The first outputs of the published generator from seed 0: the finaliser of multiples of its increment.
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = [(n * 0x9E3779B97F4A7C15) % 2**64 for n in (1, 2, 3)]
    assert [draws._mix_int(state) for state in states] == known
    tensor = torch.tensor([draws._signed(state) for state in states])
    assert draws._mix(tensor).tolist() == [draws._signed(value) for value in known]


def test_a_row_depends_on_its_sample_alone():
    whole = draws.uniforms(3, 5, 1, SAMPLES[:100], 7)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws.uniforms(3, 5, 1, order, 7), whole[order])
    assert torch.equal(torch.cat([draws.uniforms(3, 5, 1, part, 7) for part in SAMPLES[:100].split(13)]), whole)
    assert torch.equal(draws.uniforms(3, 5, 1, SAMPLES[:100], 4), whole[:, :4])


def test_every_part_of_the_key_changes_every_number():
    base = draws.uniforms(1, 2, 3, SAMPLES[:50], 5)
    others = [draws.uniforms(*key, SAMPLES[:50], 5) for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1))]
    assert all((base != other).all() for other in others)


@pytest.mark.parametrize("key", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**31, 799, 7)])
def test_numbers_are_uniform(key):
    values = draws.uniforms(*key, SAMPLES, 10)
    assert values.dtype == torch.float64
    assert ((values >= 0) & (values < 1)).all()
    p = [stats.kstest(column, "uniform").pvalue for column in values.T.numpy()]
    assert min(p) > 1e-4


def neighbours():
    base = draws.uniforms(0, 0, 0, SAMPLES, 4)
    yield "columns", base[:, 0], base[:, 1]
    yield "next sample, same column", base[:-1, 0], base[1:, 0]
    yield "next sample, next column", base[:-1, 1], base[1:, 0]
    yield "epochs", base[:, 0], draws.uniforms(0, 1, 0, SAMPLES, 1)[:, 0]
    yield "seeds", base[:, 0], draws.uniforms(1, 0, 0, SAMPLES, 1)[:, 0]
    yield "views", base[:, 0], draws.uniforms(0, 0, 1, SAMPLES, 1)[:, 0]
    yield "seed and epoch exchanged", *(draws.uniforms(*key, SAMPLES, 1)[:, 0] for key in ((0, 1, 0), (1, 0, 0)))


@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in neighbours()])
def test_neighbours_are_independent(one, other):
    table = np.histogram2d(one, other, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-4
    assert abs(stats.spearmanr(one, other).statistic) < 4 / np.sqrt(len(one))


def test_every_bit_is_fair():
    bits = (draws.uniforms(0, 0, 0, SAMPLES, 1)[:, 0] * 2**53).long()
    shares = torch.stack([(bits >> k & 1).double().mean() for k in range(53)])
    assert (shares - 0.5).abs().max() < 4.5 * 0.5 / len(SAMPLES) ** 0.5


def test_indices_are_checked():
    with pytest.raises(ValueError, match=r"samples: found torch.float32 of shape \(3,\), must be int64"):
        draws.uniforms(0, 0, 0, torch.zeros(3), 2)
    with pytest.raises(ValueError, match=r"shape \(1, 3\), must be int64 of shape \(N,\)"):
        draws.uniforms(0, 0, 0, torch.zeros(1, 3, dtype=torch.int64), 2)


def test_keys_differ_in_order_and_count():
    tuples = [numbers for count in range(4) for numbers in itertools.product((-1, 0, 1, 2, 2**40), repeat=count)]
    keys = {draws.key(*numbers) for numbers in tuples}
    assert len(keys) == len(tuples)
    assert all(0 <= key < 2**63 for key in keys)


def test_permutation_visits_all_once_and_differs_by_epoch():
    first, second, other = draws.permutation(0, 0, 1000), draws.permutation(0, 1, 1000), draws.permutation(1, 0, 1000)
    for order in (first, second, other):
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(first, draws.permutation(0, 0, 1000))
    assert min((first != second).sum(), (first != other).sum()) > 900


def test_global_state_is_left_alone():
    before = torch.random.get_rng_state()
    draws.permutation(0, 0, 10)
    draws.uniforms(0, 0, 0, SAMPLES[:3], 2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_draws_the_same_bits():
    on_gpu = draws.uniforms(4, 3, 2, SAMPLES.cuda(), 9).cpu()
    assert torch.equal(on_gpu, draws.uniforms(4, 3, 2, SAMPLES, 9))
