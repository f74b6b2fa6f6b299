"""LARS against its formula computed by hand, against SGD, and against itself resumed."""

import copy

import pytest
import torch

from collapse_lab.optimizers import LARS


def weights(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def stepped(optimizer: torch.optim.Optimizer, weight: torch.Tensor, *gradients: torch.Tensor) -> torch.Tensor:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_two_steps_by_hand():
    weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    optimizer = LARS([weight], 2.0, momentum=0.5, weight_decay=0.1, trust=0.01, epsilon=1e-300)
    # |w| = 5, |g| = 2: s = 0.01 * 5 / (2 + 0.5) = 0.02, v = 0.02 * (2 + 0.3, 0.4) = (0.046, 0.008).
    stepped(optimizer, weight, torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    assert weight.detach().tolist() == [pytest.approx([2.908, 3.984])]
    norm = (2.908**2 + 3.984**2) ** 0.5
    scale = 0.01 * norm / (1 + 0.1 * norm)
    first, second = 0.5 * 0.046 + scale * 0.2908, 0.5 * 0.008 + scale * (1 + 0.3984)
    stepped(optimizer, weight, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert weight.detach().tolist() == [pytest.approx([2.908 - 2 * first, 3.984 - 2 * second])]


def test_a_gradient_scaled_leaves_the_step_as_it_is():
    weight, gradient = weights(0, 4, 5), weights(1, 4, 5).detach()
    other = weight.detach().clone().requires_grad_()
    one = stepped(LARS([weight], 1.0, epsilon=1e-300), weight, gradient, 2 * gradient)
    two = stepped(LARS([other], 1.0, epsilon=1e-300), other, 1e6 * gradient, 2e-6 * gradient)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)


def test_the_first_step_is_a_given_share_of_the_weights():
    weight = weights(0, 7, 3)
    before = weight.detach().clone()
    after = stepped(LARS([weight], 3.0, trust=0.02), weight, weights(1, 7, 3).detach())
    assert (after - before).norm().item() == pytest.approx(3.0 * 0.02 * before.norm().item(), rel=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_excluded_vectors_are_trained_as_by_sgd_without_weight_decay(momentum):
    weight = weights(0, 6)
    other = weight.detach().clone().requires_grad_()
    gradients = [weights(seed, 6).detach() for seed in (1, 2, 3)]
    lars = LARS([weight], 0.1, momentum=momentum, weight_decay=0.1, exclude_1d=True)
    plain = torch.optim.SGD([other], 0.1, momentum=momentum)
    torch.testing.assert_close(stepped(lars, weight, *gradients), stepped(plain, other, *gradients))


def test_zero_weights_move_as_by_sgd_and_zero_gradients_only_decay():
    bias = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    gradient = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    assert torch.equal(stepped(LARS([bias], 0.1), bias, gradient), -0.1 * gradient)
    weight = weights(0, 2, 2)
    before = weight.detach().clone()
    after = stepped(LARS([weight], 0.1, weight_decay=0.01), weight, torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.01))


def test_resumed_from_its_state_it_goes_on_bit_for_bit():
    gradients = [weights(seed, 4, 4).detach() for seed in range(1, 7)]
    whole, halves = weights(0, 4, 4), weights(0, 4, 4)
    expected = stepped(LARS([whole], 0.5), whole, *gradients)
    first = LARS([halves], 0.5)
    stepped(first, halves, *gradients[:3])
    second = LARS([halves], 9.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(stepped(second, halves, *gradients[3:]), expected)


def test_groups_have_their_own_settings_and_a_parameter_without_gradient_stays():
    one, two, still = weights(0, 2, 2), weights(0, 2, 2), weights(3, 2, 2)
    optimizer = LARS([{"params": [one]}, {"params": [two, still], "lr": 2.0}], 1.0)
    start, unmoved = one.detach().clone(), still.detach().clone()
    one.grad = two.grad = torch.ones(2, 2, dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(2 * (one.detach() - start), two.detach() - start)
    assert torch.equal(still.detach(), unmoved)


def test_a_closure_gives_the_loss_and_is_differentiated():
    weight = weights(0, 3, 3)
    optimizer = LARS([weight], 1.0)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    expected = weight.detach().square().sum().item()
    assert optimizer.step(closure) == expected
    assert weight.detach().square().sum().item() < expected


@pytest.mark.parametrize("bad", [{"lr": -1}, {"momentum": 1.0}, {"weight_decay": -1e-4}, {"trust": 0}, {"epsilon": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"^lr, momentum, weight_decay, trust, epsilon: found"):
        LARS([weights(0, 2)], **{"lr": 0.1, **bad})
