"""Monitors for anyone's training loop; importing them loads torch and numpy, nothing else."""

from collapse_lab.monitors import schedules, sinks
from collapse_lab.monitors.statistics import CHEAP, FULL, SPECTRUM, STANDARD, Statistic
from collapse_lab.monitors.tap import Tap
from collapse_lab.monitors.verdict import Verdict, Vote, judge
from collapse_lab.monitors.watch import Reading, Watch

__all__ = [
    "CHEAP",
    "FULL",
    "SPECTRUM",
    "STANDARD",
    "Reading",
    "Statistic",
    "Tap",
    "Verdict",
    "Vote",
    "Watch",
    "judge",
    "schedules",
    "sinks",
]
