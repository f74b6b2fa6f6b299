"""The open question of Su's blog (2020): after training against a mean, is F(x), F(xbar) or the mean of F the better feature?

collapse-lab study experiments/feature_choice.py --seeds 3 \
  --data fashion-mnist --set data.root=.data/fashion --set data.train_images=10000 \
  --set network.width=16 --set train.epochs=8
"""

from collapse_lab.study import Arm, Contrast, Measure, Study

HEADS = ("none", "affine")
# Label -> method; those of mean-input with their squared distance.
METHODS = {
    "simsiam": "simsiam",
    "no-stop-gradient": "no-stop-gradient",
    "mean-output": "mean-output",
    "mean-input": "mean-input",
    "mean-input-predictor": "mean-input-predictor",
}
FEATURES = ("linear_fast_clean", "linear_fast_mean_input", "linear_fast_mean_output")

STUDY = Study(
    question="Which feature of an image is worth most: F(x), F of its mean view, or the mean of F over views?",
    predictions={
        "Su (2020), question after equation 10": (
            "The page asks whether F(x) or F(xbar) is to be used after training against F(xbar), and gives no "
            "answer. To first order in T x - x both are near E_T F(T x), and xbar need not be x."
        ),
        "A mean image is blurred": (
            "Views crop and flip, so the mean of 8 is no image of the kind that the network has seen, unless it "
            "trained against one: F(xbar) is the worst feature after SimSiam and less so after mean-input. This is "
            "our expectation."
        ),
        "Averaging removes noise": (
            "The mean of F over views beats F(x), as averaged predictions usually do, most where F depends on the view."
        ),
    },
    answer=(
        "In each arm the three accuracies side by side, seed by seed, on features of the backbone: one feature is "
        "better where its sign is the same in all seeds and in both classifiers. The contrasts ask of each feature "
        "whether it is worth more after mean-input than after SimSiam."
    ),
    arms={
        f"{label}, {head}": Arm(method, {"network.projector_output_norm": head})
        for head in HEADS
        for label, method in METHODS.items()
    },
    contrasts=tuple(
        Contrast(f"mean-input, {head}", f"simsiam, {head}", feature) for feature in FEATURES for head in HEADS
    )
    + tuple(
        Contrast(f"{label}, {head}", f"{label}, {head}", "linear_fast_clean", feature)
        for head in HEADS
        for label in ("simsiam", "mean-input")
        for feature in FEATURES[1:]
    ),
    measures=(Measure("collapse_lab.feature_choice:feature_choice", {"views": 8}),),
    shown=(*FEATURES, "knn_clean", "knn_mean_input", "knn_mean_output"),
    cost=(
        "CPU: 10 arms, all of other studies, so that only the measuring is new: about 1 minute a run, 30 runs at 3 "
        "seeds; GPU, estimated and not measured: 15 x 15 minutes a seed for 100 epochs of ResNet-18 on CIFAR-10"
    ),
)
