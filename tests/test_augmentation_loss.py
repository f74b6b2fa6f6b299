"""The blog's equations on networks: exact over a finite set of views, as the linear toy says, and zero after collapse."""

import copy
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_lab import augment, data
from collapse_lab.augmentation_loss import (
    Fixed,
    augmentation_losses,
    draw_losses,
    first_order_error,
    gradient_moments,
)
from collapse_lab.config import build
from collapse_lab.evaluate import calibrated
from collapse_lab.expectation import Halves, comparison
from collapse_lab.objective import Objective, build_objective
from collapse_lab.presets import DATA
from collapse_lab.settings import Config

properties = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def short(**overrides: object) -> Config:
    extra = {key.replace("__", "."): value for key, value in overrides.items()}
    return build("simsiam", DATA["digits"], {"data.train_images": 320}, extra)


@pytest.fixture(scope="module")
def digits() -> data.Images:
    return data.load(short().data)


@pytest.fixture
def objective(digits) -> Objective:
    initial = build_objective(short(), *data.statistics(digits.train), 8, len(digits.train))
    return calibrated(initial, digits.train, (8, 8)).eval()


def gradient(loss: torch.Tensor, objective: Objective) -> torch.Tensor:
    weights = list(objective.encoder.parameters())
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights, retain_graph=True)])


@pytest.mark.parametrize("loss", ["negative-cosine", "mse"])
def test_equation_9_is_twice_equation_8_in_value_and_in_gradient(objective, digits, loss):
    # Four views as all the views there are, so that expectations are finite sums.
    objective = objective.double()
    f = comparison(loss).f
    index = torch.arange(6)
    views = augment.views(digits.train[:6], index, short().augment, seed=0, epoch=0, views=range(4)).double()
    outputs = torch.stack([f(objective.encoder(view)) for view in views])
    eta = outputs.mean(0)
    fixed = Fixed(Halves(eta, eta), eta)
    pairs = [draw_losses(one, other, fixed) for one, other in product(outputs, outputs)]
    eq8, eq9, _ = torch.stack(pairs).mean(0)
    torch.testing.assert_close(eq9, 2 * eq8, rtol=1e-10, atol=0)
    eight, nine = gradient(eq8, objective), gradient(eq9, objective)
    torch.testing.assert_close(nine, 2 * eight, rtol=1e-8, atol=1e-12)
    assert eight.norm() > 1e-3


def test_equation_8_needs_no_exact_eta_not_even_for_its_gradient(objective, digits):
    objective = objective.double()
    f = comparison("mse").f
    index = torch.arange(5)
    views = augment.views(digits.train[:5], index, short().augment, seed=0, epoch=0, views=range(3)).double()
    outputs = torch.stack([f(objective.encoder(view)) for view in views])
    eta = outputs.mean(0)
    sampled = torch.stack(
        [draw_losses(one, one, Fixed(Halves(a, b), eta))[0] for one, a, b in product(*3 * [outputs])]
    ).mean()
    exact = torch.stack([draw_losses(one, one, Fixed(Halves(eta, eta), eta))[0] for one in outputs]).mean()
    torch.testing.assert_close(sampled, exact, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient(sampled, objective), gradient(exact, objective), rtol=1e-8, atol=1e-12)


def test_in_the_linear_toy_all_three_have_the_same_relative_noise_and_10_is_8():
    # F = w x with T x = x + s e: (8) = s^2 |w|^2, each gradient a fixed matrix of chi-squares times w.
    s, w, count = 0.5, torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True), 4000
    losses = []

    def draw(number: int) -> torch.Tensor:
        first, second = s * gaussian(2, 1, 2, seed=number)
        at = torch.zeros(1, 1, dtype=torch.float64)
        drawn = draw_losses((first @ w)[:, None], (second @ w)[:, None], Fixed(Halves(at, at), at))
        losses.append(drawn.detach())
        return torch.stack([torch.autograd.grad(loss, w, retain_graph=True)[0] for loss in drawn])

    found = gradient_moments(map(draw, range(count)))
    size = s**2 * 5
    assert torch.stack(losses).mean(0).tolist() == pytest.approx([size, 2 * size, size], rel=0.1)
    assert found.products.diagonal().tolist() == pytest.approx([4 * s**4 * 5, 16 * s**4 * 5, 4 * s**4 * 5], rel=0.2)
    assert float(found.variances[1] / found.variances[0]) == pytest.approx(4, rel=0.15)
    assert found.variances[2] == pytest.approx(float(found.variances[0]), rel=1e-9)


