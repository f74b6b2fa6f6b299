"""Several processes, each with its share of the batch, train as one process with all of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes

from collapse_lab.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.long)])
def together(request, tmp_path_factory):
    """The final states of every method at every rank."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={request.param}"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "OUT": str(out)}
    done = subprocess.run(
        [*command, two_processes.__file__], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.parametrize("name", METHODS)
def test_ranks_end_with_the_weights_memories_and_queues_of_one_process(together, name):
    alone = two_processes.trained(name)
    for state in (ranks[name] for ranks in together):
        for key, value in alone.items():
            # Queues hold the same targets in another order: those of a view before those of the next, rank by rank.
            one, other = (x.sort(0).values if key.endswith("queue") else x.float() for x in (value, state[key]))
            torch.testing.assert_close(other, one, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")
