"""Does the start decide whether SimSiam collapses, as the basins of the toy and section 5.3 of Chen & He (2020) suggest?

collapse-lab study experiments/initialisation.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
STARTS = ("default", "centred", "near-constant")
METHODS = ("simsiam", "no-stop-gradient")

STUDY = Study(
    question="Does it matter whether the first outputs lie around 0, as they come, or near one constant?",
    predictions={
        "Chen & He (2020), section 5.3": (
            "The trajectory of the alternation depends on its start, and outputs of a random network are not "
            "constant: a start near a constant may stay there."
        ),
        "Scalar toy (collapse_lab.toy.basin)": (
            "Both methods have basins of both fates: with the stop-gradient collapse from phi^2 - theta^2 >= 1 only, "
            "without it where |1 - phi| >= |theta|, so amplitude at the start helps both. With noise of the views no "
            "start helps without it."
        ),
        "Zhang et al. (2022), known to us from notes on it": (
            "The stop-gradient's target drives the mean of unit outputs down, so SimSiam leaves a near-constant "
            "start by itself."
        ),
        "DirectPred, modes with weight decay": "Modes below the unstable point p_- die, so a weak start can collapse SimSiam.",
    },
    answer=(
        "RankMe and mean energy at the end, each start against the default, within a method: the start decides if a "
        "method ends healthy from one and collapsed from another in every seed. A start that is only slower to learn "
        "shows in the probe, with RankMe kept."
    ),
    arms={
        f"{method}, {start}, {head}": Arm(method, {"network.projector_output_norm": head, "network.start": start})
        for head in HEADS
        for start in STARTS
        for method in METHODS
    },
    contrasts=tuple(
        Contrast(f"{method}, {start}, {head}", f"{method}, default, {head}", quantity)
        for quantity in ("rankme", "mean_energy")
        for head in HEADS
        for method in METHODS
        for start in STARTS[1:]
    ),
    cost=(
        "CPU: 12 arms of about 1 minute, 36 runs at 3 seeds, 10 minutes on 4 cores; GPU, estimated and not measured: "
        "12 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
    curves=True,
)
