"""One training loop for every method: keyed views, an update, a watch, evaluations, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from collapse_lab import draws
from collapse_lab.arrays import refused
from collapse_lab.batchnorm import synchronised
from collapse_lab.collective import any_of, average, processes
from collapse_lab.compiled import compile_backbones
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.evaluate import calibrated, evaluate
from collapse_lab.expectation import expectation_values
from collapse_lab.feeds import feed
from collapse_lab.interrupts import Interrupts
from collapse_lab.launch import first_process_first, lost_another
from collapse_lab.machine import fastest_kernels, pick_device, threads
from collapse_lab.monitors import OUTLIER_SHARE, RANKME_CENTRED, SPECTRUM, Alert, Reading, Watch
from collapse_lab.optimisation import optimizer, set_rates, update
from collapse_lab.run_records import ENDED
from collapse_lab.runs import Row, Run
from collapse_lab.self_diagnosis import CollapseAlarm, Stopped, verdict
from collapse_lab.settings import Config
from collapse_lab.starts import initial_objective
from collapse_lab.view_parameters import view_size

AT_EPOCH_END = (SPECTRUM, RANKME_CENTRED, OUTLIER_SHARE)
LAYERS = {"backbone": "encoder.backbone", "projector": "encoder.projector", "predictor": "predictor"}


class Progress(NamedTuple):
    """Where a run stands at one reading."""

    step: int
    steps: int
    images_per_second: float
    loss: float
    std_ratio: float
    alert: Alert | None = None
    waiting: float = 0.0  # share of the time that went into waiting for data


Report = Callable[[Progress], None]


class Diverged(Exception):
    """The loss or the features stopped being finite numbers at ``step``."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


def train(config: Config, run: Run, images: Images, report: Report) -> dict[str, Any]:
    """Train to the end from wherever the directory stands, and return the final status.

    A finished, failed or stopped run is left as it is. A loss that is not finite ends the run as ``failed`` with verdict
    ``diverged`` and the step; an alarm, where ``monitor.on_collapse`` says stop, as ``stopped``. SIGINT and SIGTERM let the
    step at hand end and leave the run ``interrupted`` there, raising ``KeyboardInterrupt``; any error leaves it so at its
    last checkpoint. The table and the weights of a resumed run equal those of an undisturbed one, byte for byte, on a CPU
    with the same number of threads.
    """
    if run.status()["state"] in ENDED:
        return run.status()
    with threads(config.train.threads), fastest_kernels():
        trainer = Trainer(config, run, images, report)
        run.write_environment(trainer.device)
        with trainer.interrupts:
            try:
                trainer.run_epochs()
                run.write_status("done", trainer.step, trainer.verdict(), **trainer.alarm.told(run.directory))
            except Stopped:
                run.write_status("stopped", trainer.step, trainer.verdict(), **trainer.alarm.told(run.directory))
            except Diverged as error:
                run.write_status("failed", error.step, "diverged", str(error), **trainer.alarm.told(run.directory))
            except KeyboardInterrupt:
                run.write_status("interrupted", trainer.step)
                raise
            except Exception as error:
                # Where nothing can be written any more, the error that came first is the one to tell.
                with suppress(InputError):
                    lost = f"another process ended or hangs, seen by rank {processes()[0]}"
                    what = lost if lost_another(error) else f"{type(error).__name__}: {error}"
                    run.write_status("interrupted", trainer.step, error=what)
                raise
    return run.status()


