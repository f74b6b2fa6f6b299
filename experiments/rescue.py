"""From collapsed weights, with the stop-gradient put back: does SimSiam recover, or does the start decide?

collapse-lab study experiments/rescue.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")


def arms(head: str) -> dict[str, Arm]:
    """Two arms that start afresh, then each method from the final weights of each of them."""
    norm = {"network.projector_output_norm": head}

    def after(method: str, first: str) -> Arm:
        return Arm(method, {**norm, "train.start": f"{first}, {head}"})

    return {
        f"healthy, {head}": Arm("simsiam", norm),
        f"collapsed, {head}": Arm("no-stop-gradient", norm),
        f"rescued, {head}": after("simsiam", "collapsed"),
        f"continued, {head}": after("simsiam", "healthy"),
        f"broken, {head}": after("no-stop-gradient", "healthy"),
        f"left alone, {head}": after("no-stop-gradient", "collapsed"),
    }


STUDY = Study(
    question="Does SimSiam recover from collapsed weights, and does a healthy start survive without the stop-gradient?",
    predictions={
        "Chen & He (2020), section 5.3": (
            "The stop-gradient does not remove the collapsed solution, it leads another way from the usual start: "
            "from collapsed weights nothing leads away, so there is no rescue."
        ),
        "Scalar toy (collapse_lab.toy.basin)": (
            "Collapse without stop-gradient ends at theta near 0 and phi below 1, where with the stop-gradient theta "
            "grows again: rescue, if slowly, unless theta is 0 exactly. A healthy start without it stays where phi = "
            "1 and views have no noise, and shrinks where they have."
        ),
        "DirectPred, modes with weight decay": (
            "The collapsed point is stable under weight decay: a mode with p below p_- stays dead, so there is no "
            "rescue."
        ),
    },
    answer=(
        "RankMe and std ratio of rescued against left alone: above 0 is recovery, and against continued: 0 within a "
        "narrow interval is full recovery. No recovery within 12 epochs is not none for ever. Broken against "
        "continued says whether the stop-gradient is needed after a healthy start. Of no use under a head where "
        "collapsed did not collapse."
    ),
    arms={label: arm for head in HEADS for label, arm in arms(head).items()},
    contrasts=tuple(Contrast(f"healthy, {head}", f"collapsed, {head}", "rankme") for head in HEADS)
    + tuple(
        Contrast(f"{one}, {head}", f"{other}, {head}", quantity)
        for quantity in ("rankme", "std_ratio")
        for head in HEADS
        for one, other in (("rescued", "left alone"), ("rescued", "continued"), ("broken", "continued"))
    )
    + tuple(Contrast(f"rescued, {head}", f"continued, {head}", "linear") for head in HEADS),
    cost=(
        "CPU: 12 arms of about 1 minute, 36 runs at 3 seeds, 10 minutes on 4 cores; GPU, estimated and not measured: "
        "12 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
    curves=True,
)
