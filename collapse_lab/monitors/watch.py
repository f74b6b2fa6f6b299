"""Watch named layers of any model in any training loop, without touching what is trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from torch import distributed, nn

from collapse_lab.monitors.distributed import all_reduced
from collapse_lab.monitors.history import History, judge_run, read_run
from collapse_lab.monitors.recorder import Recorder
from collapse_lab.monitors.schedules import Schedule
from collapse_lab.monitors.schedules import every as every_nth
from collapse_lab.monitors.statistics import STANDARD, Gathered, Statistic, read
from collapse_lab.monitors.tap import Tap, resolve
from collapse_lab.monitors.verdict import Verdict


class Reading(NamedTuple):
    """One value of one statistic at one layer after one training step (counted from 1)."""

    step: int
    layer: str
    metric: str
    index: int  # type: ignore[assignment]
    value: float


Sink = Callable[[Sequence[Reading]], None]

# The standard bundle on three layers of a small network costs a quarter of its step on a CPU: read each twentieth.
EVERY = 20


class Watch:
    """Reads statistics of the outputs of named layers on scheduled training steps.

    ``layers`` are dotted names or globs of ``model.named_modules()`` or ``Tap``s, which say more about how an output is
    read; or a mapping from labels of your own to such. Several models, such as a student and its average teacher, are
    watched as ``nn.ModuleDict({"student": student, "teacher": teacher})``.

    ``every`` is a number of steps, 20 unless given, or a schedule: a function of the number of the step, which counts from
    1. All calls of a watched module between two calls of ``step`` belong to that step, so the views and micro-batches of one
    step are pooled. A reading pools the last ``window`` steps, and never a row twice: choose it so that there are several
    times as many rows as channels. Statistics that need single rows see those of the last step, and take the calls in one
    step for views of the same samples: with micro-batches, leave them out. Each of ``sinks`` is given the readings of a step.

    With ``reduce`` the rows of all processes of the default group count, and all get the same readings; every process
    must then be watched with the same schedule, and one of them given the sinks. Without, each reads its own rows.

    Forward values, weights, buffers and random state stay as they would be without it; outputs are detached; hooks go
    when the context ends. Off schedule a hook returns at once and nothing waits for the device. A watched module that did
    not run on a scheduled step raises ``RuntimeError``: silence would look like health. A watch holds D x D numbers in
    float64 for each layer and the rows while they are fewer than D, twice that with raw moments, at most 1,024 rows where a
    statistic needs rows, and of every reading the few scalars that ``verdict`` judges.

    ``reference`` is the directory of a run that went well, with the ``metrics.csv`` of ``collapse-lab train`` or of
    ``sinks.table``: ``verdict`` then holds layers against the layers of the same label there. Batches must be equally large,
    since ranks at different numbers of rows do not compare.

        with Watch(model, ["layer4", "fc"], every=50) as watch:
            for batch in loader:
                ...                      # your training step
                for reading in watch.step():
                    print(reading)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str | Tap] | Mapping[str, str | Tap],
        every: int | Schedule = EVERY,
        *,
        statistics: Sequence[Statistic] = STANDARD,
        window: int = 1,
        reduce: bool = False,
        sinks: Sequence[Sink] = (),
        start: int = 0,
        reference: str | Path | None = None,
    ) -> None:
        if window < 1:
            raise ValueError(f"window: found {window}, expected at least 1 step")
        if reduce and not distributed.is_initialized():
            raise ValueError("reduce: there is no process group; call torch.distributed.init_process_group first")
        self._scheduled: Schedule = every if callable(every) else every_nth(every)
        self._statistics, self._window, self._reduce, self._sinks = statistics, window, reduce, sinks
        self._step = start
        needs = {statistic.needs for statistic in statistics}
        taps = resolve(model, layers)
        self._reference = None if reference is None else read_run(Path(reference), taps)
        self._recorders = [Recorder(label, *found, needs) for label, found in taps.items()]
        self._histories = {r.label: History(r.label, 0, 0, r.tap.mode) for r in self._recorders}
        self._arm()

    def step(self) -> list[Reading]:
        """Call once after each training step: the readings of this step, none off schedule."""
        self._step += 1
        readings: list[Reading] = []
        if self._scheduled(self._step):
            readings = [reading for recorder in self._recorders for reading in self._read(recorder)]
            for sink in self._sinks:
                sink(readings)
        self._arm()
        return readings

    def verdict(self, outputs: Collection[str] | None = None) -> dict[str, Verdict]:
        """The verdict on each layer from all that was read so far, beside the reference where there is one.

        ``outputs`` are the labels of the layers whose output the loss sees, all unless given: for these the absolute bounds
        hold, while any other is held against its own past. A watch does not see the loss and cannot say ``not-learning``.
        Raises ``ValueError`` for statistics without std_ratio, mean_energy and rankme, ``KeyError`` for an unknown label.
        """
        missing = {"std_ratio", "mean_energy", "rankme"} - {statistic.name for statistic in self._statistics}
        if missing:
            raise ValueError(f"statistics: a verdict needs {', '.join(sorted(missing))} too; take STANDARD or FULL")
        for label in outputs or ():
            if label not in self._histories:
                raise KeyError(f"outputs: no layer is labelled '{label}'; there are {', '.join(self._histories)}")
        for label, history in self._histories.items():
            history.absolute = outputs is None or label in outputs
        return judge_run(self._histories, self._reference)

    def close(self) -> None:
        """Remove every hook."""
        for recorder in self._recorders:
            recorder.remove()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arm(self) -> None:
        due = any(self._scheduled(self._step + ahead) for ahead in range(1, self._window + 1))
        for recorder in self._recorders:
            recorder.start_step(due)

    def _read(self, recorder: Recorder) -> list[Reading]:
        gathered = self._gathered(recorder)
        readings = [Reading(self._step, recorder.label, *value) for value in read(gathered, self._statistics)]
        history = self._histories[recorder.label]
        history.rows, history.dimension = gathered.moments.count, gathered.moments.dimension
        for reading in readings:
            history.add(reading.step, reading.metric, reading.value)
        return readings

    def _gathered(self, recorder: Recorder) -> Gathered:
        own = recorder.take()
        gathered = all_reduced(own) if self._reduce else own
        if gathered is None:
            where = " on some process" if own is not None else ""
            mode = {"train": "training", "eval": "evaluation"}[recorder.tap.mode]
            raise RuntimeError(
                f"layer '{recorder.label}' did not run in {mode} mode on step {self._step}{where}; is it part of the forward "
                "pass, and was the watch attached before the model was compiled and first called?"
            )
        return gathered
