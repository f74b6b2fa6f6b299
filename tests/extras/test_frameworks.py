"""Adapters, examples and sinks against the real frameworks, in real fits on digits."""

import csv
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from collapse_lab import geometry
from collapse_lab.monitors import Watch, sinks

pytestmark = pytest.mark.extras
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def hooks(model: nn.Module) -> list:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


class Outputs(list):
    """The outputs of a module by step, as a hook of our own keeps them: what the watch has to agree with."""

    def __init__(self, module: nn.Module):
        super().__init__([[]])
        self.handle = module.register_forward_hook(lambda *call: self[-1].append(call[2].detach().clone()))

    def next_step(self, readings):
        self.append([])

    def std(self) -> list[float]:
        return [geometry.std(geometry.moments(torch.cat(calls))) for calls in self if calls]


@pytest.mark.parametrize("accumulate", [1, 7])
def test_lightning_logs_what_the_outputs_were(tmp_path, accumulate):
    example = importlib.import_module("lightning_callback")
    model = example.LightningSimSiam()
    outputs = Outputs(model.model.projector)
    trainer = example.main(tmp_path, model, every=1, accumulate=accumulate, sinks=[outputs.next_step])
    with (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
        logged = {int(row["step"]): row["projector/std"] for row in csv.DictReader(file) if row["projector/std"]}
    assert trainer.global_step == 28 // accumulate
    assert {len(calls) for calls in outputs if calls} == {2 * accumulate}
    assert list(logged) == list(range(1, trainer.global_step + 1))
    assert [float(value) for value in logged.values()] == pytest.approx(outputs.std(), rel=1e-6)
    outputs.handle.remove()
    assert hooks(model) == []


def test_lightning_lets_go_after_an_exception(tmp_path):
    example = importlib.import_module("lightning_callback")
    model, attached = example.LightningSimSiam(), []

    def fail(readings):
        attached.extend(hooks(model))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        example.main(tmp_path, model, every=2, sinks=[fail])
    assert len(attached) == 2
    assert hooks(model) == []


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_trainer_of_transformers_records_what_the_outputs_were(tmp_path, accumulate):
    example = importlib.import_module("huggingface_trainer")
    model = example.ViTSimSiam()
    outputs = Outputs(model.projector)
    trainer = example.main(tmp_path, model, steps=6, every=1, accumulate=accumulate, sinks=[outputs.next_step])
    history = [entry for entry in trainer.state.log_history if "projector/std" in entry]
    assert {len(calls) for calls in outputs if calls} == {2 * accumulate}
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert [entry["projector/std"] for entry in history] == pytest.approx(outputs.std(), rel=1e-9)
    assert {"patches/std", "class token/std"} < set(history[0])
    outputs.handle.remove()
    assert hooks(model) == []


def test_lightly_in_its_plain_loop():
    readings = importlib.import_module("lightly_simsiam").main(epochs=1, every=7)
    values = {(r.step, r.layer): r.value for r in readings if r.metric == "std_ratio"}
    layers = ("backbone", "projection_head", "prediction_head")
    assert list(values) == [(step, layer) for step in (7, 14) for layer in layers]
    # lightly's projector ends in BatchNorm, which keeps every channel's std up whatever the network does.
    assert values[14, "projection_head"] == pytest.approx(1, abs=0.05)


def small_watch(*into):
    model = nn.ModuleDict({"layer": nn.Linear(6, 5)})
    generator, found = torch.Generator().manual_seed(0), []
    with Watch(model, ["layer"], every=2, sinks=into) as watch:
        for _ in range(6):
            model["layer"](torch.randn(30, 6, generator=generator))
            found += watch.step()
    return found


def test_tensorboard_reads_back_what_was_read(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        readings = small_watch(sinks.tensorboard(writer))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in {f"{r.layer}/{r.metric}" for r in readings}:
        expected = [(r.step, pytest.approx(r.value, rel=1e-6)) for r in readings if f"{r.layer}/{r.metric}" == name]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected


def test_weights_and_biases_keeps_its_own_step(tmp_path):
    import wandb

    with wandb.init(mode="offline", dir=tmp_path, project="watch", settings=wandb.Settings(silent=True)) as run:
        run.log({"loss": 1.0}, step=50)
        readings = small_watch(sinks.wandb(run))
        run.log({"loss": 0.5}, step=100)
        summary = dict(run.summary)
    last = sinks.scalars([r for r in readings if r.step == 6])
    assert {name: summary[name] for name in last} == pytest.approx(last)
    assert summary["watch/step"] == 6


def test_inductor_reads_what_the_plain_model_reads():
    torch._dynamo.reset()
    values = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
        with Watch(model, ["1", "3"], every=2) as watch:
            forward, found = torch.compile(model) if compiled else model, []
            for batch in torch.randn(4, 40, 12, generator=torch.Generator().manual_seed(1)):
                forward(batch).square().mean().backward()
                found += watch.step()
        values.append([r.value for r in found])
    assert values[0]
    assert values[1] == pytest.approx(values[0], rel=1e-4)
