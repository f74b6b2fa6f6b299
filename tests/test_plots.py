"""Figures show what the tables say, need no torch, give equal bytes, and name a table that they cannot read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from collapse_lab.errors import InputError
from collapse_lab.plots import draw, figure, spectra
from collapse_lab.records import read
from collapse_lab.style import COLOURS, THICK

HEADS = Path(__file__).resolve().parents[1] / "figures" / "heads.py"
HEADER = "step,epoch,source,layer,metric,index,value\n"
STEPS, EPOCH, DIMENSION, PIXELS = 60, 10, 32, 0.9
METHODS = ("fixed-predictor", "no-predictor", "no-stop-gradient", "simsiam", "wrong-branch")


def value(metric: str, step: int, seed: int, arm: int) -> float:
    """A made-up curve, different for every metric, seed and arm."""
    share = step / STEPS
    return {
        "loss": -share * (0.8 + 0.04 * arm) + 0.01 * seed,
        "std_ratio": (1 - 0.2 * share) / (1 + arm) + 0.01 * seed,
        "rankme": 1 + 20 * share / (1 + arm) + seed,
        "knn": 0.8 + 0.05 * share - 0.02 * arm + 0.005 * seed,
    }[metric]


def singular(rank: int, step: int, seed: int) -> float:
    return 0.5 * (1 + seed) * rank ** -(1.0 + step / STEPS)


def write_run(directory: Path, seed: int, arm: int, steps: int = STEPS) -> None:
    lines = []
    for step in range(0, steps + 1, 5):
        epoch = -(-step // EPOCH)
        if step:
            lines.append((step, epoch, "train", "", "loss", 0, value("loss", step, seed, arm)))
            for metric in ("std_ratio", "rankme"):
                lines.append((step, epoch, "train", "projector", metric, 0, value(metric, step, seed, arm)))
        if step % EPOCH == 0:
            for rank in (1, 2, 5, 12, DIMENSION):
                lines.append((step, epoch, "eval", "projector", "spectrum", rank, singular(rank, step, seed)))
            lines.append((step, epoch, "probe", "backbone", "knn", 0, value("knn", step, seed, arm)))
    directory.mkdir(parents=True)
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    (directory / "metrics.csv").write_text(HEADER + text)


def write_study(
    study: Path, names: tuple[str, ...] = METHODS[2:4], seeds: int = 3, failed: tuple[int, ...] = (), head: str = "none"
) -> Path:
    for arm, name in enumerate(names):
        for seed in range(seeds):
            write_run(study / name / f"seed{seed}", seed, arm, steps=20 if seed in failed else STEPS)
    protocol = {
        "data": "digits",
        "pixels": {"knn": PIXELS, "linear": 0.95},
        "config": {
            "network": {"projector_output_norm": head},
            "objective": {"loss": "negative-cosine"},
            "monitor": {"k": 20, "temperature": 0.1},
        },
    }
    ended = {"seeds": [seed for seed in range(seeds) if seed not in failed], "failed": [*failed]}
    (study / "summary.json").write_text(json.dumps({"protocol": protocol, "arms": dict.fromkeys(names, ended)}))
    return study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study")


def lines(axes: Axes, position: int, thick: bool = True) -> list[tuple[list[float], np.ndarray]]:
    """Steps and values of the thick line, or of the thin ones, of the arm at a position."""
    return [
        (list(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in axes.lines
        if line.get_color() == COLOURS[position] and (line.get_linewidth() == THICK) == thick
    ]


# what is drawn


@pytest.mark.parametrize(("panel", "metric"), [*enumerate(("loss", "std_ratio", "rankme", "knn"))])
def test_a_thick_line_is_the_mean_over_seeds_and_every_seed_is_there(study: Path, panel: int, metric: str) -> None:
    axes = figure(study).axes[panel]
    # The baseline comes first whatever the order of the summary, which is alphabetical.
    for position, arm in ((0, 1), (1, 0)):
        ((steps, mean),) = lines(axes, position)
        each = [[value(metric, int(step), seed, arm) for step in steps] for seed in range(3)]
        np.testing.assert_allclose(mean, np.mean(each, axis=0))
        thin = lines(axes, position, thick=False)
        np.testing.assert_allclose([values for _, values in thin], each)
        band = axes.collections[position].get_paths()[0].vertices
        for step in steps:
            at = band[band[:, 0] == step][:, 1]
            column = steps.index(step)
            assert (at.min(), at.max()) == pytest.approx((np.min(each, 0)[column], np.max(each, 0)[column]))


def test_the_reference_lines_are_the_isotropic_cloud_the_width_and_the_pixels(study: Path) -> None:
    _, std, rank, knn = figure(study).axes
    for axes, height in ((std, 1), (rank, DIMENSION), (knn, PIXELS)):
        assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [height]
        low, high = axes.get_ylim()
        assert low < height < high


def test_a_spectrum_is_averaged_geometrically_at_the_first_and_the_last_step(study: Path) -> None:
    for position, axes in enumerate(spectra(study).axes):
        start, end = (line for line in axes.lines if line.get_linewidth() == THICK)
        assert end.get_color() == COLOURS[position]
        for line, step in ((start, 0), (end, STEPS)):
            ranks = line.get_xdata()
            assert list(ranks) == [1, 2, 5, 12, DIMENSION]
            # The geometric mean of 1, 2 and 3 is the cube root of 6.
            expected = [6 ** (1 / 3) * singular(rank, step, 0) for rank in ranks]
            np.testing.assert_allclose(line.get_ydata(), expected)


def test_a_failed_seed_is_drawn_but_not_averaged(tmp_path: Path) -> None:
    axes = figure(write_study(tmp_path, failed=(1,))).axes[0]
    ((steps, mean),) = lines(axes, 0)
    np.testing.assert_allclose(mean, [(value("loss", int(s), 0, 1) + value("loss", int(s), 2, 1)) / 2 for s in steps])
    assert sorted(len(steps) for steps, _ in lines(axes, 0, thick=False)) == [4, 12, 12]
    assert read(tmp_path).arms["simsiam"].number == "2 of 3 seeds"


def test_an_arm_whose_seeds_all_failed_is_drawn_without_a_mean(tmp_path: Path) -> None:
    write_study(tmp_path, failed=(0, 1, 2))
    (tmp_path / "simsiam" / "seed1" / "metrics.csv").unlink()
    axes = figure(tmp_path).axes[0]
    ((steps, _),) = lines(axes, 0)
    assert steps == []
    assert len(lines(axes, 0, thick=False)) == 2
    assert len(draw(tmp_path, tmp_path / "out")) == 4


def test_a_mean_is_taken_over_the_seeds_that_have_the_step(study: Path) -> None:
    table = study / "simsiam" / "seed2" / "metrics.csv"
    kept = [line for line in table.read_text().splitlines(keepends=True)[1:] if int(line.split(",")[0]) <= 30]
    table.write_text(HEADER + "".join(kept))
    ((steps, mean),) = lines(figure(study).axes[0], 0)
    assert steps == [*range(5, STEPS + 1, 5)]
    expected = [np.mean([value("loss", int(s), seed, 1) for seed in range(3 if s <= 30 else 2)]) for s in steps]
    np.testing.assert_allclose(mean, expected)


def test_one_seed_has_no_band_and_a_run_of_no_epochs_says_what_is_missing(tmp_path: Path) -> None:
    assert not figure(write_study(tmp_path / "one", seeds=1)).axes[0].collections
    study = write_study(tmp_path / "none", seeds=1)
    for table in study.glob("*/seed0/metrics.csv"):
        rows = table.read_text().splitlines(keepends=True)
        table.write_text("".join(line for line in rows if line.startswith(("step", "0,"))))
    loss, *_, knn = figure(study).axes
    assert [text.get_text() for text in loss.texts] == ["not recorded"]
    assert [steps for steps, _ in lines(knn, 0)] == [[0]]


def test_a_summary_without_baselines_or_settings_is_enough(study: Path) -> None:
    path = study / "summary.json"
    path.write_text(json.dumps({"protocol": {}, "arms": json.loads(path.read_text())["arms"]}))
    drawn = figure(study)
    assert [axes.get_title(loc="left") for axes in drawn.axes][::3] == ["Loss, train mode", "kNN accuracy, backbone"]
    assert drawn.legends[0].get_title().get_text() == "study"


# how it looks


def test_arms_differ_in_colour_and_in_dashes(tmp_path: Path) -> None:
    handles = figure(write_study(tmp_path, METHODS, seeds=1)).legends[0].get_lines()
    assert [handle.get_label() for handle in handles] == [
        f"{name}, 1 seed" for name in ("simsiam", *METHODS[:3], METHODS[4])
    ]
    assert len({to_hex(handle.get_color()) for handle in handles}) == len(METHODS)
    assert len({str(handle._dash_pattern) for handle in handles}) == len(METHODS)


def assert_no_text_is_cut_or_covered(drawn: Figure) -> None:
    FigureCanvasAgg(drawn).draw()
    texts = [*drawn.legends[0].get_texts(), drawn.legends[0].get_title()] if drawn.legends else []
    texts += [text for text in (drawn._suptitle, drawn._supxlabel) if text]
    for axes in drawn.axes:
        texts += [axes._left_title, axes.xaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    for position, (text, box) in enumerate(boxes):
        assert drawn.bbox.padded(1).count_contains(box.corners()) == 4, f"'{text}' is cut"
        for other, covering in boxes[:position]:
            assert not box.padded(-2).overlaps(covering.padded(-2)), f"'{text}' and '{other}' overlap"


@pytest.mark.parametrize("names", [METHODS[3:4], METHODS[2:4], METHODS])
@pytest.mark.parametrize("make", [figure, spectra])
def test_no_text_is_cut_or_covered(tmp_path: Path, make: Callable[[Path], Figure], names: tuple[str, ...]) -> None:
    assert_no_text_is_cut_or_covered(make(write_study(tmp_path, names, seeds=8, head="non-affine")))


def test_equal_records_give_equal_files(study: Path, tmp_path: Path) -> None:
    first, second = draw(study, tmp_path / "one"), draw(study, tmp_path / "two")
    assert [path.name for path in first] == ["figure.png", "figure.pdf", "spectra.png", "spectra.pdf"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert b"CreationDate" not in one.read_bytes()
        assert one.stat().st_size < 300_000


def test_drawing_does_not_load_torch(study: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from collapse_lab.plots import draw;"
        f"draw(Path({str(study)!r}), Path({str(tmp_path / 'out')!r}));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib.pyplot')))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_three_heads_stand_side_by_side(tmp_path: Path) -> None:
    studies = [write_study(tmp_path / head, head=head) for head in ("none", "affine", "non-affine")]
    command = [sys.executable, HEADS, *studies, "--out", tmp_path / "gallery" / "heads.png"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {"heads.png", "heads.pdf"}
    studies.append(write_study(tmp_path / "other", METHODS))
    refused = subprocess.run([*command[:2], *studies, *command[-2:]], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"heads: study '{tmp_path / 'other'}' has other arms than '{tmp_path / 'none'}': "
        "simsiam, fixed-predictor, no-predictor, no-stop-gradient, wrong-branch\n"
    )


# bad input

TABLE = Path("simsiam") / "seed1" / "metrics.csv"
ONE_LINE = "5,1,train,,loss,0,-0.1\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", None, "has no readable summary.json; `collapse-lab compare` writes one"),
        ("summary.json", "{", "is damaged (JSONDecodeError"),
        ("summary.json", "[]", "is damaged"),
        ("summary.json", '{"protocol": {}, "arms": {"simsiam": {}}}', "is damaged (KeyError: 'seeds')"),
        ("summary.json", '{"protocol": {}, "arms": {}}', "names no arm"),
        ("summary.json", '{"protocol": {}, "arms": {"simsiam": {"seeds": [], "failed": []}}}', "has no finished seed"),
        (TABLE, None, "cannot be read: No such file or directory"),
        (TABLE, "", "is damaged: No columns to parse"),
        (TABLE, HEADER, "has no rows"),
        (TABLE, HEADER.replace("step,", ""), "has columns epoch,source,layer,metric,index,value"),
        (TABLE, HEADER + "5,1,train,,loss,0,none\n", "is damaged: could not convert"),
        (TABLE, HEADER + ONE_LINE + "5,1,tra", "is damaged"),
        (TABLE, HEADER + ONE_LINE + "5,1,train,,loss,0,1,1,1\n", "is damaged"),
        (TABLE, HEADER + ONE_LINE * 2, "line 3 repeats an earlier reading"),
    ],
)
def test_unreadable_records_are_named(study: Path, file: str | Path, content: str | None, message: str) -> None:
    path = study / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for make in (figure, spectra):
        with pytest.raises(InputError) as refused:
            make(study)
        assert message in str(refused.value)
        assert str(study) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_study_without_spectra_is_named(study: Path) -> None:
    for table in study.glob("*/*/metrics.csv"):
        rows = table.read_text().splitlines(keepends=True)
        table.write_text("".join(line for line in rows if ",spectrum," not in line))
    with pytest.raises(InputError, match=f"study '{study}' has no spectra of the projector"):
        draw(study, study)
    assert len(figure(study).axes) == 4


def test_an_output_directory_that_cannot_be_written_is_named(study: Path) -> None:
    with pytest.raises(InputError, match=r"output directory '.*summary\.json' cannot be written"):
        draw(study, study / "summary.json")
