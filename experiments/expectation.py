"""Sections 5.1 and 5.2 of Chen & He (2020): can a mean over views replace the predictor?

collapse-lab study experiments/expectation.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

# Under BatchNorm on z the ends of the range that can be paid for.
VIEWS = {"none": (1, 2, 4, 8, 16), "affine": (8, 16)}

STUDY = Study(
    question="Without a predictor, does a better estimate of E_T[f(T x)] as target prevent collapse?",
    predictions={
        "Chen & He (2020), sections 5.1 and 5.2": (
            "The predictor fills in the expectation over views, so the explicit mean should replace it, the better "
            "the larger K. The paper shows this for a moving average only, not for the mean within a step."
        ),
        "Gradient of the alternation without predictor": (
            "For a squared distance the expected gradient is the same for every K, that of the collapsing loss; K "
            "changes its noise only. All K collapse as no-predictor does. For the cosine the argument is not exact."
        ),
        "Zhang et al. (2022), known to us from notes on it": "10 and 25 views of the same batch collapse without a predictor.",
        "BatchNorm on z masks it": "Under affine BatchNorm the collapse shows in RankMe, less in the std ratio.",
    },
    answer=(
        "Where SimSiam's RankMe exceeds no-predictor's, the paired differences in RankMe of each K to no-predictor "
        "and of K = 16 to SimSiam. K replaces the predictor if the first grow with K towards SimSiam; it does not if "
        "intervals hold 0 at K = 16 while SimSiam's excludes it."
    ),
    arms={
        f"{method}, {head}": Arm(method, {"network.projector_output_norm": head})
        for head in VIEWS
        for method in ("simsiam", "no-predictor")
    }
    | {
        f"K = {count}, {head}": Arm("mean-output", {"network.projector_output_norm": head, "target.views": count})
        for head, counts in VIEWS.items()
        for count in counts
    },
    contrasts=tuple(Contrast(f"simsiam, {head}", f"no-predictor, {head}", "rankme") for head in VIEWS)
    + tuple(
        Contrast(f"K = {count}, {head}", f"no-predictor, {head}", "rankme")
        for head, counts in VIEWS.items()
        for count in counts
    )
    + tuple(
        Contrast(f"simsiam, {head}", f"K = 16, {head}", quantity)
        for quantity in ("rankme", "linear_gain")
        for head in VIEWS
    ),
    cost=(
        "CPU: 11 arms of 1 minute (K = 1, 2) to 4 minutes (K = 16), 33 runs at 3 seeds, 20 minutes on 4 cores; GPU, "
        "estimated and not measured: 22 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
