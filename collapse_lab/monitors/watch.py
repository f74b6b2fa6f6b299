"""Watch named layers of any model in any training loop, without touching what is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from torch import nn

from collapse_lab.monitors.statistics import STANDARD, Statistic, read
from collapse_lab.monitors.tap import Tap, resolve

Schedule = Callable[[int], bool]


class Reading(NamedTuple):
    """One value of one statistic at one layer after one training step (counted from 1)."""

    step: int
    layer: str
    metric: str
    index: int  # type: ignore[assignment]
    value: float


class Watch:
    """Reads statistics of the outputs of named layers on scheduled training steps.

    ``layers`` are dotted names or globs of ``model.named_modules()``, or a mapping from labels of your own to such names.
    ``every`` is a number of steps or a function of the step number, which counts from 1. All forward passes of the watched
    modules in training mode between two calls of ``step`` belong to that step, so the views of one step are pooled.

    Forward values, weights, buffers and random state stay as they would be without it; outputs are detached; hooks go
    when the context ends. Off schedule a hook returns at once and nothing waits for the device. A watched module that did
    not run on a scheduled step raises ``RuntimeError``: silence would look like health.

        with Watch(model, ["layer4", "fc"], every=50) as watch:
            for batch in loader:
                ...                      # your training step
                for reading in watch.step():
                    print(reading)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | Mapping[str, str],
        every: int | Schedule = 1,
        *,
        statistics: Sequence[Statistic] = STANDARD,
        start: int = 0,
    ) -> None:
        if isinstance(every, int) and every < 1:
            raise ValueError(f"every: found {every}, expected at least 1")
        self._scheduled: Schedule = every if callable(every) else lambda step: step % every == 0
        self._statistics = statistics
        self._step = start
        self._taps = [Tap(label, module) for label, module in resolve(model, layers).items()]
        self._arm()

    def step(self) -> list[Reading]:
        """Call once after each training step: the readings of this step, none off schedule."""
        self._step += 1
        readings = self._read() if self._scheduled(self._step) else []
        self._arm()
        return readings

    def close(self) -> None:
        """Remove every hook."""
        for tap in self._taps:
            tap.remove()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arm(self) -> None:
        due = self._scheduled(self._step + 1)
        for tap in self._taps:
            tap.recording = due

    def _read(self) -> list[Reading]:
        readings = []
        for tap in self._taps:
            gathered = tap.take()
            if gathered is None:
                raise RuntimeError(
                    f"layer '{tap.label}' did not run in training mode on step {self._step}; is it part of the forward "
                    "pass, and was the watch attached before the model was compiled and first called?"
                )
            readings += [Reading(self._step, tap.label, *value) for value in read(gathered, self._statistics)]
        return readings
