"""When did the output collapse, and how does that time grow with the momentum of eta? From a run's table, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from collapse_lab import config as configuration
from collapse_lab import records
from collapse_lab.errors import InputError
from collapse_lab.settings import Config

Array = npt.NDArray[np.float64]

SHARE = 0.5
READINGS = 3


class Line(NamedTuple):
    """A least-squares line: slope with its t-interval, intercept, share of variance explained, points, and runs left out."""

    slope: float
    low: float
    high: float
    intercept: float
    explained: float
    points: int
    never: int


def fall_step(curve: pd.Series, after: int = 0, share: float = SHARE) -> int | None:
    """The first step from which ``READINGS`` = 3 readings in a row lie under ``share`` of the start; None where there is none.

    ``curve``: values by step, ascending. The start is the median of the first three readings later than step ``after``, so that
    neither one odd reading nor the warm-up sets it; a fall that the next readings take back does not count, nor one
    with fewer than three readings to show for it. Readings that are not numbers never count as fallen. As exact as the
    interval between readings. Raises ``ValueError`` for a share outside (0, 1).

    >>> fall_step(pd.Series([1.0, 1.1, 0.9, 0.4, 0.8, 0.3, 0.2, 0.1], index=range(5, 45, 5)))
    30
    """
    if not 0 < share < 1:
        raise ValueError(f"share: found {share}; must lie between 0 and 1, such as {SHARE}")
    counted = curve[curve.index > after]
    if len(counted) < READINGS:
        return None
    below = counted < share * counted.iloc[:READINGS].median()
    stays = below.iloc[::-1].rolling(READINGS).sum().iloc[::-1] == READINGS
    return int(counted.index[int(stays.to_numpy().argmax())]) if stays.any() else None


def collapse_time(directory: Path, skip_epochs: int = 0, share: float = SHARE) -> int | None:
    """Steps until the projector's train-mode std ratio falls to stay under ``share`` of its start, see ``fall_step``.

    They are counted, and the start is taken, from the end of the first ``skip_epochs`` epochs, and of the warm-up. None where
    it does not fall within the run: the time is then longer than the run, not missing. Skip the epochs in which the arms
    are the same: a memory that starts with the first visit makes the first epoch that of no-predictor, whatever its
    momentum. BatchNorm on z keeps the std up where the rank falls, so under such a head None does not say that nothing
    collapsed. Raises ``InputError`` where the directory's files cannot be read.
    """
    table = records.read_metrics(directory / "metrics.csv")
    skipped = max(skip_epochs, _config(directory).train.warmup_epochs)
    after = int(table.loc[table["epoch"] <= skipped, "step"].max()) if skipped else 0
    chosen = (table["source"] == "train") & (table["layer"] == "projector") & (table["metric"] == "std_ratio")
    step = fall_step(table[chosen].set_index("step")["value"].sort_index(), after, share)
    return None if step is None else step - after


def collapse_step(directory: Path, images: object, skip_epochs: int = 0, share: float = SHARE) -> dict[str, float]:
    """``collapse_time`` as a measure of a study, left out where the run did not collapse; ``images`` are not looked at."""
    steps = collapse_time(directory, skip_epochs, share)
    return {} if steps is None else {"collapse_step": steps}


def momentum_slope(momenta: Sequence[float], times: Sequence[float | None], confidence: float = 0.95) -> Line:
    """The line of log time to collapse on log(1 / (1 - m)), one point a run: slope 1 where time goes with 1 / (1 - m).

    The toy says that for a memory slow beside the encoder; what the encoder itself needs adds a constant to every time and
    lowers this slope, so read ``momentum_line`` beside it. Steps count, not their learning rates: the memory moves by visits.

    The interval is Student's with points - 2 degrees of freedom and takes the points' errors for independent and alike. Runs of
    one seed share images and first weights: with several seeds, fit each one's line and take an interval over those. A
    time of None, no collapse within the run, is counted in ``never`` and left out, which bends the slope towards 0 where it is
    the slowest that are missing: then it is a lower bound and no estimate. ``explained`` is 1 where all times are equal.

    Raises ``ValueError`` for lengths that differ, m outside [0, 1), a time that is not positive, a confidence outside
    (0, 1), and fewer than 3 points or 2 different momenta.

    >>> found = momentum_slope([0.0, 0.5, 0.9], [10, 20, 100])
    >>> round(found.slope, 6), found.points, found.never
    (1.0, 3, 0)
    """
    x, y = _points(momenta, times)
    return _line(np.log(x), np.log(y), len(times) - len(y), confidence)


def momentum_line(momenta: Sequence[float], times: Sequence[float | None], confidence: float = 0.95) -> Line:
    """The line of time to collapse on 1 / (1 - m): the toy's (1 + beta) / (beta (1 - r)), beta = (1 - m) / epoch.

    Its slope is the steps that a memory of m = 0 adds, its intercept the encoder's own, both in the unit of the times. All
    else, and the errors, as in ``momentum_slope``; long times weigh most here.

    >>> found = momentum_line([0.0, 0.5, 0.9], [15, 25, 105])
    >>> round(found.slope, 6), round(found.intercept, 6), round(found.explained, 6)
    (10.0, 5.0, 1.0)
    """
    x, y = _points(momenta, times)
    return _line(x, y, len(times) - len(y), confidence)


def _points(momenta: Sequence[float], times: Sequence[float | None]) -> tuple[Array, Array]:
    """1 / (1 - m) and the time of every run that collapsed."""
    if len(momenta) != len(times):
        raise ValueError(f"times: found {len(times)} for {len(momenta)} momenta; one for each run")
    if wrong := [m for m in momenta if not 0 <= m < 1]:
        raise ValueError(f"momenta: found {wrong[0]}; must lie in [0, 1)")
    if late := [time for time in times if time is not None and not 0 < time < math.inf]:
        raise ValueError(f"times: found {late[0]}; must be positive steps, None where a run did not collapse")
    kept = [(1 / (1 - m), time) for m, time in zip(momenta, times, strict=True) if time is not None]
    x, y = np.array(kept, dtype=np.float64).reshape(-1, 2).T
    if len(x) < 3 or len(set(x)) < 2:
        raise ValueError(f"times: found {len(x)} collapses at {len(set(x))} momenta; a slope needs 3 at 2 or more")
    return x, y


def _line(x: Array, y: Array, never: int, confidence: float) -> Line:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: found {confidence}; expected a share such as 0.95")
    across, up = x - x.mean(), y - y.mean()
    slope = float(across @ up / (across @ across))
    left = up - slope * across
    error = math.sqrt(left @ left / (len(x) - 2) / (across @ across))
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2)) * error
    explained = float(1 - left @ left / (up @ up)) if up.any() else 1.0
    return Line(slope, slope - half, slope + half, float(y.mean() - slope * x.mean()), explained, len(x), never)


def _config(directory: Path) -> Config:
    path = directory / "config.json"
    try:
        return configuration.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"configuration '{path}' cannot be read: {error.strerror}") from None
