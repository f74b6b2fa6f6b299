"""The figure of a study shows every seed of every arm and loads no torch."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

from collapse_lab.study_plots import LOOKS, OTHER, PANELS, figure

VERDICTS = ("healthy", "complete-collapse", "unstable")


def arm(position: int, seeds: int, failed: int = 0) -> dict:
    values = {
        name: [0.5 / (1 + position) + 0.01 * seed for seed in range(seeds)]
        for name in ("std_ratio", "linear", "linear_start", "knn", "knn_start")
    }
    values["rankme"] = [100.0 / (1 + position) ** 2 + seed for seed in range(seeds)]
    done = [{"seed": s, "state": "done", "verdict": VERDICTS[position % 3], "error": None} for s in range(seeds)]
    lost = [{"seed": seeds + s, "state": "failed", "verdict": "diverged", "error": "inf"} for s in range(failed)]
    return {
        "seeds": [*range(seeds)],
        "failed": [run["seed"] for run in lost],
        "runs": done + lost,
        **{name: {"values": each, "mean": float(np.mean(each)) if each else None} for name, each in values.items()},
    }


def summary(arms: int, seeds: int = 3, failed: int = 0) -> dict:
    return {
        "study": "made_up",
        "protocol": {"data": "digits", "pixels": {"knn": 0.9, "linear": None}},
        "arms": {f"arm {position}": arm(position, seeds, failed) for position in range(arms)},
    }


@pytest.mark.parametrize("arms", [2, 27])
@pytest.mark.parametrize("seeds", [1, 8])
def test_every_seed_is_a_mark_and_the_mean_a_bar(arms, seeds):
    made = summary(arms, seeds)
    for axes, panel in zip(figure(made).axes, PANELS, strict=True):
        marks = [line for line in axes.lines if line.get_marker() not in ("", "None", "|")]
        expected = [value * panel.scale for found in made["arms"].values() for value in found[panel.name]["values"]]
        np.testing.assert_allclose([line.get_xdata()[0] for line in marks], expected)
        rows = [round(line.get_ydata()[0]) for line in marks]
        assert rows == [row for row in range(arms) for _ in range(seeds)]
        bars = [line for line in axes.lines if line.get_color() == "black" and len(line.get_xdata()) == 2]
        means = [panel.scale * found[panel.name]["mean"] for found in made["arms"].values()]
        np.testing.assert_allclose([line.get_xdata()[0] for line in bars], means)
        low, high = axes.get_xlim()
        assert all(low < value < high for value in expected)
        starts = [line for line in axes.lines if line.get_marker() == "|"]
        assert len(starts) == (arms * seeds if panel.start else 0)


def test_a_mark_says_its_verdict():
    axes = figure(summary(3)).axes[0]
    marks = [line for line in axes.lines if line.get_marker() not in ("", "None", "|")]
    looks = [(line.get_color(), line.get_marker()) for line in marks[::3]]
    assert looks == [LOOKS["healthy"], LOOKS["complete-collapse"], OTHER]
    assert len({to_hex(colour) for colour, _ in (*LOOKS.values(), OTHER)}) == len(LOOKS) + 1
    assert len({marker for _, marker in (*LOOKS.values(), OTHER)}) == len(LOOKS) + 1


def test_axes_are_logarithmic_where_the_values_spread_far_and_start_at_zero_elsewhere():
    wide, narrow = figure(summary(27)), figure(summary(2))
    assert [axes.get_xscale() for axes in wide.axes[:2]] == ["log", "log"]
    assert [(axes.get_xscale(), axes.get_xlim()[0]) for axes in narrow.axes[:2]] == [("linear", 0), ("linear", 0)]


def test_seeds_that_did_not_finish_are_named_at_their_arm():
    axes = figure(summary(2, seeds=2, failed=1)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["arm 0 (1 diverged)", "arm 1 (1 diverged)"]
    assert figure(summary(2, seeds=0, failed=2)).axes[0].get_yticklabels()[0].get_text() == "arm 0 (2 diverged)"


def test_text_does_not_leave_the_figure():
    made = summary(27)
    made["arms"] = {f"{label}, a label of near forty letters": found for label, found in made["arms"].items()}
    drawn = figure(made)
    drawn.savefig("/dev/null", format="png")
    width, height = drawn.bbox.width, drawn.bbox.height
    for box in (label.get_window_extent() for label in drawn.axes[0].get_yticklabels()):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height


def test_drawing_needs_no_torch():
    code = "import sys, collapse_lab.study_plots, collapse_lab.study_tables; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
