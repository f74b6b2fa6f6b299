"""What a cloud of feature vectors looks like: pure functions, in float64, each with one definition.

The two kinds of collapse need two kinds of measure. ``std_ratio`` and ``mean_energy`` see amplitude: whether rows differ
at all. ``rankme`` and ``participation_ratio`` see dimension: in how many directions they differ. Neither sees the other.
"""

from collapse_lab.geometry.cloud import (
    Moments,
    covariance_moments,
    mean_absolute_correlation,
    mean_energy,
    moments,
    residual_energy,
    std,
    std_ratio,
    unit_rows,
)
from collapse_lab.geometry.pairs import alignment, lidar, outlier_share, uniformity
from collapse_lab.geometry.predictor import (
    Eigenspace,
    GradientNorms,
    commutator,
    distance_from_identity,
    eigenspace,
    expectation_gap,
    gradient_norms,
    linear_map,
    singular_values,
)
from collapse_lab.geometry.spectra import (
    RANKME_EPSILON,
    alpha_req,
    effective_rank,
    explained_auc,
    participation_ratio,
    power_law_rankme,
    rankme,
    spectrum,
)

__all__ = [
    "RANKME_EPSILON",
    "Eigenspace",
    "GradientNorms",
    "Moments",
    "alignment",
    "alpha_req",
    "commutator",
    "covariance_moments",
    "distance_from_identity",
    "effective_rank",
    "eigenspace",
    "expectation_gap",
    "explained_auc",
    "gradient_norms",
    "lidar",
    "linear_map",
    "mean_absolute_correlation",
    "mean_energy",
    "moments",
    "outlier_share",
    "participation_ratio",
    "power_law_rankme",
    "rankme",
    "residual_energy",
    "singular_values",
    "spectrum",
    "std",
    "std_ratio",
    "uniformity",
    "unit_rows",
]
