"""A map of collapse: learning rate by weight decay.

collapse-lab study experiments/sensitivity.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

RATES = (0.02, 0.06, 0.2, 0.6)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3)

STUDY = Study(
    question="For which learning rates and weight decays does SimSiam with a stop-gradient collapse all the same?",
    predictions={
        "DirectPred, modes with weight decay e": (
            "A mode survives only below e = tau^2 / (4 (1 + s2)), and small modes die first: rank falls with weight "
            "decay, to collapse at the largest. At weight decay 0 nothing dies, but eigenspaces align less and it "
            "learns less."
        ),
        "Scalar toy (collapse_lab.toy.scalar)": (
            "Without weight decay the rate changes how fast, not where to; from the blog's start no rate collapses "
            "SimSiam."
        ),
        "Reports on CIFAR-10": (
            "Users report a loss of -1 at chance accuracy for SimSiam with some rates, so a corner of the map may "
            "collapse."
        ),
    },
    answer=(
        "RankMe, std ratio and verdict of the 16 cells. A border is drawn between neighbours that differ in verdict "
        "in all seeds; the product of rate and decay is the same along diagonals, so a border along them is one of "
        "the effective rate. Without BatchNorm on z alone, where z can shrink; BatchNorm in the hidden layers "
        "remains, with which weight decay raises the effective rate."
    ),
    arms={
        f"rate {rate}, decay {decay:g}": Arm(
            "simsiam",
            {"network.projector_output_norm": "none", "train.base_lr": rate, "train.weight_decay": decay},
        )
        for rate in RATES
        for decay in DECAYS
    },
    contrasts=tuple(
        Contrast(f"rate {rate}, decay {decay:g}", f"rate {rate}, decay 0.0005", "rankme")
        for rate in RATES
        for decay in DECAYS
        if decay != 5e-4
    ),
    cost=(
        "CPU: 16 arms of about 1 minute, 48 runs at 3 seeds, 13 minutes on 4 cores; GPU, estimated and not measured: "
        "16 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
