"""The deep toy: what output BatchNorm hides from the std and not from the rank. About a minute and a half on one core.

python figures/toy_deep.py
"""

from __future__ import annotations

import torch

from collapse_lab.toy.deep import DeepToy, study
from collapse_lab.toy.draw_deep import deep
from collapse_lab.toy.report import publish

METHODS = ("simsiam", "no-stop-gradient", "no-predictor", "wrong-branch")

if __name__ == "__main__":
    torch.set_num_threads(1)
    publish("toy_deep", lambda: study(METHODS, ("none", "affine"), range(3), DeepToy()), deep)
