"""Verdicts on runs: a layer against its own past or a reference run's, since when, and which layer fell first."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from collapse_lab.monitors import bounds
from collapse_lab.monitors.alarm import Alarm, Alert
from collapse_lab.monitors.verdict import Measures, Mode, Verdict, Vote, judge_measures

WINDOW = 20
NAMES = {"std_ratio": "std_ratio", "mean_energy": "mean_energy", "rankme": "rankme", "rankme_centred": "centred_rankme"}


class Point(NamedTuple):
    """One reading of one layer, as an alarm takes it."""

    step: int
    layer: str
    metric: str
    value: float


@dataclass
class History:
    """The readings of one tap in one mode, measure by measure in order of steps; rows and dimension of one reading.

    ``absolute`` says whether the absolute bounds apply: they are for the outputs that the loss sees (projector), while a
    backbone is held against its own past only. ``agreement`` is the mean cosine of predictions and targets (minus the
    negative-cosine loss) by step, empty for other losses.
    """

    tap: str
    rows: int
    dimension: int
    mode: Mode = "train"
    absolute: bool = True
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    agreement: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, measure: str, value: float) -> None:
        """Take in one value; measures that no verdict needs are passed over."""
        if measure in NAMES or measure == "outlier_share":
            self.values.setdefault(NAMES.get(measure, measure), {})[step] = value

    @property
    def steps(self) -> list[int]:
        """Steps at which amplitude and rank were both read."""
        curves = [self.values.get(name, {}) for name in ("std_ratio", "mean_energy", "rankme")]
        return [step for step in curves[0] if step in curves[1] and step in curves[2]]

    def level(self, steps: Iterable[int]) -> Measures:
        """Medians over the given steps; NaN counts, so that a diverged run does not look sound."""
        medians = {name: _median(curve.get(step) for step in steps) for name, curve in self.values.items()}
        medians = {name: value for name, value in medians.items() if value is not None}
        return Measures(self.rows, self.dimension, **medians)  # type: ignore[arg-type]


def read_run(directory: Path, taps: Iterable[str]) -> dict[str, History]:
    """The train-mode histories of these taps from a run's ``metrics.csv``, as a reference; taps it lacks are left out.

    The table does not say rows and dimension: they are 0, since nothing but the levels of a reference is read. Raises
    ``FileNotFoundError`` where there is no such table, ``ValueError`` where it has none of the taps.
    """
    path = Path(directory) / "metrics.csv"
    found: dict[str, History] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line.get("source") == "train":
                history = found.setdefault(line["layer"], History(line["layer"], 0, 0))
                history.add(int(line["step"]), line["metric"], float(line["value"]))
    read = {layer: history for layer, history in found.items() if history.steps}
    good = {tap: read[tap] for tap in taps if tap in read}
    if not good:
        raise ValueError(
            f"reference: '{path}' has none of {list(taps)} with std_ratio, mean_energy and rankme in train mode; "
            f"it has {list(read)}"
        )
    return good


def judge_run(histories: Mapping[str, History], reference: Mapping[str, History] | None = None) -> dict[str, Verdict]:
    """The verdict on every tap, each with the tap whose alarm came first; ``reference`` are histories of a good run.

    A tap that the reference has is held against the reference's values of the same steps, other taps against their own
    values before their alarm and the absolute bounds where these apply.
    """
    alerts = {tap: _alert(history) for tap, history in histories.items()}
    raised = {tap: alert.step for tap, alert in alerts.items() if alert is not None}
    first = min(raised, key=lambda tap: raised[tap]) if raised else None
    good = reference or {}
    verdicts = {tap: judge_history(history, alerts[tap], good.get(tap)) for tap, history in histories.items()}
    return {tap: verdict._replace(first_tap=first) for tap, verdict in verdicts.items()}


def judge_history(history: History, alert: Alert | None, reference: History | None = None) -> Verdict:
    """The verdict on the last readings of one tap, given the alert that its history raised."""
    steps = history.steps
    if not steps:
        return Verdict("insufficient-data", (Vote("readings", 0, "at least 1", "definition"),), 0.0, history.tap)
    last = steps[-min(WINDOW, max(1, len(steps) // 4)) :]
    if alert is not None:
        last = [step for step in last if step >= alert.onset[1]] or last
    found = history.level(last)
    onset = None if alert is None else alert.onset
    if reference is not None:
        expected, origin = reference.level(_nearest(reference.steps, last)), "reference run at the same steps"
        verdict = judge_measures(found, mode=history.mode, tap=history.tap, expected=expected, origin=origin)
    else:
        verdict = _against_itself(history, found, alert)
    verdict = _restless(history, last, verdict)
    verdict = _disagreeing(history, last, verdict)
    if verdict.kind == "diverged":
        onset = _first_not_finite(history)
    elif onset is None and verdict.kind not in ("healthy", "insufficient-data", "unknown"):
        onset = (0, _first_unsound(history))
    return verdict._replace(onset=onset)


def _against_itself(history: History, found: Measures, alert: Alert | None) -> Verdict:
    """Absolute bounds where they apply and decide; else the layer's own values from before its alarm."""
    absolute = judge_measures(found, mode=history.mode, tap=history.tap)
    if alert is None:
        return absolute if history.absolute else _no_alarm(history, absolute)
    if history.absolute and absolute.kind not in ("healthy", "unknown"):
        return absolute
    before = [step for step in history.steps if step <= alert.onset[0]][-WINDOW:]
    own = judge_measures(
        found, mode=history.mode, tap=history.tap, expected=history.level(before), origin="own values before the alarm"
    )
    if own.kind == "healthy" and sum(step > alert.step for step in history.steps) >= WINDOW:
        return own._replace(notes=(*own.notes, f"there was an alarm at step {alert.step}; the layer has recovered"))
    if own.kind in ("healthy", "unknown"):
        falling = (
            f"alarm at step {alert.step}: {alert.measure} fell to {alert.fall:.2f} of its own level, not collapsed yet"
        )
        return own._replace(kind="unstable", notes=(*own.notes, falling))
    return own