@properties
@given(seed=seeds)
def test_moments_of_two_draws_are_unbiased_over_all_pairs(seed):
    population = gaussian(5, 2, 3, seed=seed)
    found = [gradient_moments(pair) for pair in product(population, population)]
    mean = population.mean(0)
    torch.testing.assert_close(torch.stack([moments.products for moments in found]).mean(0), mean @ mean.T)
    expected = (population - mean).square().sum(2).mean(0)
    torch.testing.assert_close(torch.stack([moments.variances for moments in found]).mean(0), expected)


def test_moments_of_many_draws_are_those_of_torch():
    gradients = gaussian(40, 2, 6) + 1
    found = gradient_moments(iter(gradients))
    torch.testing.assert_close(found.variances, gradients.var(0).sum(1))
    even, odd = gradients[::2].mean(0), gradients[1::2].mean(0)
    torch.testing.assert_close(found.products.diagonal(), (even * odd).sum(1))


@pytest.mark.parametrize("count", [0, 3])
def test_odd_numbers_of_draws_are_refused(count):
    with pytest.raises(ValueError, match=f"draws: found {count}; two equal halves"):
        gradient_moments(gaussian(count, 1, 2))


def test_a_linear_f_takes_the_mean_input_to_the_mean_output_and_a_curved_one_does_not():
    x, w = gaussian(8, 20, 5), gaussian(5, 3, seed=1)
    linear = (x @ w).mean(0)
    assert float(first_order_error(Fixed(Halves(linear, linear), x.mean(0) @ w))) == pytest.approx(0, abs=1e-12)
    curved = (x @ w).square().mean(0)
    gap = (x @ w).var(0, correction=0).square().sum(-1).mean()
    torch.testing.assert_close(first_order_error(Fixed(Halves(curved, curved), (x.mean(0) @ w).square())), gap)


def measured(objective: Objective, digits: data.Images, views=4, draws=2, count=8, batch_statistics=False) -> dict:
    settings = {"views": views, "draws": draws, "count": count, "batch_statistics": batch_statistics}
    return augmentation_losses(objective.encoder, digits.train, short(), **settings)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_on_a_network_the_values_agree_with_the_theory_and_leave_no_trace(objective, digits, batch_statistics):
    objective.train()
    before, state = copy.deepcopy(objective.state_dict()), torch.get_rng_state()
    found = measured(objective, digits, 8, 8, 48, batch_statistics)
    error = 4 * (found["eq9_loss_noise"] + found["eq8_loss_noise"]) / 8**0.5
    assert found["eq9_loss"] / found["eq8_loss"] == pytest.approx(2, abs=2 * error)
    assert found["eq9_gradient"] / found["eq8_gradient"] == pytest.approx(2, rel=0.2)
    assert found["cosine_eq8_eq9"] == pytest.approx(1, abs=0.1)
    assert found["eq8_gradient_noise"] == found["eq8_gradient_variance"] ** 0.5 / found["eq8_gradient"]
    assert found["first_order_error"] > 0
    assert objective.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in objective.state_dict().items())
    assert all(weight.grad is None for weight in objective.parameters())


def test_a_constant_output_loses_nothing_and_has_no_noise_to_speak_of(objective, digits):
    last = objective.encoder.projector[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    found = measured(objective, digits)
    for name in ("eq8_loss", "eq9_loss", "eq10_loss", "first_order_error"):
        assert found[name] == pytest.approx(0, abs=1e-12), name


def test_odd_views_are_refused(objective, digits):
    with pytest.raises(ValueError, match="views: found 3; two equal halves"):
        measured(objective, digits, views=3)


def test_running_statistics_count_only_where_they_are_asked_for(objective, digits):
    before = {mode: measured(objective, digits, batch_statistics=mode) for mode in (False, True)}
    for module in objective.encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean += 0.5
            module.running_var *= 2
    after = {mode: measured(objective, digits, batch_statistics=mode) for mode in (False, True)}
    assert before[True] == after[True]
    assert all(before[False][name] != after[False][name] for name in ("eq8_loss", "eq10_loss", "first_order_error"))
