"""Where training starts: at the weights of another run, or with outputs moved towards or away from a constant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from collapse_lab import networks, snapshots
from collapse_lab.data import statistics
from collapse_lab.draws import key
from collapse_lab.errors import InputError
from collapse_lab.evaluate import clean
from collapse_lab.image_files import Pictures
from collapse_lab.networks import Encoder
from collapse_lab.objective import Objective, assemble
from collapse_lab.run_records import read_status
from collapse_lab.settings import Config, TrainConfig

IMAGES = 512
FAR = 10.0

State = Mapping[str, Tensor]


def initial_objective(config: Config, directory: Path, images: Pictures, size: tuple[int, int]) -> Objective:
    """The objective that the run in ``directory`` begins with, on the CPU.

    ``images`` (N, C, H, W) uint8 are the training images, ``size`` is that of a view. Raises ``InputError`` where
    ``train.start`` names a run whose weights cannot be had.
    """
    encoder, earlier = initial_encoder(config, directory, images, size)
    objective = assemble(config, encoder, len(images))
    if earlier is not None:
        _load(objective.predictor, earlier, "predictor.")
    return objective


def initial_encoder(
    config: Config, directory: Path, images: Pictures, size: tuple[int, int]
) -> tuple[Encoder, State | None]:
    """The encoder of ``initial_objective``, and the weights that ``train.start`` names, None where it names none."""
    encoder = networks.encoder(config.network, *statistics(images), min(size), config.train.seed)
    earlier = start_state(config.train, directory)
    start_encoder(encoder, config, earlier, images, size)
    return encoder, earlier


def start_state(config: TrainConfig, directory: Path) -> State | None:
    """The weights of the run that ``train.start`` names, beside ``directory`` in the same study; None where it names none.

    Raises ``InputError`` where that run has not finished or its checkpoint cannot be read.
    """
    if config.start is None:
        return None
    start = directory.parent.parent / config.start / directory.name
    if (state := read_status(start)["state"]) != "done":
        raise InputError(f"train.start: found '{config.start}', whose run '{start}' is {state}; it has to be done")
    weights: State = snapshots.read(start / "checkpoint.pt", torch.device("cpu"))["objective"]
    return weights


def start_encoder(
    encoder: Encoder, config: Config, earlier: State | None, images: Pictures, size: tuple[int, int]
) -> None:
    """Give the encoder its initial weights: those of an earlier run, then its outputs moved as ``network.start`` says.

    ``images`` (N, C, H, W) uint8, of which the first 512 say where the outputs z lie, in train mode. centred: the mean of z
    becomes 0. near-constant: it becomes ten times the root mean square of |z - E z| along one random direction, so that
    the mean energy is about 0.99. Only the last bias is changed.
    """
    if earlier is not None:
        _load(encoder, earlier, "encoder.")
    if config.network.start == "default":
        return
    z = _outputs(encoder, clean(images[:IMAGES].cpu(), size))
    centre = z.mean(0)
    direction = torch.randn(z.shape[1], generator=torch.Generator().manual_seed(key(config.train.seed, 6)))
    radius = FAR * (z - centre).square().sum(1).mean().sqrt() if config.network.start == "near-constant" else 0.0
    bias: Tensor = encoder.projector[-1].bias  # type: ignore[index]
    with torch.no_grad():
        bias += radius * normalize(direction, dim=0) - centre


@torch.no_grad()
def _outputs(encoder: Encoder, images: Tensor) -> Tensor:
    """z in train mode, BatchNorm's running statistics put back as they were."""
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    z: Tensor = encoder.train()(images)
    for name, value in encoder.named_buffers():
        value.copy_(before[name])
    return z


def _load(module: nn.Module, state: State, prefix: str) -> None:
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"train.start: the weights there are those of another network ({reason})") from None
