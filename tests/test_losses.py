"""What the losses are, against formulae written out."""

import math

import pytest
import torch

from collapse_lab.losses import LOSSES, cross_entropy, mse, negative_cosine


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


def test_negative_cosine_is_half_the_squared_distance_of_unit_vectors_less_one():
    p, t = pair(2, 5, 8)
    unit = torch.nn.functional.normalize
    assert negative_cosine(p, t).item() == pytest.approx(mse(unit(p, dim=-1), unit(t, dim=-1)).item() / 2 - 1, abs=1e-6)
    assert negative_cosine(3 * p, t / 7).item() == pytest.approx(negative_cosine(p, t).item(), abs=1e-6)


def test_mse_sums_channels_and_averages_rows():
    p, t = pair(2, 5, 8)
    assert mse(p, t).item() == pytest.approx(
        sum((p[v, n] - t[v, n]).norm() ** 2 for v in range(2) for n in range(5)) / 10
    )


def test_cross_entropy_is_least_at_the_target_where_it_is_its_entropy():
    p, t = pair(4, 6)
    entropy = torch.distributions.Categorical(logits=t).entropy().mean().item()
    assert cross_entropy(t, t).item() == pytest.approx(entropy, abs=1e-6)
    assert cross_entropy(p, t).item() > entropy
    assert cross_entropy(torch.zeros(3, 6), torch.zeros(3, 6)).item() == pytest.approx(math.log(6), abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_are_float32_whatever_comes_in_and_detach_nothing(loss):
    p, t = (x.bfloat16().requires_grad_() for x in pair(4, 6))
    value = loss(p, t)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(p.float(), t.float()).item())
    assert p.grad.abs().sum() > 0
    assert t.grad.abs().sum() > 0
