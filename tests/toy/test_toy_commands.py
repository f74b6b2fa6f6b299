"""The toy commands: their JSON, their files, their refusals, run as a person runs them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from collapse_lab import cli


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process, with its exit code and both streams."""
    out, err = io.StringIO(), io.StringIO()
    streams = (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err))
    with mock.patch.object(sys, "argv", ["collapse-lab", "toy", *words]), streams[0], streams[1]:
        try:
            cli.main()
        except SystemExit as done:
            code = int(done.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def answer(*words: str) -> Any:
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("variant", "phi", "theta", "kept", "verdict"),
    [
        ("stop-gradient", 0.92242244, 0.70771686, 0.35, "not-collapsed"),
        ("both-terms", 0.61209768, 0.0216381768, 0.15, "collapsed"),
        ("second-term-only", 0.60499817, 0.00191340258, 0.395, "collapsed"),
    ],
)
def test_scalar_answers_the_blogs_start(variant: str, phi: float, theta: float, kept: float, verdict: str) -> None:
    found = answer("scalar", "--variant", variant, "--phi", "0.6", "--theta", "0.1", "--time", "10")
    assert list(found) == ["phi", "theta", "loss", "conserved", "verdict"]
    assert (found["phi"], found["theta"], found["conserved"]) == pytest.approx((phi, theta, kept), abs=6e-9)
    assert found["loss"] == pytest.approx((1 - found["phi"]) ** 2 * found["theta"] ** 2 / 2, rel=1e-9)
    assert found["verdict"] == verdict


def test_scalar_reports_divergence_with_its_time() -> None:
    found = answer("scalar", "--theta", "5", "--step-size", "3")
    assert found["verdict"] == "diverged"
    assert found["diverged_at"] == 9.0


def test_conserved_is_answered_under_weight_decay_while_it_has_digits() -> None:
    found = answer("scalar", "--weight-decay", "0.05")
    assert found["conserved"] == pytest.approx(0.35, abs=1e-9)
    assert answer("scalar", "--weight-decay", "0.05", "--time", "200")["conserved"] is None
    assert answer("scalar", "--variant", "both-terms", "--weight-decay", "0.05")["conserved"] is None
    assert answer("scalar", "--variant", "both-terms", "--noise2", "0.25", "--phi", "0.8")["conserved"] is None


def test_alternation_reports_divergence_with_its_round_and_time() -> None:
    found = answer("alternation", "--step-size", "30", "--theta", "3")["k_step"]
    for k in ("1", "10", "100"):
        assert found[k]["verdict"] == "diverged"
        steps = found[k]["diverged_at"] / 30
        assert found[k]["diverged_round"] == pytest.approx(np.ceil(steps / int(k)))


def test_a_frozen_predictor_and_weight_decay_under_the_cosine_are_answered() -> None:
    assert "theorem_1_residual" not in answer("linear", "--rate", "0", "--time", "5")["theorems"]
    found = answer("cosine", "--weight-decay", "0.1", "--modes", "4")
    # The norm falls as exp(-e t) from 1 to 1e-3.
    assert found["norm_collapsed_at"] == pytest.approx(np.log(1e3) / 0.1, rel=1e-6)


def test_weight_decay_above_critical_is_answered() -> None:
    assert answer("scalar", "--weight-decay", "0.3")["verdict"] == "collapsed"
    assert answer("linear", "--weight-decay", "0.3", "--time", "5")["p_plus"] is None


def test_files_are_written_and_equal_on_a_second_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = run("scalar", "--time", "5", "--out", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert f"wrote {tmp_path / name / 'scalar.csv'}" in done.stderr
    for file in ("scalar.csv", "scalar.png", "scalar.pdf"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    table = pd.read_csv(tmp_path / "one" / "scalar.csv")
    assert list(table) == ["time", "phi", "theta", "loss", "conserved"]


def test_basin_shares(tmp_path: Path) -> None:
    found = answer("basin", "--variant", "both-terms", "--size", "100")
    assert found["starts"] == 10000
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["collapsed"] == pytest.approx(0.6, abs=0.02)
    assert answer("basin", "--variant", "both-terms", "--noise2", "0.01", "--size", "50")["shares"]["collapsed"] == 1
    assert run("basin", "--size", "30", "--weight-decay", "0.05", "--out", str(tmp_path)).returncode == 0


def test_linear_alternation_and_cosine_answer(tmp_path: Path) -> None:
    linear = answer("linear", "--weight-decay", "0.03", "--symmetric", "--time", "400")
    assert linear["p"] == pytest.approx([linear["p_plus"]] * 6, abs=1e-6)
    assert linear["theorems"]["theorem_3_over_bound"] <= 1 + 1e-9
    assert answer("linear", "--time", "20")["theorems"]["theorem_1_residual"] < 1e-9
    assert answer("linear", "--variant", "both-terms", "--time", "20")["theorems"]["theorem_2_over_bound"] < 1.01
    found = answer("alternation", "--noise2", "0.5")
    assert found["moving_average"]["slow_eigenvalue"] == pytest.approx(-0.031885, abs=1e-6)
    at = found["theta_at_time"]
    assert at["exact_or_sampled_eta"] == pytest.approx(0.1 * np.exp(-5), rel=1e-12)
    theta, eta = 0.1, 0.1
    for _ in range(100_000):
        theta, eta = theta + 1e-4 * (eta - 1.5 * theta), eta + 1e-5 * (theta - eta)
    assert at["moving_average"] == pytest.approx(theta, rel=1e-3)
    assert found["mlp"]["largest_difference"] < 1e-14
    assert answer("cosine", "--variant", "both-terms")["largest_energy"] > 0.999
    for system in ("linear", "alternation", "cosine"):
        assert run(system, "--out", str(tmp_path)).returncode == 0
        assert (tmp_path / f"{system}.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scalar", "--variant", "nothing"), "variant: found 'nothing', allowed are stop-gradient, both-terms"),
        (("scalar", "--time", "-1"), "time: found -1.0"),
        (("scalar", "--phi", "nan"), "start: found nan"),
        (("scalar", "--theta", "inf"), "start: found inf"),
        (("scalar", "--noise2", "-2"), "noise2: found -2.0"),
        (("scalar", "--step-size", "-1"), "step size: found -1.0"),
        (("scalar", "--step-size", "1e-9"), "takes more than 1,000,000 such steps"),
        (("scalar", "--time", "x"), "'x' is not a valid float"),
        (("basin", "--size", "1"), "size: found 1"),
        (("linear", "--noise2", "-1"), "noise2: found -1.0"),
        (("alternation", "--beta", "-1"), "beta: found -1.0"),
        (("alternation", "--noise2", "1e308"), "noise2: found 1e+308, at most 1e+06"),
        (("cosine", "--epoch", "1e9"), "epoch: found 1000000000.0"),
        (("linear", "--time", "1e9"), "time: found 1e+09, at most 10000"),
        (("scalar", "--weight-decay", "1e-300"), "weight_decay: found 1e-300, must be 0 or at least 1e-09"),
        (("scalar", "--momentum", "0.9"), "give its --step-size as well"),
        (("scalar", "--gradient-noise", "0.1"), "give its --step-size as well"),
        (("scalar", "--no-predictor", "--phi", "0.3"), "--phi: found 0.3 with --no-predictor"),
        (("linear", "--predictor", "none"), "predictor: found 'none', allowed are trained"),
        (("cosine", "--least-agreement", "2"), "least agreement: found 2.0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    done = run(*words, "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
