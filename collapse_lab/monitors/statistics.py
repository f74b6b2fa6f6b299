"""The measures a watch reads, with what a reader must know of each, in bundles by cost.

``CHEAP`` needs no eigenvalues, ``STANDARD`` one eigendecomposition of (d, d), ``FULL`` three more of them, the moments of rows
as they are, and at most 1,024 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal, NamedTuple

from collapse_lab import geometry
from collapse_lab.monitors.gathered import (
    Gathered,
    Reader,
    alignment,
    alpha,
    lidar,
    log_spaced_ranks,
    of_moments,
    of_raw,
    outlier_share,
    spectrum,
    uniformity,
)

__all__ = [
    "CHEAP",
    "FULL",
    "OUTLIER_SHARE",
    "RANKME_CENTRED",
    "SPECTRUM",
    "STANDARD",
    "Gathered",
    "Needs",
    "Statistic",
    "log_spaced_ranks",
    "read",
]

Needs = Literal["moments", "raw", "rows"]


class Statistic(NamedTuple):
    """A measure: its name in tables, its function, what the function reads, and the columns of the README's table.

    ``function`` gives values by index, scalars at 0, and nothing where the measure has no meaning for what was gathered.
    ``needs`` names the field of ``Gathered`` that it reads. ``least_rows`` says from how many rows on the value means
    something, ``source`` who defined it, with year.
    """

    name: str
    function: Reader
    needs: Needs
    formula: str
    range: str
    collapse: str
    blind_to: str
    least_rows: str
    source: str


def read(gathered: Gathered, statistics: Iterable[Statistic]) -> Iterator[tuple[str, int, float]]:
    """(name, index, value) of each statistic; scalars have index 0, vectors one entry an index."""
    for statistic in statistics:
        for index, value in statistic.function(gathered).items():
            yield statistic.name, index, value


CHEAP = (
    Statistic(
        name="std",
        function=of_moments(geometry.std),
        needs="moments",
        formula="mean over channels of std(u_c)",
        range="[0, 1/sqrt(d)]",
        collapse="0",
        blind_to="rank",
        least_rows="2",
        source="Chen & He (2020)",
    ),
    Statistic(
        name="std_ratio",
        function=of_moments(geometry.std_ratio),
        needs="moments",
        formula="std x sqrt(d)",
        range="[0, 1]",
        collapse="0",
        blind_to="rank",
        least_rows="2",
        source="Chen & He (2020)",
    ),
    Statistic(
        name="mean_energy",
        function=of_moments(geometry.mean_energy),
        needs="moments",
        formula="squared norm of E u",
        range="[0, 1]",
        collapse="1",
        blind_to="rank",
        least_rows="10",
        source="Zhang et al. (2022)",
    ),
    Statistic(
        name="participation_ratio",
        function=of_moments(geometry.participation_ratio),
        needs="moments",
        formula="(tr C)^2 / squared norm of C, C = Cov u",
        range="[1, min(N - 1, d)]",
        collapse="near 1",
        blind_to="amplitude",
        least_rows="4 x its value",
        source="Gao et al. (2017)",
    ),
)

STANDARD = (
    *CHEAP,
    Statistic(
        name="rankme",
        function=of_moments(geometry.rankme),
        needs="moments",
        formula="exp entropy of the singular values of u",
        range="[1, min(N, d)]",
        collapse="near 1",
        blind_to="amplitude around a mean of 0",
        least_rows="4 d",
        source="Garrido et al. (2023)",
    ),
    Statistic(
        name="correlation",
        function=of_moments(geometry.mean_absolute_correlation),
        needs="moments",
        formula="mean of the absolute correlations of channels i and j of u, i not j",
        range="[0, 1]",
        collapse="towards 1",
        blind_to="amplitude",
        least_rows="100",
        source="Hua et al. (2021)",
    ),
)

SPECTRUM = Statistic(
    name="spectrum",
    function=spectrum,
    needs="moments",
    formula="singular values of u / sqrt(N), at 64 ranks",
    range="[0, 1]",
    collapse="all but the first 0",
    blind_to="-",
    least_rows="4 d",
    source="Jing et al. (2022)",
)

RANKME_CENTRED = Statistic(
    name="rankme_centred",
    function=of_moments(partial(geometry.rankme, centred=True)),
    needs="moments",
    formula="exp entropy of the singular values of u - E u",
    range="[1, min(N - 1, d)]",
    collapse="near 1",
    blind_to="amplitude",
    least_rows="4 d",
    source="MONAI's form",
)

OUTLIER_SHARE = Statistic(
    name="outlier_share",
    function=outlier_share,
    needs="rows",
    formula="share of tr Cov u that the most distant 2 % of rows carry",
    range="[0, 1]",
    collapse="near 1 where outliers are all that differs",
    blind_to="rank, and amplitude",
    least_rows="100",
    source="ours",
)

FULL = (
    *STANDARD,
    SPECTRUM,
    Statistic(
        name="rankme_eigenvalue",
        function=of_moments(partial(geometry.rankme, eigenvalues=True)),
        needs="moments",
        formula="exp entropy of the eigenvalues of E uu'",
        range="[1, min(N, d)]",
        collapse="near 1",
        blind_to="all but the leading directions",
        least_rows="4 d",
        source="Giraldo et al. (2015)",
    ),
    RANKME_CENTRED,
    Statistic(
        name="alpha",
        function=alpha,
        needs="raw",
        formula="lambda_j ~ j^-alpha at ranks 11 to 100 of Cov z, weights 1/j",
        range="[0, inf]",
        collapse="large, inf where rank is lost",
        blind_to="amplitude, first 10 ranks",
        least_rows="4 x 100",
        source="Agrawal et al. (2022)",
    ),
    Statistic(
        name="auc",
        function=of_raw(geometry.explained_auc),
        needs="raw",
        formula="area under cumulated singular values of z - E z",
        range="[(d + 1)/2d, 1]",
        collapse="towards 1",
        blind_to="amplitude",
        least_rows="4 d",
        source="Li et al. (2022)",
    ),
    Statistic(
        name="alignment",
        function=alignment,
        needs="rows",
        formula="mean squared distance of u between views",
        range="[0, 4]",
        collapse="0, as does success",
        blind_to="everything but agreement",
        least_rows="10",
        source="Wang & Isola (2020)",
    ),
    Statistic(
        name="uniformity",
        function=uniformity,
        needs="rows",
        formula="log mean over pairs of exp(-2 squared distance of u)",
        range="[-8, 0]",
        collapse="0; isotropic: -4 + 8/d",
        blind_to="partial loss of rank",
        least_rows="100",
        source="Wang & Isola (2020)",
    ),
    Statistic(
        name="lidar",
        function=lidar,
        needs="rows",
        formula="exp entropy of the eigenvalues of Sw^-1/2 (Sb - Sw/q) Sw^-1/2",
        range="[1, min(n - 1, d)]",
        collapse="near 1",
        blind_to="amplitude; noise reads high",
        least_rows="4 d samples",
        source="Thilak et al. (2023)",
    ),
    OUTLIER_SHARE,
)
