"""What a run says of its own collapse: alerts at its readings, and a verdict on its table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from collapse_lab.monitors import Alarm, Alert, History, Reading, judge_run
from collapse_lab.run_records import train_readings
from collapse_lab.runs import HEALTHY, rounded
from collapse_lab.settings import Config


class Stopped(Exception):
    """The alarm went off in a run that is to stop on collapse."""

    def __init__(self, alert: Alert) -> None:
        super().__init__(str(alert))
        self.alert = alert


class CollapseAlarm:
    """The alerts of one run, in the order in which they were raised; the projector's is the one that counts.

    ``mode``: ignore hears nothing, warn gives the projector's alert once, stop raises it.
    """

    def __init__(self, mode: Literal["ignore", "warn", "stop"]) -> None:
        self._mode, self._alarm = mode, Alarm()
        self._alerts: list[Alert] = []

    @property
    def is_quiet(self) -> bool:
        """Whether it listens and has no evidence of a collapse at present, nor ever had an alert."""
        return self._mode != "ignore" and not self._alarm.suspects

    def listen(self, readings: Iterable[Reading]) -> Alert | None:
        """The alert that these readings raise at the projector; raises ``Stopped`` where the run is to stop."""
        if self._mode == "ignore" or self._at_projector() is not None:
            return None
        # As the table has them, from which a resumed run hears them again.
        self._alerts += self._alarm.update(r._replace(value=rounded(r.value)) for r in readings)
        alert = self._at_projector()
        if alert is not None and self._mode == "stop":
            raise Stopped(alert)
        return alert

    def recall(self, directory: Path) -> None:
        """Hear again the readings that a run resumed in a directory has in its table."""
        if self._mode != "ignore":
            self._alerts = self._alarm.update(Reading(*row) for row in train_readings(directory))

    def told(self, directory: Path) -> dict[str, Any]:
        """The status's words on collapse: the projector's alert, the layer that fell first, the checkpoint from before."""
        alert = self._at_projector()
        if alert is None:
            return {}
        kept = HEALTHY if (directory / HEALTHY).exists() else None
        return {"alarm": alert._asdict(), "first_tap": self._alerts[0].layer, "healthy_checkpoint": kept}

    def _at_projector(self) -> Alert | None:
        return next((alert for alert in self._alerts if alert.layer == "projector"), None)


def verdict(directory: Path, config: Config) -> str | None:
    """The verdict on the projector in train mode, from a run's table; None for a run of no epochs."""
    history = History("projector", config.views * config.train.batch, config.network.projector_dim)
    cosine = config.objective.loss == "negative-cosine"
    for step, layer, metric, _, value in train_readings(directory):
        if layer == "projector":
            history.add(step, metric, value)
        elif metric == "loss" and cosine:
            history.agreement[step] = -value
    return judge_run({"projector": history})["projector"].kind if history.steps else None
