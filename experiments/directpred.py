"""Tian, Chen and Ganguli (2021): can a predictor computed from the second moment of z replace a trained one?

collapse-lab study experiments/directpred.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
BOOSTS = {0.0: "eps-0", 0.1: "eps-0.1", 0.5: "eps-0.5"}


def arms(head: str) -> dict[str, Arm]:
    """Trained predictors, none, and DirectPred with three eps under one head; the numbers stand with BatchNorm on z."""
    norm = {"network.projector_output_norm": head}
    theirs = head == "affine"
    return {
        f"simsiam, {head}": Arm("simsiam", norm),
        f"no-predictor, {head}": Arm("no-predictor", norm),
        f"linear-predictor, {head}": Arm("linear-predictor", norm, "directpred/simsiam/regular" if theirs else None),
        **{
            f"directpred, eps {boost}, {head}": Arm(
                "directpred", {**norm, "network.direct_boost": boost}, f"directpred/stl10/{name}" if theirs else None
            )
            for boost, name in BOOSTS.items()
        },
    }


STUDY = Study(
    question="Does SimSiam work with a linear predictor, and with one that is computed and never trained?",
    predictions={
        "Tian et al. (2021), section 4": (
            "DirectPred does about as well as a trained two-layer predictor and better than a trained linear one; a "
            "small eps above 0 helps (STL-10: 76.8, 77.9, 75.1 for eps 0, 0.1, 0.5)."
        ),
        "Their section 3": (
            "Without weight decay p = sqrt(s) lets a mode grow while p < tau / (1 + s2) and stay then, so none "
            "collapses; eps lifts the small modes, and one that is large makes the predictor nearly a multiple of "
            "the identity, as no predictor."
        ),
        "Without the moving average of weights": (
            "Their numbers are BYOL's, with a momentum encoder. A linear trained predictor did work without it on "
            "ImageNet (68.1), so DirectPred should not collapse here either; how much it loses we cannot say."
        ),
        "Normalisation of z": (
            "Their W has p = sqrt(s) of unnormalised z, whose scale a cosine does not see: without BatchNorm s can "
            "drift, which changes eps max s beside sqrt(s). Affine BatchNorm holds it."
        ),
    },
    answer=(
        "Collapse: RankMe of each against no-predictor. Learning: the probe's gain of DirectPred with eps 0.1 "
        "against the linear trained predictor and against SimSiam's, and eps 0 and 0.5 against 0.1."
    ),
    arms={label: arm for head in HEADS for label, arm in arms(head).items()},
    contrasts=tuple(
        Contrast(f"{label}, {head}", f"no-predictor, {head}", "rankme")
        for head in HEADS
        for label in ("simsiam", "linear-predictor", *(f"directpred, eps {boost}" for boost in BOOSTS))
    )
    + tuple(
        Contrast(f"{one}, {head}", f"directpred, eps 0.1, {head}")
        for head in HEADS
        for one in ("simsiam", "linear-predictor", "directpred, eps 0.0", "directpred, eps 0.5")
    ),
    cost=(
        "CPU: 12 arms of about 1 minute, an eigendecomposition of 128 x 128 in every step of DirectPred, 36 runs at "
        "3 seeds, 12 minutes on 4 cores; GPU, estimated and not measured: 13 x 15 minutes a seed for 100 epochs of "
        "ResNet-18 on CIFAR-10"
    ),
)
