"""The watch under the ways people train: autocast, accumulation, checkpointing, compilation, several processes."""

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import ddp_watch
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from collapse_lab import geometry
from collapse_lab.monitors import FULL, STANDARD, Statistic, Watch
from collapse_lab.monitors.recorder import backward_on_stack, even_share, inside_backward

ROOT = Path(__file__).resolve().parents[1]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Linear(16, 8)
        return nn.Sequential(*layers)


def batches(count: int = 4, rows: int = 40) -> torch.Tensor:
    return torch.randn(count, rows, 12, generator=torch.Generator().manual_seed(1))


def train(model, watch=None, forward=None, micro=1, autocast=False):
    """Train on all batches, each in ``micro`` parts; readings and final weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    readings = []
    for batch in batches():
        for part in batch.chunk(micro):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = (forward or model)(part).float().square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if watch:
            readings += watch.step()
    return readings, list(model.state_dict().values())


def checkpointed(reentrant: bool):
    def forward(model):
        return lambda x: checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    return forward


WAYS = {
    "autocast": {"autocast": True},
    "accumulation": {"micro": 4},
    "checkpointing": {"wrap": checkpointed(False)},
    "reentrant checkpointing": {"wrap": checkpointed(True)},
}


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_to_the_bit_whatever_the_way(way):
    results = []
    for watched in (False, True):
        options, model = dict(WAYS[way]), network()
        wrap = options.pop("wrap", lambda model: model)
        watch = Watch(model, ["*"], every=2, statistics=FULL) if watched else None
        results.append(train(model, watch, wrap(model), **options)[1])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_reads_what_training_without_it_reads(reentrant):
    plain, model = network(), network()
    with Watch(plain, ["3", "0"], every=1) as watch:
        expected, _ = train(plain, watch)
    with Watch(model, ["3", "0"], every=1) as watch:
        readings, _ = train(model, watch, checkpointed(reentrant)(model))
    # Weights agree exactly only without reentrant checkpointing; BatchNorm's output does not depend on its buffers.
    assert [r.value for r in readings] == pytest.approx([r.value for r in expected], rel=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_backward_is_recognised_with_and_without_private_functions(reentrant):
    model, seen = network(), []
    model[0].register_forward_hook(lambda *_: seen.append((inside_backward(), backward_on_stack())))
    checkpointed(reentrant)(model)(batches()[0]).sum().backward()
    assert seen == [(False, False), (True, True)]


def test_micro_batches_of_one_step_are_pooled():
    model = network()[:1]
    with Watch(model, ["0"], every=1) as watch:
        whole, _ = train(model, watch)
    model = network()[:1]
    with Watch(model, ["0"], every=1) as watch:
        parts, _ = train(model, watch, micro=4)
    first = len(STANDARD)
    assert [r.value for r in parts[:first]] == pytest.approx([r.value for r in whole[:first]], rel=1e-6)
    assert [r.step for r in parts] == [r.step for r in whole]


def test_under_autocast_moments_are_float64_of_the_half_precision_outputs():
    model, outputs = network(), []
    model[3].register_forward_hook(lambda module, inputs, output: outputs.append(output.detach().clone()))
    with Watch(model, ["3"], every=1) as watch, torch.autocast("cpu", torch.bfloat16):
        model(batches()[0])
        gathered = watch._recorders[0].take()
    assert outputs[0].dtype == torch.bfloat16
    assert gathered.moments.second.dtype == torch.float64
    assert torch.equal(gathered.moments.second, geometry.moments(outputs[0]).second)


def test_calls_in_inference_mode_without_gradients_and_with_them_are_pooled():
    model, modes = network(), (torch.inference_mode, torch.no_grad, torch.enable_grad)
    values = []
    for first, second in [(mode, mode) for mode in modes] + list(permutations(modes, 2)):
        with Watch(model, ["0"], every=1, statistics=FULL) as watch:
            for mode, batch in zip((first, second), batches(2), strict=True):
                with mode():
                    model(batch)
            values.append([r.value for r in watch.step()])
    assert all(found == values[0] for found in values[1:])


# Dynamo looks at .grad of every tensor and hides its own warning, which "error" turns into a failure all the same.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("every", [1, 3])
def test_a_model_compiled_after_the_watch_reads_the_same(every):
    readings = []
    for compiled in (False, True):
        torch._dynamo.reset()
        model = network()
        with Watch(model, ["0", "3"], every) as watch:
            forward = torch.compile(model, backend="aot_eager") if compiled else model
            readings.append(train(model, watch, forward)[0])
    assert readings[0]
    assert [r[:-1] for r in readings[1]] == [r[:-1] for r in readings[0]]
    assert [r.value for r in readings[1]] == pytest.approx([r.value for r in readings[0]], rel=1e-4)


def test_a_watch_after_the_first_compiled_call_is_an_error_and_not_silence():
    torch._dynamo.reset()
    model = network()
    compiled = torch.compile(model, backend="aot_eager")
    compiled(batches()[0])
    with Watch(compiled, ["3"], every=2) as watch:
        compiled(batches()[0])
        assert watch.step() == []
        compiled(batches()[0])
        with pytest.raises(RuntimeError, match="was the watch attached before the model was compiled"):
            watch.step()


class Operations(TorchDispatchMode):
    """Names of all operations that reach the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


