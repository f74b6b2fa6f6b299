"""Monitors for anyone's training loop; importing them loads torch and numpy, nothing else."""

from collapse_lab.monitors.statistics import CHEAP, FULL, SPECTRUM, STANDARD, Gathered, Statistic
from collapse_lab.monitors.verdict import Verdict, Vote, judge
from collapse_lab.monitors.watch import Reading, Watch

__all__ = [
    "CHEAP",
    "FULL",
    "SPECTRUM",
    "STANDARD",
    "Gathered",
    "Reading",
    "Statistic",
    "Verdict",
    "Vote",
    "Watch",
    "judge",
]
