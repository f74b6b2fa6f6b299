"""A sequential test on a layer's own history: one noisy batch never raises it, and its false-alarm rate is stated."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, Protocol

MEASURES = ("rankme", "std_ratio")
LEAD = 10


class Read(Protocol):
    """What an alarm needs of a reading: ``collapse_lab.monitors.Reading`` has it."""

    @property
    def step(self) -> int: ...
    @property
    def layer(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float: ...


class Alert(NamedTuple):
    """An alarm that went off: at which step and layer, the measure that fell most, and the interval of its onset.

    ``fall`` is that measure over the median of its own earlier readings. ``onset`` is the interval in which it began: the
    first unsound reading of the alarm's evidence, and the reading ``LEAD`` before it, since damage takes a while to show.
    """

    step: int
    layer: str
    measure: str
    fall: float
    onset: tuple[int, int]

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"step {self.step}: {self.measure} of layer '{self.layer}' is {self.fall:.2f} of its own earlier level, "
            f"since between steps {self.onset[0]} and {self.onset[1]}"
        )


class Band(NamedTuple):
    """How far log RankMe and log std ratio may lie below their own history before a reading counts as unsound.

    The drop is from the median of ``window`` earlier readings, the latest ``gap`` left out. It is too far where it exceeds
    both the measure's floor and ``spread`` times the 0.9-quantile of this layer's own earlier drops and rises.
    """

    window: int
    gap: int
    floors: Mapping[str, float]
    spread: float = 1.5


# A sudden fall shows against the last few readings, a slow one against those long before it.
BANDS = (
    Band(20, 2, {"rankme": 0.15, "std_ratio": 0.04}),
    Band(80, 20, {"rankme": 0.2, "std_ratio": 0.05}),
)


class Test(NamedTuple):
    """Chance of an unsound reading in a healthy run at most ``healthy``, in a collapsing one ``collapsing``, and the mean
    number of readings to a false alarm that this guarantees, ``run_length``."""

    healthy: float = 0.1
    collapsing: float = 0.9
    run_length: float = 1e4


class Alarm:
    """Tells from readings, one step after the other, when a layer has begun to collapse.

    For each layer the readings are cut into sound and unsound ones (``Band``), and unsound ones add up in a CUSUM of
    likelihood ratios, log M <- max(log M, 0) + log(P_collapsing / P_healthy); the alarm goes off at M >= run_length. With
    P the conditional probability given the past, M is an e-detector: where a healthy run's reading is unsound with
    probability at most ``Test.healthy`` whatever came before, the mean number of readings to a false alarm is at least
    ``Test.run_length`` (Shin, Ramdas & Rinaldo 2023). At the defaults five unsound readings in a row are needed, so one
    noisy batch never decides. It is for train-mode readings: eval-mode output at initialisation looks collapsed.
    A layer raises one alert in its life.

        alarm = Alarm()
        for batch in loader:
            ...                                   # your training step
            for alert in alarm.update(watch.step()):
                print(alert)
    """

    def __init__(self, bands: Sequence[Band] = BANDS, test: Test = Test()) -> None:  # noqa: B008
        self._bands, self._test = bands, test
        self._tracks: dict[str, _Track] = {}

    def update(self, readings: Iterable[Read]) -> list[Alert]:
        """The alerts that these readings raise, in order of layers; readings of other measures are passed over."""
        fresh: dict[tuple[str, int], dict[str, float]] = {}
        for reading in readings:
            if reading.metric in MEASURES:
                fresh.setdefault((reading.layer, reading.step), {})[reading.metric] = reading.value
        alerts = []
        for (layer, step), values in fresh.items():
            track = self._tracks.setdefault(layer, _Track(layer, self._bands, self._test))
            alert = track.update(step, values)
            alerts += [] if alert is None else [alert]
        return alerts

    @property
    def suspects(self) -> bool:
        """Whether any layer has evidence against it at present, or had an alert."""
        return any(track.suspected for track in self._tracks.values())


class _Track:
    """The history of one layer and where its CUSUM stands."""

    def __init__(self, layer: str, bands: Sequence[Band], test: Test) -> None:
        self._layer = layer
        self._histories = {name: [_History(band, band.floors[name]) for band in bands] for name in MEASURES}
        self._steps = {
            True: math.log(test.collapsing / test.healthy),
            False: math.log((1 - test.collapsing) / (1 - test.healthy)),
        }
        self._threshold = math.log(test.run_length)
        self._evidence = 0.0
        self._unsound = 0
        self._recent: deque[int] = deque([0], maxlen=LEAD)
        self._lead = 0
        self._raised = False

    @property
    def suspected(self) -> bool:
        return self._raised or self._evidence > 0

    def update(self, step: int, values: Mapping[str, float]) -> Alert | None:
        excess, drop, measure = max(
            (*history.excess(value), name) for name, value in values.items() for history in self._histories[name]
        )
        unsound = excess > 1
        if unsound and self._evidence <= 0:
            self._unsound, self._lead = step, self._recent[0]
        self._recent.append(step)
        self._evidence = max(self._evidence, 0.0) + self._steps[unsound]
        if self._raised or self._evidence < self._threshold:
            return None
        self._raised = True
        return Alert(step, self._layer, measure, math.exp(-drop), (self._lead, self._unsound))


class _History:
    """The logs of one measure of one layer, seen through one band."""

    def __init__(self, band: Band, floor: float) -> None:
        self._band, self._floor = band, floor
        self._logs: list[float] = []
        self._changes: list[float] = []

    def excess(self, value: float) -> tuple[float, float]:
        """The drop of this reading as a multiple of what is allowed, 0 while there is too little history, and the drop."""
        band = self._band
        log = math.log(max(value, 1e-12)) if math.isfinite(value) else math.log(1e-12)
        earlier = self._logs[: max(0, len(self._logs) - band.gap)][-band.window :]
        self._logs.append(log)
        if len(earlier) < band.window // 2:
            return 0.0, 0.0
        drop = median(earlier) - log
        usual = self._changes[: max(0, len(self._changes) - band.gap)][-3 * band.window :]
        self._changes.append(abs(drop))
        if len(usual) < band.window // 2:
            return 0.0, drop
        return drop / max(self._floor, band.spread * sorted(usual)[round(0.9 * (len(usual) - 1))]), drop
