"""What the head does to collapse: BatchNorm on z or not; head_batch.py has the same by batch size.

collapse-lab study experiments/head.py --seeds 8 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine", "non-affine")
METHODS = ("simsiam", "no-stop-gradient", "no-predictor")


def arm(method: str, head: str) -> Arm:
    """One method under one head."""
    return Arm(method, {"network.projector_output_norm": head})


STUDY = Study(
    question="Does BatchNorm on z prevent collapse or hide it?",
    predictions={
        "Chen & He (2020), sections 4.1, 4.2 and 4.4": (
            "BatchNorm helps the optimisation and does not prevent collapse: without stop-gradient or predictor z "
            "collapses under every head."
        ),
        "BatchNorm prevents collapse": (
            "With BatchNorm on z the arms without stop-gradient or predictor keep the RankMe of SimSiam; without it "
            "they do not."
        ),
        "BatchNorm on z masks it": (
            "RankMe falls under every head, the std ratio to 0 only without BatchNorm on z. Non-affine BatchNorm "
            "leaves no std ratio below 2/sqrt(N), that of one outlier with all the variance: 0.18 for batches of 128."
        ),
        "Linear model under the cosine (collapse_lab.toy.cosine)": (
            "Without predictor, or with the gradient through both branches, the constant mode takes all: RankMe 1, "
            "mean energy 1. Without predictor the stop-gradient only halves the rate. The toy has no BatchNorm; "
            "non-affine BatchNorm forbids its constant mode."
        ),
    },
    answer=(
        "In each head the paired difference in RankMe to SimSiam: an interval above 0 under BatchNorm on z says that it "
        "hides collapse and does not prevent it. For the floor, the std ratio of the non-affine arms beside 2/sqrt(N)."
    ),
    arms={f"{method}, {head}": arm(method, head) for head in HEADS for method in METHODS},
    contrasts=tuple(
        Contrast(f"simsiam, {head}", f"{method}, {head}", quantity)
        for quantity in ("rankme", "std_ratio", "linear_gain")
        for method in METHODS[1:]
        for head in HEADS
    ),
    cost=(
        "CPU: 9 arms of about 1 minute, 72 runs at 8 seeds, 18 minutes on 4 cores; GPU, estimated and not "
        "measured: 9 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
    headline=True,
)
