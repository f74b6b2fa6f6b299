"""Table 3 of Chen & He (2020): is it BatchNorm that prevents collapse, or does it help to learn?

collapse-lab study experiments/batch_norm.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Study

# BatchNorm on the hidden layer of the projector, on z, on the hidden layer of the predictor, on p.
PLACES = {
    "no BatchNorm": (False, "none", False, "none"),
    "hidden only": (True, "none", True, "none"),
    "hidden and z": (True, "affine", True, "none"),
    "everywhere": (True, "affine", True, "affine"),
}
PAPER = {"no BatchNorm": "table-3/a", "hidden only": "table-3/b", "hidden and z": "table-3/c"}
KEYS = (
    "network.projector_hidden_norm",
    "network.projector_output_norm",
    "network.predictor_hidden_norm",
    "network.predictor_output_norm",
)
METHODS = ("simsiam", "no-stop-gradient")


def arm(method: str, place: str) -> Arm:
    """One method with BatchNorm in one set of places; the paper has a number with the stop-gradient only."""
    paper = PAPER.get(place) if method == "simsiam" else None
    return Arm(method, dict(zip(KEYS, PLACES[place], strict=True)), paper)


STUDY = Study(
    question="Does BatchNorm in the heads prevent collapse, or does it only help the optimisation?",
    predictions={
        "Chen & He (2020)": (
            "With the stop-gradient no placement collapses: without BatchNorm it learns little, with it everywhere the "
            "training oscillates; without the stop-gradient BatchNorm prevents nothing."
        ),
        "BatchNorm prevents collapse": "With BatchNorm on z, std and rank of z stay up without the stop-gradient.",
        "BatchNorm on z masks it": "With BatchNorm on z the std stays up without the stop-gradient while RankMe falls.",
    },
    answer=(
        "For each placement the paired difference in RankMe between SimSiam and no stop-gradient; without the stop-gradient "
        "the difference in std ratio and in RankMe between BatchNorm on z and hidden layers only; gains of the probe apart."
    ),
    arms={f"{method}, {place}": arm(method, place) for place in PLACES for method in METHODS},
    contrasts=tuple(
        Contrast(f"simsiam, {place}", f"no-stop-gradient, {place}", quantity)
        for quantity in ("rankme", "linear_gain")
        for place in PLACES
    )
    + tuple(
        Contrast("no-stop-gradient, hidden and z", "no-stop-gradient, hidden only", quantity)
        for quantity in ("std_ratio", "rankme")
    )
    + tuple(
        Contrast("simsiam, hidden and z", f"simsiam, {place}")
        for place in ("no BatchNorm", "hidden only", "everywhere")
    ),
    cost=(
        "24 runs at 3 seeds; 660 steps on the digits take 11 s a run on one CPU core, 624 steps on 10,000 images of "
        "Fashion-MNIST half a minute to a minute on a busy one; not measured on a GPU"
    ),
)
