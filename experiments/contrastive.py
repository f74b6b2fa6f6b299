"""Section 6.2 of Chen & He (2020): do contrastive methods gain from a predictor and a stop-gradient?

collapse-lab study experiments/contrastive.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

# Their heads have BatchNorm on z; collapse is read from the rank, which that does not hide.
HEAD = {"network.projector_output_norm": "affine"}
PAPER = {
    "simclr": "section-6.2/simclr",
    "simclr-predictor": "section-6.2/simclr-predictor",
    "simclr-predictor-stop-gradient": "section-6.2/simclr-predictor-stop-gradient",
    "swav": "section-6.2/swav",
    "swav-predictor": "section-6.2/swav-predictor",
    "swav-no-stop-gradient": None,
    "simsiam": None,
    "no-stop-gradient": None,
}

STUDY = Study(
    question="Do SimCLR and SwAV, which have other means against collapse, need a predictor or a stop-gradient?",
    predictions={
        "Chen & He (2020), section 6.2": (
            "SimCLR does not collapse without either, and a predictor or a stop-gradient does not help it (66.5, "
            "66.4, 66.0 on ImageNet); nor does a predictor help SwAV (66.5, 65.2). SwAV without its stop-gradient "
            "diverges."
        ),
        "Alternating optimisation, their sections 5 and 6.2": (
            "The predictor makes up for an expectation that is not taken. SwAV's codes come from an alternation of "
            "its own, so its stop-gradient is needed; SimCLR's negatives need none."
        ),
        "One mechanism for all": "If predictor and stop-gradient help any Siamese network to learn, SimCLR and SwAV gain too.",
    },
    answer=(
        "Paired differences of each variant to its method in the gain of the probe; in RankMe for collapse. A run "
        "that diverges has no gain and is listed as failed, which is a result. Losses of different kinds are not "
        "compared, and temperatures and prototypes are not tuned here, so SimCLR against SwAV is not a question of "
        "this study."
    ),
    arms={method: Arm(method, HEAD, paper) for method, paper in PAPER.items()},
    contrasts=tuple(
        Contrast(one, other, quantity)
        for quantity in ("linear_gain", "rankme")
        for one, other in (
            ("simclr-predictor", "simclr"),
            ("simclr-predictor-stop-gradient", "simclr"),
            ("swav-predictor", "swav"),
            ("swav-no-stop-gradient", "swav"),
            ("simclr", "no-stop-gradient"),
        )
    ),
    cost=(
        "CPU: 8 arms of about 1 minute, 24 runs at 3 seeds, 6 minutes on 4 cores; GPU, estimated and not measured: 8 "
        "x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
