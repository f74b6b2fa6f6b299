"""When did the output collapse, and how does that time grow with the momentum of eta? From a run's table, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from collapse_lab import config as configuration
from collapse_lab import records
from collapse_lab.settings import Config

SHARE = 0.5
READINGS = 3


class Slope(NamedTuple):
    """d log(time) / d log(1 / (1 - m)) by least squares, its t-interval, the points it rests on, and those it leaves out."""

    slope: float
    low: float
    high: float
    points: int
    never: int


def fall_step(curve: pd.Series, after: int = 0) -> int | None:
    """The first step from which ``READINGS`` = 3 readings in a row lie under half of the start; None where there is none.

    ``curve``: values by step, ascending. The start is the median of the first three readings later than step ``after``, so that
    neither one odd reading nor the warm-up sets it; a fall that the next readings take back does not count, nor one
    with fewer than three readings to show for it. Readings that are not numbers never count as fallen. As exact as the interval
    between readings.

    >>> fall_step(pd.Series([1.0, 1.1, 0.9, 0.4, 0.8, 0.3, 0.2, 0.1], index=range(5, 45, 5)))
    30
    """
    counted = curve[curve.index > after]
    if len(counted) < READINGS:
        return None
    below = counted < SHARE * counted.iloc[:READINGS].median()
    stays = below.iloc[::-1].rolling(READINGS).sum().iloc[::-1] == READINGS
    return int(counted.index[int(stays.to_numpy().argmax())]) if stays.any() else None


def collapse_time(directory: Path) -> float | None:
    """The step at which the projector's train-mode std ratio falls to stay under half of its start, see ``fall_step``.

    None where it does not within the run: the time is then later than the last step, not missing. The start is taken after
    ``train.warmup_epochs``. BatchNorm on z keeps the std up where the rank falls, so under such a head None does not say that
    nothing collapsed. Raises ``InputError`` where the directory's table cannot be read.
    """
    table = records.read_metrics(directory / "metrics.csv")
    config = configuration.from_json((directory / "config.json").read_text(encoding="utf-8"))
    chosen = (table["source"] == "train") & (table["layer"] == "projector") & (table["metric"] == "std_ratio")
    return fall_step(table[chosen].set_index("step")["value"].sort_index(), _warmup_steps(table, config))


def collapse_step(directory: Path, images: object) -> dict[str, float]:
    """``collapse_time`` as a measure of a study, left out where the run did not collapse; ``images`` are not looked at."""
    step = collapse_time(directory)
    return {} if step is None else {"collapse_step": step}


def momentum_slope(momenta: Sequence[float], times: Sequence[float | None], confidence: float = 0.95) -> Slope:
    """How fast the time to collapse grows with the momentum of eta: the toy says slope 1, time in proportion to 1 / (1 - m).

    Least squares of log time on log(1 / (1 - m)), one point a run; the interval is Student's with points - 2 degrees of
    freedom and takes the points' errors for independent and alike. Runs of one seed share images and first weights: with
    several seeds, fit each one's slope and take an interval over those. A time of None, no collapse within the run, is
    counted in ``never`` and left out, which bends the slope towards 0 where it is the slowest that are missing: then it is a
    lower bound and no estimate. The toy's law holds where the memory is slow beside the encoder; it levels off elsewhere.

    Raises ``ValueError`` for lengths that differ, m outside [0, 1), a time that is not positive, a confidence outside
    (0, 1), and fewer than 3 points or 2 different momenta.

    >>> found = momentum_slope([0.0, 0.5, 0.9], [10, 20, 100])
    >>> round(found.slope, 6), found.points, found.never
    (1.0, 3, 0)
    """
    if len(momenta) != len(times):
        raise ValueError(f"times: found {len(times)} for {len(momenta)} momenta; one for each run")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: found {confidence}; expected a share such as 0.95")
    if wrong := [m for m in momenta if not 0 <= m < 1]:
        raise ValueError(f"momenta: found {wrong[0]}; must lie in [0, 1)")
    if wrong := [time for time in times if time is not None and not 0 < time < math.inf]:
        raise ValueError(f"times: found {wrong[0]}; must be positive steps, None where a run did not collapse")
    kept = [(-math.log1p(-m), math.log(time)) for m, time in zip(momenta, times, strict=True) if time is not None]
    x, y = np.array(kept).reshape(-1, 2).T
    if len(x) < 3 or len(set(x)) < 2:
        raise ValueError(f"times: found {len(x)} collapses at {len(set(x))} momenta; a slope needs 3 at 2 or more")
    across = x - x.mean()
    slope = float(across @ y / (across @ across))
    left = y - y.mean() - slope * across
    error = math.sqrt(left @ left / (len(x) - 2) / (across @ across))
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2)) * error
    return Slope(slope, slope - half, slope + half, len(x), len(times) - len(x))


def _warmup_steps(table: pd.DataFrame, config: Config) -> int:
    """The last recorded step of the warm-up, 0 without one."""
    warm = table.loc[table["epoch"] <= config.train.warmup_epochs, "step"]
    return int(warm.max()) if config.train.warmup_epochs else 0
