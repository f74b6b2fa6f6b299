"""Monitors for anyone's training loop; importing them loads torch and numpy, nothing else."""

from collapse_lab.monitors import schedules, sinks
from collapse_lab.monitors.alarm import Alarm, Alert
from collapse_lab.monitors.statistics import CHEAP, FULL, SPECTRUM, STANDARD, Gathered, Statistic
from collapse_lab.monitors.tap import Tap
from collapse_lab.monitors.verdict import Measures, Verdict, Vote, judge, judge_features, measure
from collapse_lab.monitors.watch import Reading, Watch

__all__ = [
    "CHEAP",
    "FULL",
    "SPECTRUM",
    "STANDARD",
    "Alarm",
    "Alert",
    "Gathered",
    "Measures",
    "Reading",
    "Statistic",
    "Tap",
    "Verdict",
    "Vote",
    "Watch",
    "judge",
    "judge_features",
    "measure",
    "schedules",
    "sinks",
]
