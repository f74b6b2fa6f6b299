"""The moving average of eta in section 5.2 of Chen & He (2020): prevention, or delay?

collapse-lab study experiments/momentum_eta.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Measure, Study

# Without BatchNorm on z the std falls with the collapse, so its time can be read; under it the ends of the range only.
MOMENTA = {"none": (0.0, 0.5, 0.8, 0.9, 0.99), "affine": (0.0, 0.8, 0.99)}


def arm(momentum: float, head: str) -> Arm:
    """eta with one m under one head; the paper's number is of m = 0.8 with BatchNorm on z."""
    overrides = {"network.projector_output_norm": head, "target.eta_momentum": momentum}
    theirs = momentum == 0.8 and head == "affine"
    return Arm("momentum-eta", overrides, "section-5.2/moving-average" if theirs else None)


def variant(key: str, value: object) -> Arm:
    """What the paper leaves open, at its m = 0.8 without BatchNorm on z."""
    return Arm("momentum-eta", {"network.projector_output_norm": "none", key: value})


STUDY = Study(
    question="Does a moving average of eta prevent collapse without a predictor, or delay it, and by how much for m?",
    predictions={
        "Chen & He (2020), section 5.2": (
            "m = 0.8 learns without a predictor, 55.0 on ImageNet against 0.1 with eta of one view: it does not "
            "collapse."
        ),
        "Linear toy with a moving average (collapse_lab.toy.alternation)": (
            "It collapses for every m < 1. Where eta is slower than the encoder the time grows as 1/(1 - m), counted "
            "in visits, and levels off for small m. An image is visited 12 times here, so m = 0.9 and 0.99 need not "
            "get there."
        ),
        "Old targets": (
            "At m = 0.99 after 12 visits eta is 0.9 of what it began as, so the run learns nearly fixed targets: no "
            "collapse there is what every hypothesis predicts, and is no evidence for prevention."
        ),
        "Start of eta": (
            "The paper does not say how eta starts. Random unit vectors differ between images, so they push z apart "
            "at first: a later collapse than from the first visit. No source predicts this; it is our guess."
        ),
    },
    answer=(
        "collapse_step, the step at which the std ratio falls to half of its start for good, against 1/(1 - m) "
        "without BatchNorm on z: a slope of 1 in logarithms is delay as in the toy. A run without it is a bound, not "
        "a prevention, unless its RankMe is SimSiam's. Under affine BatchNorm RankMe alone decides, as the std may "
        "stay up."
    ),
    arms={f"m = {momentum}, {head}": arm(momentum, head) for head, momenta in MOMENTA.items() for momentum in momenta}
    | {
        "m = 0.8, none, not normalised": variant("target.normalised", False),
        "m = 0.8, none, random start": variant("target.eta_start", "random"),
    }
    | {
        f"{method}, {head}": Arm(method, {"network.projector_output_norm": head})
        for head in MOMENTA
        for method in ("simsiam", "no-predictor")
    },
    contrasts=tuple(Contrast(f"simsiam, {head}", f"no-predictor, {head}", "rankme") for head in MOMENTA)
    + tuple(
        Contrast(f"m = {momentum}, {head}", f"no-predictor, {head}", "rankme")
        for head, momenta in MOMENTA.items()
        for momentum in momenta
    )
    + tuple(
        Contrast(f"m = 0.8, none, {name}", "m = 0.8, none", "rankme") for name in ("not normalised", "random start")
    )
    + (
        Contrast("m = 0.5, none", "m = 0.0, none", "collapse_step"),
        Contrast("m = 0.8, none", "m = 0.0, none", "collapse_step"),
        Contrast("m = 0.8, affine", "simsiam, affine"),
    ),
    measures=(Measure("collapse_lab.collapse_time:collapse_step"),),
    cost=(
        "CPU: 14 arms of about 1 minute, 42 runs at 3 seeds, 12 minutes on 4 cores; GPU, estimated and not measured: "
        "14 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10, where images are visited 100 times"
    ),
    curves=True,
)