class Trainer:
    """The state of one run in memory: objective, optimizer, and the step they stand at."""

    def __init__(self, config: Config, run: Run, images: Images, report: Report) -> None:
        self.config, self.run, self.report = config, run, report
        self.device = pick_device(config.train)
        self.images, self.data = images.to(self.device), images.digest()
        self.steps_per_epoch = len(images.train) // config.train.batch
        self.steps = self.steps_per_epoch * config.train.epochs
        self.view_size = view_size(config.augment, images.train.shape)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        objective = initial_objective(config, run.directory, images.train, self.view_size)
        self.objective = objective.to(self.device).to(memory_format=layout)
        if config.train.compile:
            compile_backbones(self.objective)
        self.optimizer = optimizer(self.objective, config.train)
        self.feed = feed(self.images.train, config, self.objective.views)
        self.interrupts = Interrupts()
        self.step = 0
        self._epochs = 0
        self._losses: list[Tensor] = []
        self.alarm = CollapseAlarm(config.monitor.on_collapse)

    def run_epochs(self) -> None:
        """Evaluate the start, or load the checkpoint, then train, and evaluate and save at the ends of epochs."""
        with first_process_first():
            state = self.run.resume(self.device)
        if state is None:
            with self.interrupts.at_once():
                start = calibrated(self.objective, self.images.train, self.view_size)
                rows = self._evaluation(start, 0)
            self.run.append(rows)
            self._save()
        else:
            self._restore(state)
        # After the start was evaluated: BatchNorm is calibrated by each process on its own.
        synchronised(self.objective, self.device).train()
        every, reduce = self.config.monitor.every, processes()[1] > 1

        def is_last(step: int) -> bool:
            return step % self.steps_per_epoch == 0

        with (
            closing(self.feed),
            Watch(
                self.objective,
                LAYERS,
                lambda step: step % every == 0 or is_last(step),
                start=self.step,
                reduce=reduce,
            ) as watch,
            Watch(self.objective, LAYERS, is_last, statistics=AT_EPOCH_END, start=self.step, reduce=reduce) as spectra,
        ):
            for epoch in range(self._epochs + 1, self.config.train.epochs + 1):
                self.run.write_status("running", self.step)
                self._epoch(epoch, watch, spectra)

    def verdict(self) -> str | None:
        """The verdict on the run so far; None where another process writes."""
        return None if processes()[0] else verdict(self.run.directory, self.config)

    def _epoch(self, epoch: int, watch: Watch, spectra: Watch) -> None:
        table: list[Row] = []
        try:
            self._steps(epoch, table, watch, spectra)
            if epoch % self.config.monitor.evaluate_every == 0 or epoch == self.config.train.epochs:
                with self._kept_on_interrupt(table), self.interrupts.at_once():
                    rows = self._evaluation(self.objective, epoch)
                table += rows
        except (Diverged, Stopped):
            self.run.append(table)
            raise
        self.run.append(table)
        self._epochs = epoch
        if epoch % self.config.train.save_every == 0 or epoch == self.config.train.epochs:
            self._save()

    def _steps(self, epoch: int, table: list[Row], watch: Watch, spectra: Watch) -> None:
        """What is left of an epoch's steps; an interrupt is obeyed between two of them."""
        seed, batch = self.config.train.seed, self.config.train.batch
        order = draws.permutation(seed, epoch, len(self.images.train))
        rank, count = processes()
        done, started = self.step - (epoch - 1) * self.steps_per_epoch, time.perf_counter()
        steps = order[done * batch : self.steps_per_epoch * batch].split(batch)
        shares = [step.chunk(count)[rank] for step in steps]
        self.feed.expect(shares, epoch)
        waited_before = self.feed.waited
        for number in range(done, self.steps_per_epoch):
            with self._kept_on_interrupt(table):
                self._wait(shares[number - done], epoch)
            self._train_step(shares[number - done], epoch)
            readings = watch.step()
            table += self._rows(epoch, [*readings, *spectra.step()])
            seconds = time.perf_counter() - started
            rate = (number + 1 - done) * batch / seconds
            waited = self.feed.waited - waited_before if self.config.data.stream else None
            last = number + 1 == self.steps_per_epoch
            with self._kept_on_interrupt(table):
                if readings:
                    loss = self._mean_loss()
                    table.append(Row(self.step, epoch, "train", "", "loss", 0, loss))
                    alert = self.alarm.listen(readings)
                    self.report(
                        Progress(
                            self.step, self.steps, rate, loss, _std_ratio(readings), alert, (waited or 0.0) / seconds
                        )
                    )
                # Several processes stop at the same step, so they ask each other; on a GPU only where they wait for it anyway.
                asked = readings or self.device.type == "cpu"
                stop = any_of(self.interrupts.noted) if asked or count == 1 else False
                if last or stop:
                    self.run.append_timing(epoch, seconds, rate, waited)
                if stop:
                    raise KeyboardInterrupt

    def _wait(self, samples: Tensor, epoch: int) -> None:
        """Wait for the files of a step; an interrupt is obeyed meanwhile, except by several processes, which stop together."""
        if self.config.data.stream and processes()[1] == 1:
            with self.interrupts.at_once():
                self.feed.wait(samples, epoch)

    @contextmanager
    def _kept_on_interrupt(self, table: list[Row]) -> Iterator[None]:
        """Save where the run stands when an interrupt is raised; for moments when weights, step and table agree."""
        try:
            yield
        except KeyboardInterrupt:
            self.run.append(table)
            self._save(healthy=False)
            raise

    def _train_step(self, samples: Tensor, epoch: int) -> None:
        config = self.config
        set_rates(
            self.optimizer, config.train, self.step, self.steps, config.train.warmup_epochs * self.steps_per_epoch
        )
        index = samples.to(self.device, non_blocking=True)
        views = self.feed.views(samples, epoch)
        if config.train.channels_last:
            every = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            views = every.unflatten(0, views.shape[:2])
        self.step += 1
        loss = update(
            self.objective,
            self.optimizer,
            views,
            index,
            self.step,
            predictor_steps=config.train.predictor_steps,
            accumulate=config.train.accumulate,
            half=config.train.precision == "bfloat16",
        )
        self._losses.append(loss)

    def _mean_loss(self) -> float:
        """Mean loss since the last reading; with the readings themselves all that waits for the device."""
        losses = self._pending().tolist()
        self._losses.clear()
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                what = f"the loss of {self.config.method} was {loss}"
                raise Diverged(self.step - len(losses) + 1 + offset, what)
        return math.fsum(losses) / len(losses)

    def _pending(self) -> Tensor:
        """The losses since the last reading, of the whole batch."""
        losses = torch.stack(self._losses) if self._losses else torch.empty(0, device=self.device)
        average([losses] if self._losses else [])
        self._losses = list(losses)
        return losses

    def _evaluation(self, objective: Any, epoch: int) -> list[Row]:
        at_an_end = epoch in (0, self.config.train.epochs)
        linear = self.config.monitor.probe and at_an_end
        try:
            values = evaluate(objective, self.images, self.config.monitor, self.view_size, linear=linear)
            if self.config.monitor.expectation_views:
                values += expectation_values(objective, self.images, self.config, self.config.monitor.expectation_views)
        except FloatingPointError as error:
            raise Diverged(self.step, str(error)) from None
        return [Row(self.step, epoch, *value) for value in values]

    def _rows(self, epoch: int, readings: list[Reading]) -> list[Row]:
        return [Row(r.step, epoch, "train", *r[1:]) for r in readings]

    def _save(self, healthy: bool = True) -> None:
        """Save the state; ``healthy``: as the healthy one too, if there is no evidence against it."""
        state = {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epochs": self._epochs,
            "losses": self._pending(),
            "data": self.data,
        }
        # The rates of the warm-up do not depend on the number of epochs, all later ones do.
        self.run.save_checkpoint(
            state,
            extensible=self.step <= self.config.train.warmup_epochs * self.steps_per_epoch,
            healthy=healthy and self.alarm.is_quiet,
        )

    def _restore(self, state: dict[str, Any]) -> None:
        with refused(f"checkpoint of '{self.run.directory}' does not fit this version; --overwrite starts afresh"):
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self._epochs, self._losses = state["step"], state["epochs"], list(state["losses"])
            began_on = state["data"]
        if began_on != self.data:
            raise InputError(
                f"run directory '{self.run.directory}' was begun on other images than '{self.images.name}' now has: "
                "bring them back, or choose another --name or pass --overwrite"
            )
        self.alarm.recall(self.run.directory)


def _std_ratio(readings: list[Reading]) -> float:
    return next(r.value for r in readings if r.layer == "projector" and r.metric == "std_ratio")
