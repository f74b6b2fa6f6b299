"""The momentum encoder of BYOL, from m = 0, which is SimSiam, upwards.

collapse-lab study experiments/momentum.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
# m = 0 is SimSiam to the bit, so its arm is SimSiam.
MOMENTA = (0.5, 0.9, 0.99, 0.999)


def arms(head: str) -> dict[str, Arm]:
    """SimSiam, BYOL with each m, and no stop-gradient under one head."""
    norm = {"network.projector_output_norm": head}
    return {
        f"simsiam (m = 0), {head}": Arm("simsiam", norm),
        **{f"byol, m = {momentum}, {head}": Arm("byol", {**norm, "target.momentum": momentum}) for momentum in MOMENTA},
        f"no-stop-gradient, {head}": Arm("no-stop-gradient", norm),
    }


STUDY = Study(
    question="Does a momentum encoder prevent collapse, or help to learn, where a stop-gradient is there already?",
    predictions={
        "Chen & He (2020), sections 1 and 6.2": (
            "The momentum encoder is not needed against collapse; it may help accuracy, as BYOL ends above SimSiam "
            "in long training and below it at 100 epochs (Table 4)."
        ),
        "DirectPred, section 3": (
            "A slow target has tau < 1 while modes grow, so the predictor's fixed point tau / (1 + s2) and with it "
            "growth are smaller; it gives time for eigenspaces to align and makes training steadier, at the price of "
            "speed."
        ),
        "Too slow": (
            "936 steps are less than the memory of m = 0.999, so that target stays near the random first weights: it "
            "does not collapse and learns least. This is arithmetic, not a finding of the study."
        ),
    },
    answer=(
        "Paired differences to SimSiam in RankMe and in the probe's gain for each m. An optimum between 0 and 0.999 "
        "needs two intervals that exclude 0 on its two sides."
    ),
    arms={label: arm for head in HEADS for label, arm in arms(head).items()},
    contrasts=tuple(
        Contrast(f"byol, m = {momentum}, {head}", f"simsiam (m = 0), {head}", quantity)
        for quantity in ("rankme", "linear_gain")
        for head in HEADS
        for momentum in MOMENTA
    ),
    cost=(
        "CPU: 12 arms of 1 to 1.5 minutes, 36 runs at 3 seeds, 12 minutes on 4 cores; GPU, estimated and not "
        "measured: 15 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
