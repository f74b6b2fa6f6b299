"""Table 1 of Chen & He (2020): which predictor does SimSiam need?

collapse-lab study experiments/predictor.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine", "non-affine")
# Their head has BatchNorm on z, affine in the text.
PAPER = {
    "simsiam": "table-1/c",
    "decayed-predictor": "table-1/baseline",
    "no-predictor": "table-1/a",
    "fixed-predictor": "table-1/b",
}

STUDY = Study(
    question="Which predictor does SimSiam need: none, a fixed random one, one whose rate decays, or one that keeps learning?",
    predictions={
        "Chen & He (2020)": (
            "Without a predictor z collapses; with a fixed random one the loss stays high and nothing is learned, without "
            "collapse; a predictor whose rate is not decayed is at least as good as one whose rate is."
        ),
        "Half the gradient": (
            "Without a predictor the stop-gradient only halves the gradient of the loss that collapses, so no-predictor "
            "ends where no stop-gradient at all would."
        ),
        "BatchNorm on z masks it": "Under BatchNorm on z the collapse without predictor shows in RankMe, less in the std.",
    },
    answer=(
        "Under a head where no-predictor loses rank and SimSiam does not, the paired differences to SimSiam: in RankMe for "
        "collapse, in the loss for not learning, in the gain of the linear probe for the representation."
    ),
    arms={
        f"{method}, {head}": Arm(method, {"network.projector_output_norm": head}, key if head == "affine" else None)
        for head in HEADS
        for method, key in PAPER.items()
    },
    contrasts=tuple(
        Contrast(f"simsiam, {head}", f"{name}, {head}", quantity)
        for quantity in ("rankme", "linear_gain")
        for head in HEADS
        for name in ("no-predictor", "fixed-predictor", "decayed-predictor")
    )
    + tuple(Contrast(f"fixed-predictor, {head}", f"simsiam, {head}", "loss") for head in HEADS),
    cost=(
        "36 runs at 3 seeds; 660 steps on the digits take 11 s a run on one CPU core, 624 steps on 10,000 images of "
        "Fashion-MNIST half a minute to a minute on a busy one; not measured on a GPU"
    ),
)
