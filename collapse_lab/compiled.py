"""torch.compile for the backbones of an objective, in such a way that a watch goes on seeing every call."""

from __future__ import annotations

from torch import nn

from collapse_lab.networks import Encoder


def compile_backbones(objective: nn.Module, backend: str = "inductor") -> None:
    """Compile, in place, the network in every encoder's backbone, a target's own encoder included, at its first call.

    What is compiled lies inside the watched modules ``encoder.backbone``, ``encoder.projector`` and ``predictor``, whose
    own calls stay plain Python: their hooks fire at every call, whenever they were attached. A hook on a layer inside the
    compiled network, such as ``encoder.backbone.1.layer4``, is seen only where it was attached before the first call; a
    watch on it raises otherwise. Names in ``state_dict`` stay, and a copy of the objective is not compiled. The
    projector and the predictor, a few matrix products, stay as they are.
    """
    for module in objective.modules():
        if isinstance(module, Encoder):
            module.backbone[1].compile(backend=backend)  # type: ignore[index]