def test_off_schedule_not_one_operation_is_added_and_on_schedule_only_step_waits_for_the_device():
    def operations(watch, model):
        with Operations() as seen:
            model(batches()[0]).sum().backward()
        return seen.names

    plain = operations(None, network())
    model = network()
    with Watch(model, ["*"], every=2, statistics=FULL) as watch:
        assert operations(watch, model) == plain
        with Operations() as stepping:
            watch.step()
        assert stepping.names == []
        gathering = operations(watch, model)
        with Operations() as reading:
            assert watch.step()
    assert len(gathering) > len(plain)
    # What copies a number to Python, and so waits, is _local_scalar_dense.
    assert "_local_scalar_dense" not in gathering
    assert "_local_scalar_dense" in reading.names


def test_a_window_pools_its_steps_and_no_row_twice():
    model, outputs = network()[:1], []
    model[0].register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
    rows = Statistic("rows", lambda gathered: {0: gathered.moments.count}, "moments", "", "", "", "", "", "")
    statistics = (*STANDARD, rows)
    with Watch(model, ["0"], every=4, window=3, statistics=statistics) as watch:
        readings = []
        for batch in batches(8):
            model(batch)
            readings += watch.step()
    last = geometry.moments(torch.cat(outputs[5:8]))
    found = {r.metric: r.value for r in readings if r.step == 8}
    assert {r.step for r in readings} == {4, 8}
    assert found["rows"] == 3 * 40
    assert found["rankme"] == pytest.approx(geometry.rankme(last), rel=1e-9)
    with Watch(model, ["0"], every=2, window=5, statistics=(rows,)) as watch:
        counts = []
        for batch in batches(6):
            model(batch)
            counts += [r.value for r in watch.step()]
    assert counts == [80, 80, 80]


def test_rows_are_those_of_the_last_step_and_at_most_1024():
    seen = []

    def keep(gathered):
        seen.append(gathered.rows)
        return {}

    whole = Statistic("rows", keep, "rows", "", "", "", "", "", "")
    model = nn.ModuleDict({"id": nn.Identity()})
    with Watch(model, ["id"], every=2, window=2, statistics=(whole,)) as watch:
        for views in torch.randn(2, 2, 700, 3, generator=torch.Generator().manual_seed(0)):
            for view in views:
                model["id"](view)
            watch.step()
    (calls,) = seen
    assert [len(rows) for rows in calls] == [512, 512]
    for rows, view in zip(calls, views, strict=True):
        torch.testing.assert_close(rows, nn.functional.normalize(view[:512].double(), dim=1))


def test_even_share_copies_what_it_cuts():
    (cut,) = even_share([torch.ones(2000, 2)], most=10)
    assert cut.untyped_storage().nbytes() == 10 * 2 * 4


def test_raw_moments_are_those_of_rows_as_they_are():
    raw = Statistic("raw", lambda g: {0: float(g.raw.second.trace()), 1: g.raw.count}, "raw", "", "", "", "", "", "")
    model = nn.ModuleDict({"id": nn.Identity()})
    with Watch(model, ["id"], every=1, statistics=(raw,)) as watch:
        model["id"](3 * torch.eye(4))
        model["id"](torch.eye(4))
        assert [r.value for r in watch.step()] == [4 * 9 + 4, 8]


def test_rows_of_another_width_are_refused():
    model = nn.ModuleDict({"id": nn.Identity()})
    with Watch(model, ["id"], every=1):
        model["id"](torch.ones(2, 3))
        with pytest.raises(ValueError, match="layer 'id': found rows of 4 channels after rows of 3"):
            model["id"](torch.ones(2, 4))


def test_reduce_without_a_process_group_and_no_window_are_refused():
    with pytest.raises(ValueError, match="reduce: there is no process group"):
        Watch(network(), ["3"], every=1, reduce=True)
    with pytest.raises(ValueError, match="window: found 0"):
        Watch(network(), ["3"], every=1, window=0)


def test_two_processes_read_what_one_process_reads_and_stop_together(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "OUT": str(tmp_path)}
    done = subprocess.run([*command, ddp_watch.__file__], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    model = ddp_watch.network()
    with Watch(model, ["0", "2"], every=2, statistics=FULL) as watch:
        alone = ddp_watch.train(model, watch)
    assert first == second
    assert [tuple(r[:-1]) for r in first] == [r[:-1] for r in alone]
    assert {r.step for r in alone} == {2, 4}
    assert [r[-1] for r in first] == pytest.approx([r.value for r in alone], rel=1e-5, abs=1e-7)
    # On step 6 only rank 0 ran the network.
    errors = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert "layer '0' did not run in training mode on step 6 on some process" in errors[0]
    assert "layer '0' did not run in training mode on step 6" in errors[1]
