"""Measures of a finished run that need its network: functions (run directory, images) -> numbers by name, for studies.

Every number is of the weights at the end; with ``_start`` of the initial network, BatchNorm calibrated on the training images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from collapse_lab import augmentation_loss, snapshots
from collapse_lab.data import Images
from collapse_lab.evaluate import calibrated
from collapse_lab.expectation import expectation_values
from collapse_lab.machine import device_here, threads
from collapse_lab.objective import Objective
from collapse_lab.run_records import read_config
from collapse_lab.settings import Config
from collapse_lab.starts import initial_objective
from collapse_lab.view_parameters import view_size

Measured = Callable[[Objective, Images, Config], dict[str, float]]


def expectation(directory: Path, images: Images, views: int = 64) -> dict[str, float]:
    """``expectation_...``, see ``expectation.expectation_values``, on held-out images; 2 (views + 2) passes of 512 images.

    Raises ``InputError`` where the run has no checkpoint.
    """

    def measure(objective: Objective, images: Images, config: Config) -> dict[str, float]:
        return {value.metric: value.value for value in expectation_values(objective, images, config, views)}

    return _at_both_ends(directory, images, measure)


def augmentation_losses(
    directory: Path,
    images: Images,
    views: int = 16,
    draws: int = 16,
    count: int = 48,
    batch_statistics: bool = False,
) -> dict[str, float]:
    """``eq8_...``, ``eq9_...``, ``eq10_...``, see ``augmentation_loss.augmentation_losses``, on training images.

    With ``batch_statistics`` the names begin with ``train_``. The cost is that of 2 x ``draws`` backward passes of ``views`` x
    ``count`` images; the outputs of that many are in memory at once. Raises ``InputError`` where the run has no checkpoint.
    """

    def measure(objective: Objective, images: Images, config: Config) -> dict[str, float]:
        found = augmentation_loss.augmentation_losses(
            objective.encoder,
            images.train,
            config,
            views=views,
            draws=draws,
            count=count,
            batch_statistics=batch_statistics,
        )
        return {f"train_{name}": value for name, value in found.items()} if batch_statistics else found

    return _at_both_ends(directory, images, measure)


def _at_both_ends(directory: Path, images: Images, measure: Measured) -> dict[str, float]:
    config = read_config(directory)
    device = device_here(config.train)
    here = images.to(device)
    size = view_size(config.augment, images.train.shape)
    with threads(config.train.threads):
        objective = initial_objective(config, directory, images.train, size).to(device)
        start = measure(calibrated(objective, here.train, size), here, config)
        state = snapshots.read(directory / "checkpoint.pt", device)
        objective.load_state_dict(state["objective"])
        return {**measure(objective, here, config), **{f"{name}_start": value for name, value in start.items()}}
