"""Does a fast predictor prevent collapse, as Su's blog (2020) explains SimSiam?

collapse-lab study experiments/timescales.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

# BatchNorm on z would hide an amplitude that falls, and its scale mixes with the rate: none on z here.
HEAD = {"network.projector_output_norm": "none"}
RATES = (0.1, 0.3, 3.0, 10.0)


def arm(method: str, rate: float = 1.0, weight_decay: float = 5e-4) -> Arm:
    """One method with the predictor's rate as a multiple of the encoder's."""
    return Arm(method, {**HEAD, "train.predictor_rate": rate, "train.weight_decay": weight_decay})


STUDY = Study(
    question="Does SimSiam depend on how fast its predictor learns beside the encoder?",
    predictions={
        "Su (2020), on equations 3 to 5": (
            "SimSiam lives because the predictor is fit before the encoder can degenerate: a slow predictor "
            "collapses, a faster one is safer."
        ),
        "Scalar toy, SG with a rate ratio a (collapse_lab.toy.scalar)": (
            "What saves the encoder is the sign of its change, not speed. The final amplitude falls with a: 2.53 at "
            "a = 0.1, 0.81 at 1, 0.27 at 10, so a fast predictor leaves the encoder near its start. No a collapses "
            "from the blog's start."
        ),
        "Scalar toy without stop-gradient": (
            "Without noise a fast predictor rescues even that: collapse only if (1 - phi)^2 >= a theta^2 at the "
            "start. With noise of the views it collapses whatever a is."
        ),
        "DirectPred, modes": (
            "A mode survives for sure if s > p^2 / a at the start, so a faster predictor is safer; weight decay ties "
            "p^2 to a s, so without it the rate matters differently: the arms at weight decay 0."
        ),
    },
    answer=(
        "First by steps of the predictor, 3 and 10 for one of the encoder, which leave every rate alone; then by its "
        "rate, which BatchNorm and weight decay confound: a rate acts on the decay too. Paired differences to "
        "SimSiam in RankMe and std ratio: the blog is contradicted if rate 0.1 keeps both; the toy without noise if "
        "10 steps leave no-stop-gradient as it was."
    ),
    arms={
        "simsiam": arm("simsiam"),
        "3 steps": arm("predictor-steps-3"),
        "10 steps": arm("predictor-steps-10"),
        **{f"rate x {rate}": arm("simsiam", rate) for rate in RATES},
        **{f"rate x {rate}, no decay": arm("simsiam", rate, 0.0) for rate in (0.1, 10.0)},
        "no stop-gradient": arm("no-stop-gradient"),
        "no stop-gradient, 10 steps": Arm("no-stop-gradient", {**HEAD, "train.predictor_steps": 10}),
    },
    contrasts=tuple(
        Contrast(label, "simsiam", quantity)
        for quantity in ("rankme", "std_ratio")
        for label in ("3 steps", "10 steps", *(f"rate x {rate}" for rate in RATES))
    )
    + tuple(Contrast("rate x 10.0, no decay", "rate x 0.1, no decay", quantity) for quantity in ("rankme", "std_ratio"))
    + tuple(
        Contrast("no stop-gradient, 10 steps", "no stop-gradient", quantity) for quantity in ("rankme", "std_ratio")
    )
    + (Contrast("10 steps", "simsiam"), Contrast("rate x 0.1", "simsiam")),
    cost=(
        "CPU: 11 arms of about 1 minute, 33 runs at 3 seeds, 9 minutes on 4 cores; GPU, estimated and not measured: "
        "11 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
