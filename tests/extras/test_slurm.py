"""Runs as jobs of a real Slurm of one node, started and stopped here; skipped where it or munge is not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from collapse_lab import runs
from tests.extras.test_cluster import LONG, ROOT, starts, until
from tests.tiny import same, trained

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
pytestmark = [
    pytest.mark.extras,
    pytest.mark.skipif(any(shutil.which(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who starts jobs in other users' names"),
]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldPort={one}
SlurmdPort={other}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def ask(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    place, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().split(".")[0]
    one, other = free_ports()
    text = CONFIGURATION.format(place=place, host=host, one=one, other=other, cores=os.cpu_count())
    (place / "slurm.conf").write_text(text)
    (place / "munge.key").write_bytes(os.urandom(1024))
    (place / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (place / name).mkdir()
    monkeypatch.setenv("SLURM_CONF", str(place / "slurm.conf"))
    files = [f"--{what}-file={place}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={place}/munge.socket", *files],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
    ]
    ready = [(place / "munge.socket").exists, lambda: "UP" in ask("scontrol", "ping"), lambda: "idle" in ask("sinfo")]
    with ExitStack() as stack:
        for command, is_ready in zip(daemons, ready, strict=True):
            log = stack.enter_context((place / f"{command[0]}.log").open("w"))
            daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(daemon.wait, 60)
            stack.callback(daemon.terminate)
            until(is_ready, command[0])
        yield place
        ask("scancel", "--user=root")
        until(lambda: not ask("squeue", "--noheader"), "empty queue")


def test_jobs_that_slurm_queues_again_go_on_with_their_runs_to_the_byte(slurm, tmp_path):
    command = [sys.executable, "-m", "collapse_lab", "compare", *LONG, "--out", str(tmp_path), "--seeds", "2"]
    process = subprocess.Popen(
        [*command, "--jobs", "slurm", "--job", "cpus_per_task=1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    both = [tmp_path / "study" / "simsiam" / f"seed{seed}" for seed in (0, 1)]
    for run in both:
        until((run / "timing.csv").exists, "first epoch")
    (script,) = (tmp_path / "jobs").glob("*_submission.sh")
    array = script.name.split("_")[0]
    ask("scontrol", "requeue", f"{array}_0")
    ask("scancel", "--signal=USR2", f"{array}_1")

    def is_back(run: Path) -> bool:
        # Slurm would begin a job again after two minutes.
        ask("scontrol", "update", f"JobId={array}", "StartTime=now")
        return len(starts(run)) == 2

    for run in both:
        until(lambda run=run: is_back(run), "second start")
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    for number, run in enumerate(both):
        assert f"simsiam seed {number}: interrupted" in (tmp_path / "jobs" / f"{array}_{number}_0_log.err").read_text()
        trained(runs.read_config(run), tmp_path / f"undisturbed{number}")
        assert same(run, tmp_path / f"undisturbed{number}")
