"""Monitors for anyone's training loop; importing them loads torch and numpy, nothing else."""

from collapse_lab.monitors import schedules, sinks
from collapse_lab.monitors.alarm import Alarm, Alert
from collapse_lab.monitors.history import History, judge_run
from collapse_lab.monitors.statistics import CHEAP, FULL, OUTLIER_SHARE, RANKME_CENTRED, SPECTRUM, STANDARD, Statistic
from collapse_lab.monitors.tap import Tap
from collapse_lab.monitors.verdict import Measures, Verdict, Vote, compare_modes, judge, judge_features, measure
from collapse_lab.monitors.watch import Reading, Watch

__all__ = [
    "CHEAP",
    "FULL",
    "OUTLIER_SHARE",
    "RANKME_CENTRED",
    "SPECTRUM",
    "STANDARD",
    "Alarm",
    "Alert",
    "History",
    "Measures",
    "Reading",
    "Statistic",
    "Tap",
    "Verdict",
    "Vote",
    "Watch",
    "compare_modes",
    "judge",
    "judge_features",
    "judge_run",
    "measure",
    "schedules",
    "sinks",
]
