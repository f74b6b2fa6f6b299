"""Table 4 of Chen & He (2020) at small scale: five methods over three lengths of training.

collapse-lab study experiments/methods.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

METHODS = ("simclr", "mocov2", "byol", "swav", "simsiam")
# Epochs here -> those of the paper's columns, which double likewise.
EPOCHS = {6: 100, 12: 200, 24: 400}

STUDY = Study(
    question="How do five methods compare as training is made longer, all else alike?",
    predictions={
        "Chen & He (2020), Table 4": (
            "SimSiam is first at 100 epochs and gains least from longer training; BYOL is last at 100, with SimCLR "
            "and SwAV, and first at 200 and 400. All gain from length."
        ),
        "Untuned": (
            "Temperature, queue, prototypes and momentum are chosen for large data and not tuned here, and BYOL's m "
            "= 0.99 has a memory of 100 of the 468 steps of 6 epochs: an order between methods here is one of these "
            "settings."
        ),
    },
    answer=(
        "Within a method, the paired gain of the probe from 6 to 12 and from 12 to 24 epochs. Between methods, "
        "SimSiam against each other at 24 epochs; a claim about methods would need each one tuned, so this supports "
        "none beyond these settings."
    ),
    arms={
        f"{method}, {epochs} epochs": Arm(
            method, {"network.projector_output_norm": "affine", "train.epochs": epochs}, f"table-4/{method}/{theirs}"
        )
        for epochs, theirs in EPOCHS.items()
        for method in METHODS
    },
    contrasts=tuple(
        Contrast(f"{method}, {longer} epochs", f"{method}, {shorter} epochs")
        for method in METHODS
        for shorter, longer in ((6, 12), (12, 24))
    )
    + tuple(Contrast("simsiam, 24 epochs", f"{method}, 24 epochs") for method in METHODS if method != "simsiam"),
    cost=(
        "CPU: 15 arms of 0.5 to 2.5 minutes, 45 runs at 3 seeds, 18 minutes on 4 cores; GPU, estimated and not "
        "measured: 15 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
