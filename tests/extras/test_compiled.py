"""A compiled run is the same run, and its watch sees every call."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from collapse_lab.compiled import compile_backbones
from collapse_lab.monitors import Watch
from collapse_lab.objective import Objective, build_objective
from collapse_lab.optimisation import optimizer, update
from collapse_lab.trainer import LAYERS
from tests.tiny import tiny

pytestmark = pytest.mark.extras

STEPS = (
    3  # The backend that captures graphs and runs them as they are keeps every bit; test_compiled_run has the compiler.
)


@pytest.fixture(autouse=True)
def afresh() -> None:
    torch._dynamo.reset()


def objective(method: str) -> Objective:
    return build_objective(tiny(method), torch.full((1,), 0.5), torch.full((1,), 0.3), 8, 48)


def readings(method: str, compiled: bool, layers: dict[str, str]) -> tuple[list[tuple], dict[str, Tensor]]:
    made = objective(method).train()
    if compiled:
        compile_backbones(made, backend="eager")
    sgd, found = optimizer(made, tiny(method).train), []
    with Watch(made, layers, every=1) as watch:
        for step in range(1, STEPS + 1):
            views = torch.rand(made.views, 16, 1, 8, 8, generator=torch.Generator().manual_seed(step))
            update(made, sgd, views, torch.arange(16), step)
            found += watch.step()
    return found, made.state_dict()


@pytest.mark.parametrize("method", ["simsiam", "byol"])
def test_readings_and_weights_are_those_of_the_plain_run(method: str) -> None:
    plain, weights = readings(method, False, LAYERS)
    compiled, compiled_weights = readings(method, True, LAYERS)
    assert compiled == plain
    assert list(compiled_weights) == list(weights)
    assert all(torch.equal(compiled_weights[name], weight) for name, weight in weights.items())


def test_the_networks_are_compiled_indeed_the_targets_too() -> None:
    made = objective("byol")
    compile_backbones(made, backend="eager")
    assert made.encoder.backbone[1]._compiled_call_impl is not None
    assert made.target.network.copy.backbone[1]._compiled_call_impl is not None


def test_layers_of_a_run_may_be_watched_after_the_first_call_and_others_raise() -> None:
    made = objective("simsiam").train()
    compile_backbones(made, backend="eager")
    views = torch.rand(2, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made(views, torch.arange(16))
    with Watch(made, LAYERS, every=1) as watch:
        made(views, torch.arange(16))
        assert {reading.layer for reading in watch.step()} == set(LAYERS)
    with Watch(made, ["encoder.backbone.1.0"], every=1) as watch:
        made(views, torch.arange(16))
        with pytest.raises(RuntimeError, match="was the watch attached before the model was compiled"):
            watch.step()


def test_a_copy_has_weights_of_its_own_and_is_not_compiled() -> None:
    made = objective("simsiam").eval()
    compile_backbones(made, backend="eager")
    views = torch.rand(2, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = made.encoder(views[0])
        copied = copy.deepcopy(made)
        copied.encoder.backbone[1][0][0].weight.zero_()
        assert copied.encoder.backbone[1]._compiled_call_impl is None
        assert torch.equal(made.encoder(views[0]), before)
        assert not torch.allclose(copied.encoder(views[0]), before)
