"""Runs as jobs of a cluster, through submitit: each is trained in its own directory, as it would be here.

The jobs' folder holds what submitit writes: scripts, logs, and pickles of ours, which only we read.
"""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

from collapse_lab.display import Display
from collapse_lab.errors import InputError, RunStopped
from collapse_lab.interrupts import Interrupts
from collapse_lab.preflight import require_fitting
from collapse_lab.run_records import ENDED, read_status
from collapse_lab.runs import Run
from collapse_lab.settings import Config
from collapse_lab.workers import Engine, Listener, News, interrupted_by, run_name, run_one

DEFAULTS = {"name": "collapse-lab", "timeout_min": 60}
# A run goes on where its last job was when the time was over, so that many short jobs are as good as a long one.
TIMEOUTS = 100
# Of a run that is one process; several are started by torchrun.
ONE = ("nodes", "tasks_per_node", "ntasks_per_node")
KNOWN = " Without a prefix: name, timeout_min, mem_gb, cpus_per_task, gpus_per_node, stderr_to_stdout."
ASKED_EVERY, REFRESHED_EVERY = 1.0, 60.0  # seconds between two looks at the jobs, and between two at the scheduler
# Seconds for which a job that was told to end, and has saved its run, leaves the next word to the scheduler.
GRACE = 300.0


class Job:
    """What a job does: train one run. What ended the run is returned, so that it arrives as the exception that it was."""

    def __init__(self, config: Config, directory: Path, arguments: list[str]) -> None:
        self.config, self.directory, self.arguments = config, directory, arguments

    def __call__(self) -> Exception | None:
        """Train the run; where the scheduler wants the machine back, save it before the job ends or is queued again."""
        # The command that the run's environment records is the one that was typed.
        sys.argv[1:] = self.arguments
        # With this one submitit hears that the job is to be queued again.
        requeue = signal.Signals[f"SIG{_submitit().JobEnvironment.USR_SIG}"]
        handlers = {number: signal.getsignal(number) for number in (requeue, signal.SIGTERM)}
        told: list[int] = []
        try:
            with Interrupts(), interrupted_by(lambda: bool(told)):
                for number in handlers:
                    signal.signal(number, lambda number, frame: told.append(number))
                with Display(1) as display:
                    run_one(self.config, self.directory, overwrite=False, listen=display.show)
        except KeyboardInterrupt:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if requeue in told:
                signal.raise_signal(requeue)
            # Before a preemption comes SIGTERM: a job that ended by itself now would not be queued again.
            time.sleep(GRACE)
            raise
        except Exception as error:
            return error
        return None

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again: the same, as the run's directory knows how far it is."""
        return _submitit().helpers.DelayedSubmission(self)


def engine(folder: Path, cluster: str, parameters: Mapping[str, Any]) -> Engine:
    """Training in jobs of ``cluster``, ``slurm`` or ``local``, each with the parameters, by submitit's names.

    What needs the machine that trains, such as its GPU, is checked there. Raises ``InputError`` for parameters that
    submitit does not know, for more processes than the one that a run is, and where submitit or the cluster is missing.
    """
    return Engine(partial(train_all, _executor(folder, cluster, parameters)), require_fitting)


def train_all(
    executor: Any, study: Path, runs: Mapping[str, Config], overwrite: bool, listen: Listener
) -> list[BaseException | None]:
    """Train every run in a job of its own, and wait; an interrupt cancels them. The errors are those of ``workers``."""
    if overwrite:
        # Here and once: a job that is queued again is to go on with its run.
        for path, config in runs.items():
            with Run(study / path, config, overwrite=True):
                pass
    with Interrupts() as interrupts:
        jobs = _submitted(executor, {study / path: config for path, config in runs.items()})
        for directory, job in jobs.items():
            listen(News(run_name(directory), "submitted", job=job.job_id))
        return _errors(jobs, listen, interrupts)


def _submitted(executor: Any, runs: Mapping[Path, Config]) -> dict[Path, Any]:
    """The jobs of the runs, in one array where the cluster has such."""
    try:
        # submitit prints what it raises, too.
        with redirect_stderr(io.StringIO()), executor.batch():
            return {path: executor.submit(Job(config, path, sys.argv[1:])) for path, config in runs.items()}
    except (RuntimeError, OSError) as error:
        raise InputError(f"--jobs: nothing was submitted: {error}") from None


def _errors(jobs: Mapping[Path, Any], listen: Listener, interrupts: Interrupts) -> list[BaseException | None]:
    """What ended each run, once all jobs have ended; their states are told meanwhile."""
    states = dict.fromkeys(jobs, "UNKNOWN")
    errors: dict[Path, BaseException | None] = {}
    left, refreshed = dict(jobs), time.monotonic()
    while left and not interrupts.noted:
        time.sleep(ASKED_EVERY)
        if time.monotonic() - refreshed > REFRESHED_EVERY:
            # The states of all jobs; submitit itself asks less and less often.
            next(iter(left.values())).get_info(mode="force")
            refreshed = time.monotonic()
        for directory, job in list(left.items()):
            if job.done():
                errors[directory] = _error(left.pop(directory), directory)
                state = read_status(directory)["state"]
                listen(News(run_name(directory), state if state in ENDED else "not finished"))
            elif job.state != states[directory]:
                states[directory] = job.state
                listen(News(run_name(directory), job.state.lower(), job=job.job_id))
    for job in left.values():
        job.cancel(check=False)
    return list(errors.values())


def _error(job: Any, directory: Path) -> BaseException | None:
    try:
        error: BaseException | None = job.result()
    except _submitit().core.utils.UncompletedJobError:
        error = RunStopped(
            f"run '{directory}' was stopped with its job {job.job_id}, which ended without a result ({job.state}); "
            f"'{job.paths.stderr}' says more, and the same command goes on"
        )
    return error


def _executor(folder: Path, cluster: str, chosen: Mapping[str, Any]) -> Any:
    submitit = _submitit()
    for name, value in chosen.items():
        if name.removeprefix(f"{cluster}_") in ONE and value != 1:
            raise InputError(f"--job: found '{name}={value}', but a run is one process; torchrun starts several")
    retries = {"slurm_max_num_timeout": TIMEOUTS, "local_max_num_timeout": TIMEOUTS}
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **retries)
        executor.update_parameters(**{**DEFAULTS, **chosen})
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--jobs {cluster}: {reason}{KNOWN * isinstance(error, NameError)}") from None
    return executor


def _submitit() -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise InputError("--jobs: submitit is missing; python -m pip install 'collapse-lab[cluster]'") from None
    return submitit
