"""Section 4.6 of Chen & He (2020): does the symmetrised loss matter, and is it more than a second prediction?

collapse-lab study experiments/symmetry.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
PAPER = {
    "simsiam": "section-4.6/symmetric",
    "asymmetric": "section-4.6/asymmetric",
    "asymmetric-2x": "section-4.6/asymmetric-2x",
}


def arm(method: str, head: str) -> Arm:
    """One method under one head; the paper's numbers are with BatchNorm on z."""
    return Arm(method, {"network.projector_output_norm": head}, PAPER.get(method) if head == "affine" else None)


STUDY = Study(
    question="Does SimSiam without the symmetrised loss collapse, or only learn from fewer predictions?",
    predictions={
        "Chen & He (2020), section 4.6": (
            "The asymmetric loss does not collapse and learns less; two pairs of views an image bring most of it "
            "back, so symmetry is a denser sampling of views and no more."
        ),
        "Symmetry prevents collapse": "The asymmetric arms lose rank as no stop-gradient does.",
    },
    answer=(
        "Collapse: paired differences in RankMe of each asymmetric arm to SimSiam and to no stop-gradient. Learning: "
        "the gain of the probe, asymmetric-2x against SimSiam. An interval that holds 0 says that this many seeds do "
        "not tell them apart."
    ),
    arms={f"{method}, {head}": arm(method, head) for head in HEADS for method in (*PAPER, "no-stop-gradient")},
    contrasts=tuple(
        Contrast(f"{method}, {head}", f"simsiam, {head}", quantity)
        for quantity in ("rankme", "linear_gain")
        for head in HEADS
        for method in ("asymmetric", "asymmetric-2x")
    )
    + tuple(Contrast(f"asymmetric, {head}", f"no-stop-gradient, {head}", "rankme") for head in HEADS),
    cost=(
        "CPU: 8 arms of about 1 minute, asymmetric-2x twice that, 24 runs at 3 seeds, 8 minutes on 4 cores; GPU, "
        "estimated and not measured: 10 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
