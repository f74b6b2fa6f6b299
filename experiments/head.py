"""What the head does to collapse: BatchNorm on z or not, by batch size.

collapse-lab study experiments/head.py --seeds 8 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine", "non-affine")
METHODS = ("simsiam", "no-stop-gradient", "no-predictor")
BATCHES = (64, 128, 512)


def arm(method: str, head: str, batch: int) -> Arm:
    """One method under one head with one batch size."""
    return Arm(method, {"network.projector_output_norm": head, "train.batch": batch})


STUDY = Study(
    question="Does BatchNorm on z prevent collapse or hide it, and does the batch size change that?",
    predictions={
        "Chen & He (2020), sections 4.1, 4.2 and 4.4": (
            "BatchNorm helps the optimisation and does not prevent collapse: without stop-gradient or predictor z "
            "collapses under every head, at every batch size."
        ),
        "BatchNorm prevents collapse": (
            "With BatchNorm on z the arms without stop-gradient or predictor keep the RankMe of SimSiam; without it "
            "they do not."
        ),
        "BatchNorm on z masks it": (
            "RankMe falls under every head, the std ratio to 0 only without BatchNorm on z. Non-affine BatchNorm "
            "leaves no std ratio below 2/sqrt(N), that of one outlier with all the variance: 0.25, 0.18, 0.09 for "
            "batches of 64, 128, 512."
        ),
        "Linear toy without predictor (collapse_lab.toy.linear)": (
            "The stop-gradient only halves the rate at which z shrinks, so no-predictor collapses, later than the "
            "gradient through both branches would. The toy has no BatchNorm and says nothing of it."
        ),
    },
    answer=(
        "In each head and batch the paired difference in RankMe to SimSiam: an interval above 0 under BatchNorm on z "
        "says that it hides collapse and does not prevent it. For the floor, the std ratio of the non-affine arms "
        "beside 2/sqrt(N). Batches of 64, 128, 512 make 1872, 936, 228 steps of 12 epochs: a difference between "
        "batches is one of both, and collapse that 228 steps do not show is undecided."
    ),
    arms={
        f"{method}, {head}, {batch}": arm(method, head, batch)
        for head in HEADS
        for batch in BATCHES
        for method in METHODS
    },
    contrasts=tuple(
        Contrast(f"simsiam, {head}, {batch}", f"{method}, {head}, {batch}", "rankme")
        for method in METHODS[1:]
        for head in HEADS
        for batch in BATCHES
    )
    + tuple(Contrast(f"simsiam, {head}, 128", f"{method}, {head}, 128") for method in METHODS[1:] for head in HEADS)
    + tuple(Contrast(f"{method}, non-affine, 64", f"{method}, non-affine, 512", "std_ratio") for method in METHODS[1:]),
    cost=(
        "CPU: 27 arms of about 1 minute, 216 runs at 8 seeds, under an hour on 4 cores; GPU, estimated and not "
        "measured: 27 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
    headline=True,
)
