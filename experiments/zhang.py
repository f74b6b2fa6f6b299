"""The arms of Zhang et al. (2022): what in the target keeps SimSiam from collapse, its mean or its residual?

collapse-lab study experiments/zhang.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
PARTS = ("centring", "decorrelation", "bias-predictor", "symmetric-predictor", "inverse-predictor")
METHODS = ("simsiam", "no-predictor", *PARTS)

STUDY = Study(
    question="Which part of target minus prediction prevents collapse: its mean, its residual, or neither?",
    predictions={
        "Zhang et al. (2022), known to us from notes on it": (
            "The gradient of SimSiam is the one that collapses plus the mean difference (centring) plus the residual "
            "(decorrelation): either alone prevents collapse, both are best. A single learned bias as predictor is "
            "enough; the same predictor on both branches collapses; its inverse on the target does not."
        ),
        "Chen & He (2020), section 5.1": (
            "The predictor stands in for an expectation of each image. A bias, the same for all, cannot, so it "
            "should do no better than no predictor."
        ),
        "BatchNorm on z masks it": (
            "BatchNorm on z centres z itself, so centring and the bias can show an effect only without it, and under "
            "it collapse shows in RankMe."
        ),
    },
    answer=(
        "Where SimSiam's RankMe exceeds no-predictor's: each part against no-predictor and against SimSiam, in "
        "RankMe and in mean energy, as centring acts on the mean and decorrelation on the rank. Numbers of their "
        "tables were not at hand, so no accuracy of theirs is compared."
    ),
    arms={
        f"{method}, {head}": Arm(method, {"network.projector_output_norm": head})
        for head in HEADS
        for method in METHODS
    },
    contrasts=tuple(Contrast(f"simsiam, {head}", f"no-predictor, {head}", "rankme") for head in HEADS)
    + tuple(
        Contrast(f"{part}, {head}", f"no-predictor, {head}", quantity)
        for quantity in ("rankme", "mean_energy")
        for head in HEADS
        for part in PARTS
    ),
    cost=(
        "CPU: 14 arms of about 1 minute, 42 runs at 3 seeds, 12 minutes on 4 cores; GPU, estimated and not measured: "
        "14 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
