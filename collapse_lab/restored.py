"""The encoder that a run left behind, with the images it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from collapse_lab import data, networks, snapshots
from collapse_lab.arrays import reason, refused
from collapse_lab.data import Images
from collapse_lab.errors import InputError
from collapse_lab.evaluate import calibrated_encoder
from collapse_lab.machine import pick_device
from collapse_lab.networks import Encoder
from collapse_lab.run_records import read_config, read_status, runs_within
from collapse_lab.settings import Config
from collapse_lab.starts import initial_encoder
from collapse_lab.view_parameters import view_size

Device = Literal["auto", "cpu", "cuda"]
ENCODER = "encoder."


class Restored(NamedTuple):
    """A run's encoder at ``step``, in eval mode and without gradients, and its images, both on ``device``.

    ``size`` is the (height, width) of a view, to which every image is resized.
    """

    directory: Path
    config: Config
    status: dict[str, Any]
    step: int
    encoder: Encoder
    images: Images
    size: tuple[int, int]
    device: torch.device

    def start(self) -> Encoder:
        """The encoder as the run began with it, BatchNorm calibrated on the training images."""
        initial, _ = initial_encoder(self.config, self.directory, self.images.train, self.size)
        moved = initial.to(self.device)
        return calibrated_encoder(moved, self.images.train, self.size).eval().requires_grad_(False)


def restored(
    directory: Path,
    images: Images | None = None,
    *,
    root: Path | None = None,
    device: Device | None = None,
    last_checkpoint: bool = False,
) -> Restored:
    """The encoder of a run directory; ``images`` are loaded as its configuration says where they are not given.

    ``root`` and ``device`` take the place of those in the configuration. Only tensors and plain values are unpickled.
    Raises ``InputError``: no run directory, a run that diverged or is not at its end (``last_checkpoint`` takes what it
    had last), no checkpoint or a damaged one, one that does not fit the configuration, images other than the run's.
    """
    config, status = _records(directory)
    _require_finished(directory, status, last_checkpoint)
    config = replace(config, train=replace(config.train, device=device or config.train.device))
    where = pick_device(config.train)
    step, weights = _weights(directory / "checkpoint.pt")
    loaded = images or data.load(replace(config.data, root=root or config.data.root))
    size = view_size(config.augment, loaded.train.shape)
    encoder = networks.encoder(config.network, *data.statistics(loaded.train), min(size), config.train.seed)
    _require_same_images(directory, encoder, weights, loaded)
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"checkpoint of run '{directory}' does not fit its config.json: {reason(error)}") from None
    encoder = encoder.to(where).eval().requires_grad_(False)
    return Restored(directory, config, status, step, encoder, loaded.to(where), size, where)


def _records(directory: Path) -> tuple[Config, dict[str, Any]]:
    if not directory.is_dir():
        raise InputError(f"run '{directory}' is no directory; a run is one, such as runs/STUDY/simsiam/seed0")
    if not (directory / "config.json").is_file():
        hint = runs_within(directory, "config.json") or "a run is made by `collapse-lab train`"
        raise InputError(f"run '{directory}' has no config.json; {hint}")
    return read_config(directory), read_status(directory)


def _require_finished(directory: Path, status: dict[str, Any], last_checkpoint: bool) -> None:
    if last_checkpoint or status["state"] in ("done", "stopped"):
        return
    what = f"is not at its end ({status['state']} at step {status['step']}); finish it with the command that began it"
    if status["verdict"] == "diverged":
        what = f"diverged: {status['error']}"
    raise InputError(f"run '{directory}' {what}; --last-checkpoint evaluates what it saved last")


def _weights(path: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """The step of a checkpoint and the encoder's part of it, on the CPU."""
    if not path.is_file():
        raise InputError(f"run '{path.parent}' has no {path.name}: nothing was saved, so there is nothing to evaluate")
    state = snapshots.read(path, torch.device("cpu"))
    with refused(f"checkpoint '{path}' cannot be read"):
        objective: dict[str, torch.Tensor] = state["objective"]
        step = int(state["step"])
    return step, {name.removeprefix(ENCODER): one for name, one in objective.items() if name.startswith(ENCODER)}


def _require_same_images(directory: Path, encoder: Encoder, weights: dict[str, torch.Tensor], images: Images) -> None:
    """Refuse images whose channel statistics are not those that the run normalised its input with."""
    for name in ("backbone.0.mean", "backbone.0.std"):
        found, expected = encoder.state_dict()[name].flatten(), weights.get(name, torch.empty(0)).flatten()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4):
            kind = name.rsplit(".", 1)[1]
            told = " against ".join(", ".join(f"{value:.4f}" for value in one) for one in (found, expected))
            raise InputError(
                f"images '{images.name}' are not those that run '{directory}' was trained on: channel {kind} {told}"
            )
