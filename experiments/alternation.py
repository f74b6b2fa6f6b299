"""Is SimSiam an alternating optimisation? Section 5 of Chen & He (2020), in four measured parts.

collapse-lab study experiments/alternation.py --seeds 8 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Measure, Study

HEADS = ("none", "affine")
# alternation-1 is SimSiam itself, to the bit; the test of that stands with the methods.
STEPS = {"10": "10-step", "100": "100-step", "epoch": "1-epoch"}
# eta without predictor: from one view, the mean of K now, a moving average, the mean of K under weights of 10 steps ago.
ESTIMATES = ("mean-output", "momentum-eta", "exact-eta")
VIEWS = 64


def simsiam(head: str) -> Arm:
    """SimSiam, its predictor compared with the expectation over views along the run; that does not touch the training."""
    overrides = {"network.projector_output_norm": head, "monitor.expectation_views": VIEWS}
    return Arm("simsiam", overrides, "section-5.2/1-step" if head == "affine" else None)


def arm(method: str, head: str, paper: str | None = None) -> Arm:
    """One method under one head; the paper's numbers are with BatchNorm on z."""
    return Arm(method, {"network.projector_output_norm": head}, paper if head == "affine" else None)


def arms(head: str) -> dict[str, Arm]:
    """All arms under one head: the assay, the steps between two targets, the estimates of eta."""
    return {
        f"simsiam, {head}": simsiam(head),
        f"no-predictor, {head}": arm("no-predictor", head, "table-1/a"),
        **{
            f"alternation-{steps}, {head}": arm(f"alternation-{steps}", head, f"section-5.2/{name}")
            for steps, name in STEPS.items()
        },
        f"mean-output, {head}": arm("mean-output", head),
        f"momentum-eta, {head}": arm("momentum-eta", head, "section-5.2/moving-average"),
        f"exact-eta, {head}": arm("exact-eta", head),
    }


STUDY = Study(
    question="Does alternating optimisation over theta and eta explain SimSiam, and is its predictor a stand-in for E_T?",
    predictions={
        "Chen & He (2020), section 5.2": (
            "Targets held for 10 or 100 steps work as well as those of one step, held for an epoch a little worse. "
            "The predictor stands in for the expectation, so a moving average of eta works without one, if less "
            "well. Its section 5.3 says that this does not explain why nothing collapses."
        ),
        "Chen & He (2020), section 5.1, on the predictor": (
            "If h(z1) approximates E_T[f(T x)], its gap to that is far below the gap of z1 itself, all along a "
            "SimSiam run, and a better estimate of the expectation is a better replacement for the predictor."
        ),
        "Gradient of the alternation without predictor": (
            "With eta of the present weights, from one view or exact, the expected gradient under a squared distance "
            "is that of the collapsing loss (collapse_lab.toy.siamese): no-predictor and mean-output collapse alike. "
            "Only old eta can differ: exact-eta and momentum-eta are slower, and the toys "
            "(collapse_lab.toy.alternation, memory) have them collapse in the end."
        ),
        "Zhang et al. (2022), known to us from notes on it": (
            "Averaging many views of the same batch without predictor collapses; the predictor is not a stand-in for "
            "E_T."
        ),
        "BatchNorm on z masks it": "Under affine BatchNorm collapse without predictor shows in RankMe, less in the std ratio.",
    },
    answer=(
        "First the assay: only a head where SimSiam's RankMe exceeds no-predictor's can decide. (a) RankMe and gain "
        "of the probe of alternation-k against SimSiam. (b) RankMe of each estimate without predictor against "
        "no-predictor: an interval above 0 says that this estimate slows or stops collapse within 8 epochs, and no "
        "more. (c) At the end of every run, and along SimSiam's, expectation_gap_predictor against _identity, "
        "_linear and _constant of the same run: the predictor stands in for E_T where its gap is far below "
        "identity's and no larger than linear's; collapse reads 0 in all four. (d) momentum_eta.py."
    ),
    arms={label: arm for head in HEADS for label, arm in arms(head).items()},
    contrasts=tuple(Contrast(f"simsiam, {head}", f"no-predictor, {head}", "rankme") for head in HEADS)
    + tuple(
        Contrast(f"alternation-{steps}, {head}", f"simsiam, {head}", quantity)
        for quantity in ("rankme", "linear_gain")
        for head in HEADS
        for steps in STEPS
    )
    + tuple(Contrast(f"{method}, {head}", f"no-predictor, {head}", "rankme") for head in HEADS for method in ESTIMATES)
    + tuple(Contrast(f"simsiam, {head}", f"momentum-eta, {head}") for head in HEADS)
    + tuple(
        Contrast(f"simsiam, {head}", f"simsiam, {head}", "expectation_gap_predictor", f"expectation_gap_{guess}")
        for head in HEADS
        for guess in ("identity", "linear")
    ),
    measures=(Measure("collapse_lab.network_measures:expectation", {"views": VIEWS}),),
    shown=(
        "expectation_energy",
        *(f"expectation_gap_{guess}" for guess in ("predictor", "identity", "linear", "constant")),
    ),
    cost=(
        "CPU: 16 arms of 1 to 2.5 minutes and 15 seconds of measuring, 128 runs at 8 seeds, 1 hour on 4 cores; GPU, "
        "estimated and not measured: 25 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
    headline=True,
)
