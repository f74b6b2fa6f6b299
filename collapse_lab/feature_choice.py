"""A measure of a finished run: which feature is worth most, that of the image, of its mean view, or a mean over views."""

from __future__ import annotations

from pathlib import Path

import torch

from collapse_lab.data import Images
from collapse_lab.evaluation import results
from collapse_lab.machine import threads
from collapse_lab.recipes import KINDS, Request
from collapse_lab.restored import restored


def feature_choice(run_directory: Path, images: Images, *, views: int = 16) -> dict[str, float]:
    """Accuracies in [0, 1] of F(x), F(mean of K views) and mean over K views of F, by kNN and by logistic regression.

    Twelve values: ``knn_clean``, ``knn_mean_input``, ``knn_mean_output`` and the same with ``linear_fast_`` are of
    backbone features, those that end in ``_projector`` of the projector's. Bank and queries are treated alike; K =
    ``views``, keyed by the run's seed; k and T are the run's. Raises ``InputError`` as ``restored`` does: a run that
    diverged has no features.
    """
    # A run that was trained on a GPU can be measured where there is none.
    run = restored(run_directory, images, device=None if torch.cuda.is_available() else "cpu")
    request = Request(kinds=KINDS, views=views, baselines=False)
    with threads(run.config.train.threads):
        return {
            f"{one.classifier}_{one.feature}{'_projector' * (one.layer == 'projector')}".replace("-", "_"): one.accuracy
            for one in results(run, request)
        }
