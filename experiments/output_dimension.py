"""Appendix B of Chen & He (2020): how wide should z be?

collapse-lab study experiments/output_dimension.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
DIMENSIONS = (32, 64, 128, 256, 512)


def arm(dim: int, head: str) -> Arm:
    """SimSiam with d = ``dim`` and a predictor of a quarter of that; the paper's numbers are with BatchNorm on z."""
    overrides = {
        "network.projector_output_norm": head,
        "network.projector_dim": dim,
        "network.predictor_hidden": dim // 4,
    }
    return Arm("simsiam", overrides, f"appendix-B/{dim}" if dim >= 256 and head == "affine" else None)


STUDY = Study(
    question="Does a wider z learn better, and does its rank grow with it?",
    predictions={
        "Chen & He (2020), appendix B": (
            "Accuracy grows slowly with d, from 65.3 at 256 to 68.1 at 2048 on ImageNet, and no d collapses."
        ),
        "Partial collapse": (
            "RankMe grows less than d does: a wider z leaves a larger share of its dimensions unused. No source "
            "predicts the share; it is our expectation from a power-law spectrum."
        ),
    },
    answer=(
        "Paired differences of the probe's gain to d = 128, and RankMe beside d in the table. The std ratio has d in "
        "its definition; RankMe of different d is compared as a share of d only. A run needs well over d rows for "
        "its rank."
    ),
    arms={f"d = {dim}, {head}": arm(dim, head) for head in HEADS for dim in DIMENSIONS},
    contrasts=tuple(
        Contrast(f"d = {dim}, {head}", f"d = 128, {head}", quantity)
        for quantity in ("linear_gain", "rankme")
        for head in HEADS
        for dim in DIMENSIONS
        if dim != 128
    ),
    cost=(
        "CPU: 10 arms of about 1 minute, 30 runs at 3 seeds, 8 minutes on 4 cores; GPU, estimated and not measured: "
        "10 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
