"""Table 2 of Chen & He (2020): does SimSiam need large batches, and does LARS help at the largest?

collapse-lab study experiments/batch_size.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine")
BATCHES = (64, 128, 256, 512, 1024)
# Their warm-up from 1024 images on is a tenth of the epochs.
LARGEST = {"train.batch": 1024, "train.warmup_epochs": 1}
# A step of LARS is a thousandth of a layer's weights times the rate, so SGD's rate says nothing about its own.
LARS_RATES = (0.2, 2.0)


def arm(head: str, batch: int) -> Arm:
    """SimSiam by SGD with one batch size; the paper's numbers are with BatchNorm on z."""
    size = LARGEST if batch == LARGEST["train.batch"] else {"train.batch": batch}
    return Arm(
        "simsiam", {"network.projector_output_norm": head, **size}, f"table-2/{batch}" if head == "affine" else None
    )


def lars(head: str, rate: float) -> Arm:
    """SimSiam by LARS with the largest batch."""
    own = {"train.optimizer": "lars", "train.base_lr": rate}
    return Arm("simsiam", {"network.projector_output_norm": head, **LARGEST, **own})


STUDY = Study(
    question="Over which batch sizes does SimSiam work by SGD, and is it the optimiser that limits the largest?",
    predictions={
        "Chen & He (2020), Table 2": (
            "Batches from 64 to 2048 work with SGD, 64 a little worse; collapse does not depend on the batch, and no "
            "special optimiser is needed below 4096."
        ),
        "Batch statistics prevent collapse": (
            "If SimSiam lived by comparing images within a batch, as contrastive losses do, a small batch would cost "
            "rank."
        ),
        "Steps, not batches": (
            "At a fixed number of epochs a batch of 1024 makes 9 steps an epoch, so it learns least here, whatever "
            "the optimiser."
        ),
    },
    answer=(
        "Paired differences to batch 128 in RankMe (collapse) and in the gain of the probe (learning); LARS against "
        "SGD at 1024 for both rates, stated before, neither chosen afterwards. Batch and number of steps change "
        "together: only the absence of a difference speaks about the batch alone."
    ),
    arms={f"{batch}, {head}": arm(head, batch) for head in HEADS for batch in BATCHES}
    | {f"1024, LARS {rate}, {head}": lars(head, rate) for head in HEADS for rate in LARS_RATES},
    contrasts=tuple(
        Contrast(f"{batch}, {head}", f"128, {head}", quantity)
        for quantity in ("rankme", "linear_gain")
        for head in HEADS
        for batch in BATCHES
        if batch != 128
    )
    + tuple(Contrast(f"1024, LARS {rate}, {head}", f"1024, {head}") for head in HEADS for rate in LARS_RATES),
    cost=(
        "CPU: 14 arms of about 1 minute, 42 runs at 3 seeds, 12 minutes on 4 cores; GPU, estimated and not measured: "
        "14 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
