"""Tells researchers in self-supervised learning whether their run is collapsing, how, where and why."""

__version__ = "0.1.0"
