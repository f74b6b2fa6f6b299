"""The bundles: what each measure reads, where it is defined, and that its metadata says what is so."""

import inspect
import math
import re

import pytest
import torch

from collapse_lab import geometry
from collapse_lab.monitors import CHEAP, FULL, STANDARD
from collapse_lab.monitors.gathered import Gathered, views
from collapse_lab.monitors.statistics import read
from collapse_lab.tables import metric_cells

EVERY = pytest.mark.parametrize("statistic", FULL, ids=lambda statistic: statistic.name)


def cloud(n: int = 64, d: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gathered(*calls: torch.Tensor) -> Gathered:
    rows = torch.cat(calls)
    return Gathered(
        geometry.moments(rows),
        geometry.moments(rows, normalise=False),
        tuple(geometry.unit_rows(call) for call in calls),
    )


def two_views(noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    return cloud(), cloud() + noise * cloud(seed=1)


def values(given: Gathered, statistics=FULL) -> dict[str, float]:
    return {name: value for name, index, value in read(given, statistics) if name != "spectrum"}


def test_bundles_contain_each_other_and_names_are_unique():
    names = [[statistic.name for statistic in bundle] for bundle in (CHEAP, STANDARD, FULL)]
    assert names[0] == names[1][: len(names[0])]
    assert names[1] == names[2][: len(names[1])]
    assert len(set(names[2])) == len(names[2])
    assert {statistic.needs for statistic in STANDARD} == {"moments"}


def test_values_are_those_of_the_functions():
    x, y = two_views()
    rows, found = torch.cat([x, y]), values(gathered(x, y))
    m, raw = geometry.moments(rows), geometry.moments(rows, normalise=False)
    samples = torch.arange(64).repeat(2)
    expected = {
        "std": geometry.std(m),
        "std_ratio": geometry.std_ratio(m),
        "mean_energy": geometry.mean_energy(m),
        "participation_ratio": geometry.participation_ratio(m),
        "rankme": geometry.rankme(m),
        "correlation": geometry.mean_absolute_correlation(m),
        "rankme_eigenvalue": geometry.rankme(m, eigenvalues=True),
        "rankme_centred": geometry.rankme(m, centred=True),
        "alpha": geometry.alpha_req(raw),
        "auc": geometry.explained_auc(raw),
        "alignment": geometry.alignment(x, y),
        "uniformity": geometry.uniformity(rows),
        "lidar": geometry.lidar(geometry.unit_rows(rows) * math.sqrt(32), samples, debias=True),
        "outlier_share": geometry.outlier_share(rows),
    }
    assert found == pytest.approx(expected, rel=1e-12)


@EVERY
def test_a_statistic_reads_the_field_it_names_and_no_other(statistic):
    whole = gathered(*two_views())
    only = {
        "moments": Gathered(whole.moments),
        "raw": Gathered(geometry.moments(cloud(seed=9)), raw=whole.raw),
        "rows": Gathered(geometry.moments(cloud(seed=9)), rows=whole.rows),
    }
    assert statistic.function(only.pop(statistic.needs)) == statistic.function(whole) != {}
    if statistic.needs != "moments":
        with pytest.raises(ValueError, match=f"{statistic.needs}: found None; this statistic reads"):
            statistic.function(only["moments"])


def test_alignment_averages_over_all_pairs_of_views():
    x, y, z = cloud(), cloud(seed=1), cloud(seed=2)
    expected = (geometry.alignment(x, y) + geometry.alignment(x, z) + geometry.alignment(y, z)) / 3
    assert values(gathered(x, y, z))["alignment"] == pytest.approx(expected)


def test_what_needs_views_is_silent_where_calls_cannot_be_paired():
    for calls in ((cloud(),), (cloud(40), cloud(24))):
        assert views(gathered(*calls)) == ()
        assert {"alignment", "lidar"} & set(values(gathered(*calls))) == set()
        assert "uniformity" in values(gathered(*calls))


@EVERY
def test_one_row_few_channels_constant_and_zero_rows_do_not_raise(statistic):
    constant = cloud(1).repeat(20, 1)
    for calls in ((cloud(1),), (cloud(1), cloud(1)), (cloud(64, 1),) * 2, (cloud(5, 40),) * 2, (constant, constant)):
        assert not any(math.isnan(value) for value in statistic.function(gathered(*calls)).values())
    assert not any(math.isnan(v) for v in statistic.function(gathered(torch.zeros(9, 20), torch.zeros(9, 20))).values())


@EVERY
def test_rows_that_are_not_finite_read_nan(statistic):
    broken = cloud()
    broken[3, 3] = math.nan
    found = statistic.function(gathered(broken, cloud(seed=1)))
    assert found
    assert all(math.isnan(value) for value in found.values())


def bounds(statistic, n: int, d: int) -> tuple[float, float]:
    """The two ends of the range that the metadata states, for N = n rows in two views of n / 2 samples."""
    names = {"N": n, "n": n // 2, "d": d, "sqrt": math.sqrt, "min": min, "inf": math.inf}
    low, high = re.fullmatch(r"\[(.*?), (.*)\]", statistic.range).groups()
    return tuple(eval(end.replace("/2d", "/(2*d)"), names) for end in (low, high))


@EVERY
@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("mean", [0.0, 10.0])
@pytest.mark.parametrize("rank", [2, 32])
def test_values_lie_in_the_range_that_the_metadata_states(statistic, noise, mean, rank):
    keep = torch.arange(32) < rank
    given = gathered(*(view * keep + mean for view in two_views(noise)))
    low, high = bounds(statistic, n=128, d=32)
    assert all(low - 1e-3 <= value <= high + 1e-3 for value in statistic.function(given).values())


def test_complete_and_dimensional_collapse_move_values_to_the_stated_end():
    healthy = values(gathered(*two_views()))
    constant = values(gathered(*(10 + 1e-3 * view for view in two_views())))
    line = values(gathered(*(view[:, :1] * cloud(1, seed=3) for view in two_views())))
    for name in ("std", "std_ratio"):
        assert constant[name] < 0.01 * healthy[name]
        assert line[name] > 0.5 * healthy[name]
    assert constant["mean_energy"] > 0.99
    assert constant["uniformity"] > -0.01
    assert constant["rankme"] < 2
    assert constant["rankme_centred"] > 20
    for name in ("rankme", "rankme_centred", "rankme_eigenvalue", "participation_ratio", "lidar"):
        assert line[name] < 1.1 < 10 < healthy[name]
    assert line["correlation"] > 0.99
    assert line["auc"] > 0.99
    assert line["alpha"] == math.inf


def test_the_readmes_table_has_a_row_for_every_measure_with_nothing_left_blank():
    cells = metric_cells()
    assert [row["metric"] for row in cells] == [statistic.name for statistic in FULL]
    assert all(all(value.strip() and "|" not in value for value in row.values()) for row in cells)
    assert {row["bundle"] for row in cells} == {"cheap", "standard", "full"}


@pytest.mark.parametrize("name", [name for name in geometry.__all__ if inspect.isfunction(getattr(geometry, name))])
def test_every_function_of_geometry_shows_an_example_with_its_number(name):
    documentation = inspect.getdoc(getattr(geometry, name))
    assert ">>>" in documentation
    assert re.search(r"\d", documentation[documentation.index(">>>") :].split("\n", 1)[1])
