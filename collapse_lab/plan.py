"""What a study file means under given settings: the configuration and the directory of every arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from collapse_lab import config as configuration
from collapse_lab.config import Overrides
from collapse_lab.errors import InputError
from collapse_lab.grid import Grid, over_seeds, study_name
from collapse_lab.methods import method, require_consistent
from collapse_lab.presets import DATA
from collapse_lab.settings import Config
from collapse_lab.study import Study, StudyFile, arm_directory

START = "train.start"
# Seconds on any machine, on images that need no download; only train.batch is left to the arms, within the images.
SMOKE: Overrides = {
    "data.name": "digits",
    "data.root": None,
    "data.train_images": 320,
    "data.test_images": 100,
    "augment.saturation": 0.0,
    "augment.hue": 0.0,
    "augment.grayscale": 0.0,
    "network.backbone": "small",
    "train.batch": 64,
    "train.epochs": 1,
    "train.warmup_epochs": 0,
    "train.device": "cpu",
    "monitor.every": 1,
}


class Plan(NamedTuple):
    """A study under given settings: its runs, and the directory of every arm by label."""

    file: StudyFile
    grid: Grid
    directories: Mapping[str, str]

    def runs(self, out: Path) -> dict[str, list[Path]]:
        """The run directories of every label, in order of seeds, where runs are kept in ``out``."""
        paths = [Path(path) for path in self.grid.runs]
        return {
            label: [out / self.grid.name / path for path in paths if path.parent.name == directory]
            for label, directory in self.directories.items()
        }


def planned(file: StudyFile, chosen: Overrides, seeds: int, *, smoke: bool = False) -> Plan:
    """The runs of a study over seeds counted from ``train.seed``; with ``smoke`` cut down to what takes seconds.

    Later layers win: data preset, the method's proposals, the study's settings, ``chosen``, what makes the method, what
    the arm overrides. An override that changes nothing leaves no trace in a directory, so that equal arms lie together.
    Raises ``InputError`` naming the file and the arm for what is unknown, impossible, or at odds with a method, and for
    arms that are the same run under these settings; only a smoke run lets those share it.
    """
    own = {**file.study.settings, **chosen, **(SMOKE if smoke else {})}
    data = own.get("data.name", "digits")
    preset = DATA.get(data, {}) if isinstance(data, str) else {}
    try:
        shared = configuration.build("", preset, own)
        configs = _configs(file.study, preset, own, shared, smoke)
    except InputError as error:
        raise InputError(f"study file '{file.path}': {error}") from None
    directories = {label: configs[label][0] for label in file.study.arms}
    labels: dict[str, str] = {}
    for label, directory in directories.items():
        if labels.setdefault(directory, label) != label and not smoke:
            raise InputError(
                f"study file '{file.path}': arms '{labels[directory]}' and '{label}' are the same run in these settings"
            )
    seed = shared.train.seed
    return Plan(
        file,
        Grid(study_name(shared), shared, over_seeds(dict(configs.values()), range(seed, seed + seeds))),
        directories,
    )


def _configs(
    study: Study, preset: Overrides, own: Overrides, shared: Config, smoke: bool
) -> dict[str, tuple[str, Config]]:
    """Directory and configuration of every arm by label; an arm that starts from another stands after it."""
    found: dict[str, tuple[str, Config]] = {}
    for label, arm in sorted(study.arms.items(), key=lambda item: START in item[1].overrides):
        overrides = _small(arm.overrides) if smoke else dict(arm.overrides)
        if START in overrides:
            overrides[START] = _start(study, overrides[START], found)
        require_consistent(arm.method, {**own, **overrides})
        row = method(arm.method)
        config = configuration.build(arm.method, preset, row.defaults, own, row.overrides, overrides)
        proposed = {key: own.get(key, value) for key, value in row.defaults.items()}
        base = {**configuration.flat(shared), **proposed, **row.overrides}
        values = configuration.flat(config)
        named = {key: values[key] for key in overrides if values[key] != base[key]}
        found[label] = (arm_directory(arm.method, named), config)
    return found


def _start(study: Study, label: Any, found: Mapping[str, tuple[str, Config]]) -> str:
    """The directory of the arm with that label, which itself starts afresh."""
    if label not in study.arms:
        raise InputError(f"{START}: found '{label}', expected the label of an arm: {', '.join(study.arms)}")
    if START in study.arms[label].overrides:
        raise InputError(f"{START}: arm '{label}' starts from another arm itself; one step is all there is")
    return found[label][0]


def _small(overrides: Overrides) -> dict[str, Any]:
    """What a smoke run keeps of an arm's overrides."""
    kept = {key: value for key, value in overrides.items() if key not in SMOKE or key == "train.batch"}
    if "train.batch" in kept:
        kept["train.batch"] = min(kept["train.batch"], SMOKE["data.train_images"] // 2)
    return kept
