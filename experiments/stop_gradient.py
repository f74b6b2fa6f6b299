"""Figure 2 of Chen & He (2020): does SimSiam collapse without the stop-gradient, and does the head hide it?

collapse-lab study experiments/stop_gradient.py --seeds 8 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Study

HEADS = ("none", "affine", "non-affine")
# Their head has BatchNorm on z, affine in the text.
PAPER = {"simsiam": "figure-2/stop-gradient", "no-stop-gradient": "figure-2/no-stop-gradient"}

STUDY = Study(
    question="Does SimSiam collapse without the stop-gradient, whatever BatchNorm stands on z?",
    predictions={
        "Chen & He (2020)": "Without it the loss falls to -1 at once, the std of z/|z| to 0, and the representation fails.",
        "Su (2020), scalar toy": "From a small start the encoder shrinks to 0 without it and grows with it.",
        "BatchNorm on z masks it": "Without it the rank falls under every head; the std falls only where z has no BatchNorm.",
    },
    answer=(
        "RankMe and std ratio of z for the output, the gain of the linear probe over the calibrated start for the "
        "representation, each as a paired difference whose interval excludes 0, under all three heads."
    ),
    arms={
        f"{method}, {head}": Arm(
            method, {"network.projector_output_norm": head}, PAPER[method] if head == "affine" else None
        )
        for head in HEADS
        for method in PAPER
    },
    contrasts=tuple(
        Contrast(f"simsiam, {head}", f"no-stop-gradient, {head}", quantity)
        for quantity in ("rankme", "std_ratio", "linear_gain")
        for head in HEADS
    ),
    cost=(
        "48 runs at 8 seeds; 660 steps on the digits take 11 s a run on one CPU core, 624 steps on 10,000 images of "
        "Fashion-MNIST half a minute to a minute on a busy one; not measured on a GPU"
    ),
    headline=True,
    curves=True,
)
