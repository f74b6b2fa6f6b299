"""The contract of the watch, on a real network in a real loop."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from collapse_lab import geometry
from collapse_lab.monitors import SPECTRUM, Watch
from collapse_lab.monitors.statistics import log_spaced_ranks
from collapse_lab.monitors.tap import Tap


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.Dropout(0.5))
        return nn.Sequential(stem, head)


def batches(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(20, 1, 8, 8, generator=generator) for _ in range(count)]


def trained(model: nn.Module, watch: Watch | None = None) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Losses and random state after training on all batches with SGD."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for batch in batches():
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if watch:
            watch.step()
    return losses, torch.get_rng_state()


def value(readings, layer: str, metric: str) -> float:
    (found,) = [r.value for r in readings if r.layer == layer and r.metric == metric and r.index == 0]
    return found


def test_training_is_the_same_to_the_bit_with_and_without_a_watch():
    plain, watched = network(), network()
    losses, state = trained(plain)
    with Watch(watched, ["*"], every=1) as watch:
        losses_watched, state_watched = trained(watched, watch)
    assert all(torch.equal(a, b) for a, b in zip(losses, losses_watched, strict=True))
    assert torch.equal(state, state_watched)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )


def test_readings_are_the_geometry_of_the_outputs():
    model = network()
    outputs: list[torch.Tensor] = []
    model[1][2].register_forward_hook(lambda module, inputs, output: outputs.append(output.detach().clone()))
    with Watch(model, ["1.2"], every=1) as watch:
        model(batches()[0])
        model(batches()[1])
        readings = watch.step()
    m = geometry.moments(torch.cat(outputs))
    assert value(readings, "1.2", "std") == pytest.approx(geometry.std(m), rel=1e-12)
    assert value(readings, "1.2", "rankme") == pytest.approx(geometry.rankme(m), rel=1e-9)
    assert value(readings, "1.2", "mean_energy") == pytest.approx(geometry.mean_energy(m), rel=1e-12)
    assert {r.step for r in readings} == {1}


def test_readings_do_not_depend_on_how_a_step_is_split():
    layer = nn.Linear(6, 5)
    batch = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    results = []
    for parts in ([30], [7, 23], [10, 10, 10]):
        with Watch(nn.ModuleDict({"layer": layer}), ["layer"], every=1) as watch:
            for part in batch.split(parts):
                layer(part)
            results.append([r.value for r in watch.step()])
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert results[0] == pytest.approx(results[2], rel=1e-6)


def test_feature_maps_are_averaged_over_space():
    features = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    (rows,) = Tap("layer").read(features)
    torch.testing.assert_close(rows, features.mean((2, 3)))


def test_only_scheduled_steps_are_read():
    for every, expected in ((3, [3, 6]), (lambda step: step in (1, 4), [1, 4])):
        layer = nn.Linear(2, 2)
        with Watch(nn.ModuleDict({"layer": layer}), ["layer"], every) as watch:
            read = []
            for _ in range(7):
                layer(torch.eye(2))
                read += [r.step for r in watch.step() if r.metric == "std"]
        assert read == expected


def test_off_schedule_nothing_is_gathered():
    layer = nn.Linear(2, 2)
    with Watch(nn.ModuleDict({"layer": layer}), ["layer"], every=2) as watch:
        layer(100 * torch.eye(2))
        assert watch.step() == []
        layer(torch.ones(3, 2))
        readings = watch.step()
    assert value(readings, "layer", "std") == pytest.approx(0, abs=1e-7)


def test_hooks_leave_with_the_context_even_when_the_body_raises():
    model = network()
    with pytest.raises(ZeroDivisionError), Watch(model, ["*"], every=1):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_keeps_the_outputs_or_their_graph_alive():
    model = network()
    outputs = []
    model[1][2].register_forward_hook(lambda module, inputs, output: outputs.append(weakref.ref(output)))
    with Watch(model, ["1.2"], every=1) as watch:
        model(batches()[0])
        gc.collect()
        assert [output() for output in outputs] == [None]
        gathered = watch._recorders[0].take()
    assert not gathered.moments.total.requires_grad
    assert not gathered.moments.second.requires_grad


def test_outputs_in_eval_mode_do_not_count():
    model = network()
    with Watch(model, ["1.2"], every=1) as watch:
        model(batches()[0])
        model.eval()
        model(batches()[1])
        both = watch.step()
        model.train()
    with Watch(model, ["1.2"], every=1) as watch:
        model.eval()
        model(batches()[0])
        with pytest.raises(RuntimeError, match=r"layer '1.2' did not run in training mode on step 1"):
            watch.step()
    assert value(both, "1.2", "std") > 0


def test_a_second_firing_inside_backward_does_not_count():
    layer = nn.Linear(6, 5)
    holder = nn.ModuleDict({"layer": layer})
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    with Watch(holder, ["layer"], every=1) as watch:
        checkpoint(lambda rows: layer(rows).tanh(), x, use_reentrant=False).sum().backward()
        assert len(calls) == 2
        assert watch._recorders[0].take().moments.count == 9


def test_names_are_globs_labels_and_free_of_wrapper_prefixes():
    model = network()
    wrapped = nn.ModuleDict({"module": model})
    for watched, layers, expected in (
        (model, ["1.*"], ["1.0", "1.1", "1.2", "1.3"]),
        (model, {"head": "1.2"}, ["head"]),
        (wrapped, ["1.2"], ["1.2"]),
        (torch.compile(model, backend="eager"), ["1.2", "0"], ["1.2", "0"]),
    ):
        with Watch(watched, layers, every=1) as watch:
            assert [recorder.label for recorder in watch._recorders] == expected


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["1.22"], KeyError, "no layer is named '1.22'; the closest are 1.2"),
        ("1.2", TypeError, r"found '1.2' alone, expected a list: \['1.2'\]"),
    ],
)
def test_wrong_names_are_refused(layers, error, message):
    with pytest.raises(error, match=message):
        Watch(network(), layers, every=1)


def test_wrong_schedule_and_wrong_outputs_are_refused():
    with pytest.raises(ValueError, match="every: found 0, expected at least 1"):
        Watch(network(), ["1.2"], every=0)
    lstm = nn.ModuleDict({"lstm": nn.LSTM(3, 4)})
    with (
        Watch(lstm, ["lstm"], every=1),
        pytest.raises(ValueError, match="tap 'lstm': found tuple of Tensor, tuple; choose with pick="),
    ):
        lstm["lstm"](torch.zeros(2, 1, 3))


def test_not_finite_outputs_read_nan_instead_of_raising():
    layer = nn.Linear(2, 2)
    with Watch(nn.ModuleDict({"layer": layer}), ["layer"], every=1) as watch:
        layer(torch.full((3, 2), torch.nan))
        readings = watch.step()
    assert all(r.value != r.value for r in readings)


def test_half_precision_is_accumulated_in_float64():
    layer = nn.Linear(16, 8)
    batch = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    with Watch(nn.ModuleDict({"layer": layer}), ["layer"], every=1) as watch:
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(batch)
        readings = watch.step()
    assert output.dtype == torch.bfloat16
    assert value(readings, "layer", "rankme") == geometry.rankme(geometry.moments(output.double()))


def test_the_spectrum_has_at_most_64_ranks_from_first_to_last():
    assert log_spaced_ranks(2048)[0] == 1
    assert log_spaced_ranks(2048)[-1] == 2048
    assert len(log_spaced_ranks(2048)) <= 64
    layer = nn.Linear(3, 3)
    with Watch(nn.ModuleDict({"layer": layer}), ["layer"], every=1, statistics=(SPECTRUM,)) as watch:
        layer(torch.eye(3))
        assert [r.index for r in watch.step()] == [1, 2, 3]


def test_importing_the_monitors_loads_torch_and_numpy_and_no_other_library():
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import collapse_lab.monitors; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    foreign = set(eval(loaded)) - set(sys.stdlib_module_names) - {"collapse_lab", "torch", "numpy"}
    assert not foreign