def _no_alarm(history: History, absolute: Verdict) -> Verdict:
    """A layer to which no absolute bound applies: an alarm that stayed silent over enough readings is all there is."""
    quiet = Vote("alarms", 0.0, "collapse > 0", "own history", "healthy")
    decided = absolute.kind in ("diverged", "insufficient-data", "complete-collapse")
    if decided:
        return absolute
    long_enough = len(history.steps) >= 3 * WINDOW
    return Verdict("healthy" if long_enough else "unknown", (quiet, *absolute.votes), 0.0, history.tap, history.mode)


def _restless(history: History, last: list[int], verdict: Verdict) -> Verdict:
    """``unstable`` where a cloud that has not collapsed swings from reading to reading more than sound runs do."""
    bound = bounds.load()["bounds"]["swing"]
    logs = np.log(np.maximum([history.values["rankme"][step] for step in last], 1e-12))
    swing = float(np.median(np.abs(np.diff(logs)))) if len(logs) > 4 else 0.0
    if verdict.kind not in ("healthy", "unknown") or not swing > bound:
        return verdict
    vote = Vote("swing of log RankMe", swing, f"unstable > {bound:.3g}", "tuning half of the zoo", "collapse")
    return verdict._replace(kind="unstable", votes=(*verdict.votes, vote), severity=max(0.5, verdict.severity))


def _disagreeing(history: History, last: list[int], verdict: Verdict) -> Verdict:
    """``not-learning`` where the cloud is spread out, yet predictions do not agree with targets and are not getting there."""
    bound = bounds.load()["bounds"]["agreement"]
    steps = sorted(history.agreement)
    if verdict.kind not in ("healthy", "unknown", "unstable") or len(steps) < 3 * WINDOW:
        return verdict
    now = _median(history.agreement.get(step) for step in last)
    earlier = _median(history.agreement[step] for step in steps[len(steps) // 2 :][:WINDOW])
    if now is None or earlier is None or now >= bound or now - earlier > 0.1:
        return verdict
    vote = Vote(
        "agreement", now, f"not learning < {bound:.3g}, and no longer rising", "tuning half of the zoo", "collapse"
    )
    return verdict._replace(kind="not-learning", votes=(*verdict.votes, vote), severity=max(0.5, 1 - now / bound))


def _alert(history: History) -> Alert | None:
    alarm = Alarm()
    for step in history.steps:
        points = [Point(step, history.tap, name, history.values[name][step]) for name in ("rankme", "std_ratio")]
        for alert in alarm.update(points):
            return alert
    return None


def _first_unsound(history: History) -> int:
    """The first step from which on no reading is healthy by the absolute bounds."""
    since = history.steps[0]
    for step in reversed(history.steps):
        if judge_measures(history.level([step]), mode=history.mode).kind == "healthy":
            break
        since = step
    return since


def _first_not_finite(history: History) -> tuple[int, int] | None:
    sound = 0
    for step in history.steps:
        if not all(math.isfinite(history.values[name][step]) for name in ("rankme", "std_ratio")):
            return sound, step
        sound = step
    return None


def _nearest(steps: list[int], wanted: list[int]) -> list[int]:
    """The reference's steps within the span of the wanted ones, else its last ones."""
    inside = [step for step in steps if wanted[0] <= step <= wanted[-1]]
    return inside or steps[-len(wanted) :]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
