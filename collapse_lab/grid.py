"""Arms x seeds: which runs there are, where they lie, and the training of those that are not finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from collapse_lab import config as configuration
from collapse_lab import data
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.methods import METHODS
from collapse_lab.run_records import ENDED, read_config, read_status
from collapse_lab.runs import Run, require_free
from collapse_lab.settings import Config, DataConfig
from collapse_lab.summary import comparison, protocol, recorded
from collapse_lab.workers import HERE, Engine, Listener, News, run_name


class Grid(NamedTuple):
    """Runs that share their settings: the part of the path, the settings, the configuration by path ``<arm>/seed<k>``."""

    name: str
    shared: Config
    runs: Mapping[str, Config]


def study_name(shared: Config) -> str:
    """The study's part of a path: the data set and a digest of what its runs share and the defaults do not say.

    The seed is left out. A setting that is added with its default changes no path.

    >>> study_name(configuration.build("")) == study_name(configuration.build("", {"train.seed": 7}))
    True
    """
    values, defaults = configuration.flat(shared), configuration.flat(configuration.build(""))
    own = {key: values[key] for key in sorted(values) if values[key] != defaults[key] and key != "train.seed"}
    text = json.dumps(own, default=str)
    return f"{shared.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def arms(configs: Sequence[Config], seeds: Iterable[int]) -> dict[str, Config]:
    """The configuration of every run by its path within the study, ``<method>/seed<k>``, seed after seed.

    Raises ``InputError`` where two arms differ in name only.
    """
    for position, one in enumerate(configs):
        for other in configs[:position]:
            if not configuration.differences(replace(one, method=other.method), other):
                raise InputError(f"arms '{other.method}' and '{one.method}' are the same run; name it once")
    return over_seeds({config.method: config for config in configs}, seeds)


def over_seeds(configs: Mapping[str, Config], seeds: Iterable[int]) -> dict[str, Config]:
    """The configuration of every run by its path ``<arm>/seed<k>``, seed after seed, from those of the arms."""
    return {
        f"{directory}/seed{seed}": replace(config, train=replace(config.train, seed=seed))
        for seed in seeds
        for directory, config in configs.items()
    }


def run_study(out: Path, grid: Grid, *, overwrite: bool, listen: Listener, engine: Engine = HERE) -> dict[str, Any]:
    """Train what is not finished of one grid, then write and return the summary of every method recorded beside it.

    Raises as ``train_grids`` does, and what stopped a run once the summary of the other runs is written.
    """
    place = out / grid.name
    _require_shared(place, grid)
    errors = train_grids(out, [grid], overwrite=overwrite, listen=listen, engine=engine)
    runs = [place / path for path in grid.runs]
    summary = comparison(place, protocol(place, grid.shared, data.load(grid.shared.data), runs))
    for error in errors:
        raise error
    return summary


def train_grids(
    out: Path, grids: Sequence[Grid], *, overwrite: bool, listen: Listener, engine: Engine = HERE
) -> list[BaseException]:
    """Train what is not finished of all grids, and return the errors that stopped a run.

    ``engine`` trains: in a pool of processes here, side by side on a CPU and one after the other on a GPU, or in a
    cluster's jobs. Runs that start from another arm's weights go last. Data and configurations are checked before any
    training. An interrupt lets every run stop at its next reading, resumable,
    and is raised again. An unexpected error in one run leaves the others to finish.
    """
    images: dict[DataConfig, Images] = {}
    for grid in grids:
        for config in (grid.shared, *grid.runs.values()):
            if config.data not in images:
                images[config.data] = data.load(config.data)
        _require_fitting(out / grid.name, grid.runs, images, engine.check, overwrite)
    runs = {f"{grid.name}/{path}": config for grid in grids for path, config in grid.runs.items()}
    pending = {path: config for path, config in runs.items() if overwrite or not _ended(out / path)}
    for path in runs.keys() - pending.keys():
        status = read_status(out / path)
        error = f", {status['error']}" if status["error"] else ""
        listen(News(run_name(out / path), f"{status['state']} before{error}"))
    errors: list[BaseException | None] = []
    for stage in stages(pending):
        ready = {path: config for path, config in stage.items() if _can_start(out / path, config)}
        errors += engine.train(out, ready, overwrite, listen) if ready else []
        errors += [
            InputError(f"run '{out / path}' starts from arm '{stage[path].train.start}', whose run did not finish")
            for path in stage.keys() - ready.keys()
        ]
    return [error for error in errors if error is not None]


def stages(runs: Mapping[str, Config]) -> list[dict[str, Config]]:
    """The runs in the order in which they can be trained: those that start afresh, then those from another arm."""
    parts = [
        {path: config for path, config in runs.items() if (config.train.start is not None) is later}
        for later in (False, True)
    ]
    return [part for part in parts if part]


def _can_start(run: Path, config: Config) -> bool:
    """Whether the run whose weights are the initial ones, where there is one, has come to its end."""
    start = config.train.start
    return start is None or read_status(run.parent.parent / start / run.name)["state"] == "done"


def _require_fitting(
    place: Path,
    runs: Mapping[str, Config],
    images: Mapping[DataConfig, Images],
    check: Callable[[Config, Images], None],
    overwrite: bool,
) -> None:
    """Refuse what does not fit the data, cannot be written, or was made with other settings, before any training."""
    for path, config in runs.items():
        check(config, images[config.data])
        require_free(place / path)
        if not overwrite:
            with Run(place / path, config):
                pass


def _require_shared(place: Path, grid: Grid) -> None:
    """Refuse a method recorded in the same place with other settings than those that the methods are to share.

    A recorded arm differs from them in what makes the method, and in what the method only proposes.
    """
    shared = configuration.flat(grid.shared)
    for directory in recorded(place):
        path = str(directory.relative_to(place))
        if path in grid.runs:
            continue
        found = read_config(directory)
        values = configuration.flat(found)
        row = METHODS.get(found.method)
        proposed = {key: values[key] for key in row.defaults} if row else {}
        own = {**proposed, **(row.overrides if row else {}), "train.seed": found.train.seed}
        differing = configuration.differences(found, configuration.build(found.method, shared, own))
        if differing:
            raise InputError(
                f"study '{place}' holds '{path}', made with other settings "
                f"({'; '.join(differing[:3])}); choose another --name"
            )


def _ended(directory: Path) -> bool:
    return read_status(directory)["state"] in ENDED
