"""How strong may views be? Su's blog (2020) expands in T x - x, which it assumes small.

collapse-lab study experiments/augmentation.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Measure, Study

# Smallest share of the area kept, probability of a flip, and of the change of brightness and contrast.
STRENGTHS = {"weak": (0.9, 0.0, 0.0), "medium": (0.5, 0.5, 0.4), "usual": (0.2, 0.5, 0.8), "strong": (0.05, 0.5, 1.0)}
METHODS = ("simsiam", "no-predictor", "mean-input")


def arm(method: str, strength: str) -> Arm:
    """One method with views of one strength; without BatchNorm on z, so that an amplitude that falls can be seen."""
    scale, flip, jitter = STRENGTHS[strength]
    overrides = {"augment.crop_scale": (scale, 1.0), "augment.flip": flip, "augment.jitter": jitter}
    return Arm(method, {"network.projector_output_norm": "none", **overrides})


STUDY = Study(
    question="Does the strength of the views decide whether, and how fast, an arm collapses?",
    predictions={
        "Su (2020), equations 8 to 10": (
            "For T x - x small, E_T F(T x) is near F(xbar), so equations 8 and 10 agree; first_order_error against "
            "eq8_loss says how far. Nothing is promised for strong views."
        ),
        "Linear toy with noise s2 (collapse_lab.toy.linear)": (
            "Without predictor z shrinks at a rate in proportion to s2, so weak views only delay collapse. With "
            "predictor and stop-gradient the predictor's fixed point is 1/(1 + s2), and beyond some s2 SimSiam "
            "collapses too."
        ),
        "DirectPred, modes with weight decay e": (
            "A mode survives only if s2 <= 1/(4e) - 1: stronger views leave fewer modes, so RankMe of SimSiam falls "
            "with strength."
        ),
    },
    answer=(
        "RankMe and std ratio of each arm against strength; first_order_error as a share of eq8_loss on the start "
        "values and at the end. Strength here is a ladder of crop, flip and jitter together, so the order of its "
        "rungs is meant, not their distance. Accuracy falls at both ends for reasons that have nothing to do with "
        "collapse."
    ),
    arms={f"{method}, {strength}": arm(method, strength) for strength in STRENGTHS for method in METHODS},
    contrasts=tuple(
        Contrast(f"{method}, {strength}", f"{method}, usual", "rankme")
        for method in METHODS
        for strength in STRENGTHS
        if strength != "usual"
    )
    + tuple(Contrast(f"simsiam, {strength}", f"no-predictor, {strength}", "std_ratio") for strength in STRENGTHS),
    measures=(Measure("collapse_lab.network_measures:augmentation_losses"),),
    cost=(
        "CPU: 12 arms of about 1 minute and 1 of measuring, 36 runs at 3 seeds, 18 minutes on 4 cores; GPU, "
        "estimated and not measured: 16 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
