"""Section 4.5 of Chen & He (2020): is it the cosine similarity that prevents collapse?

collapse-lab study experiments/similarity.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
LOSSES = {"cosine": "negative-cosine", "cross-entropy": "cross-entropy", "mse": "mse"}
PAPER = {"cosine": "section-4.5/cosine", "cross-entropy": "section-4.5/cross-entropy"}
METHODS = ("simsiam", "no-stop-gradient")


def arm(method: str, loss: str, head: str) -> Arm:
    """One method with one loss under one head; the paper's numbers are with stop-gradient and BatchNorm on z."""
    theirs = method == "simsiam" and head == "affine"
    overrides = {"objective.loss": LOSSES[loss], "network.projector_output_norm": head}
    return Arm(method, overrides, PAPER.get(loss) if theirs else None)


STUDY = Study(
    question="Does the loss decide whether SimSiam collapses: negative cosine, cross-entropy, or the squared distance?",
    predictions={
        "Chen & He (2020)": (
            "Cross-entropy in place of the cosine learns less well, without collapse; neither loss prevents collapse."
        ),
        "Su (2020), scalar toy": (
            "With the squared distance, which has no normalisation, the stop-gradient alone decides: z shrinks to a point "
            "without it and does not with it."
        ),
        "Normalisation matters": "The squared distance can shrink z itself, so it collapses even with the stop-gradient.",
    },
    answer=(
        "For each loss and head the paired difference in RankMe and std ratio between SimSiam and no stop-gradient; between "
        "losses with the stop-gradient, the paired difference of the probe's gain. Losses of different kinds are not compared."
    ),
    arms={
        f"{method}, {loss}, {head}": arm(method, loss, head) for head in HEADS for loss in LOSSES for method in METHODS
    },
    contrasts=tuple(
        Contrast(f"simsiam, {loss}, {head}", f"no-stop-gradient, {loss}, {head}", quantity)
        for quantity in ("rankme", "std_ratio")
        for head in HEADS
        for loss in LOSSES
    )
    + tuple(
        Contrast(f"simsiam, cosine, {head}", f"simsiam, {loss}, {head}")
        for head in HEADS
        for loss in ("cross-entropy", "mse")
    ),
    cost=(
        "36 runs at 3 seeds; 660 steps on the digits take 11 s a run on one CPU core, 624 steps on 10,000 images of "
        "Fashion-MNIST half a minute to a minute on a busy one; not measured on a GPU"
    ),
)
