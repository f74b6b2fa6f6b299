"""A verdict on what somebody has on disk: a feature array, the records of a run, or a checkpoint of any torch model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from collapse_lab import checkpoints, geometry, recorded
from collapse_lab.arrays import read_features
from collapse_lab.checkpoints import Request
from collapse_lab.errors import InputError
from collapse_lab.evidence import Cloud, Panel, cloud_panels, run_panels
from collapse_lab.geometry import moments
from collapse_lab.monitors.statistics import FULL, Gathered, read
from collapse_lab.monitors.verdict import (
    Kind,
    Mode,
    Verdict,
    Vote,
    compare_modes,
    judge_features,
    measure,
)
from collapse_lab.report import MEANINGS
from collapse_lab.run_records import final_values

ARRAYS = (".npy", ".npz")
EXPECTED = "expected are features (.npy, .npz), a run directory or a checkpoint"
# Rows that are drawn, evenly spaced and farthest out; all are judged.
DRAWN, FAR = 1024, 32
HEALTHY, FAILED, UNDECIDED = 0, 3, 4
EXIT_CODES: dict[Kind, int] = {
    "healthy": HEALTHY,
    "complete-collapse": FAILED,
    "dimensional-collapse": FAILED,
    "outlier-collapse": FAILED,
    "not-learning": FAILED,
    "unstable": FAILED,
    "diverged": FAILED,
    "insufficient-data": UNDECIDED,
    "unknown": UNDECIDED,
}


class Diagnosis(NamedTuple):
    """A verdict with its evidence: ``verdict`` is the one that counts, ``taps`` are those of every tap and mode.

    ``what`` says in words what was judged, ``metrics`` are the scalars that were read, ``panels`` draw the evidence.
    """

    what: str
    verdict: Verdict
    taps: tuple[Verdict, ...]
    metrics: dict[str, float]
    panels: tuple[Panel, ...]

    @property
    def exit_code(self) -> int:
        """0 healthy; 3 collapsed, diverged, unstable or not learning; 4 where the data do not decide."""
        return EXIT_CODES[self.verdict.kind]

    def document(self) -> dict[str, Any]:
        """The diagnosis as plain values for JSON; numbers that are not finite are null."""
        metrics = {name: _finite(value) for name, value in self.metrics.items()}
        taps = [_plain(verdict) for verdict in self.taps]
        return {**_plain(self.verdict), "metrics": metrics, "what": self.what, "taps": taps}

    def caption(self) -> str:
        """What was judged, the verdict with what it means, and what else a reader must know."""
        kind, severity = self.verdict.kind, self.verdict.severity
        lines = [self.what, f"verdict: {kind}, severity {severity:.2f}: {MEANINGS[kind]}"]
        if self.verdict.onset:
            since = "began between steps {} and {}".format(*self.verdict.onset)
            lines.append(since + (f"; {self.verdict.first_tap} fell first" if self.verdict.first_tap else ""))
        others = [f"{one.tap} ({one.mode}): {one.kind}" for one in self.taps] if len(self.taps) > 1 else []
        return "\n".join([*lines, *others, *(f"note: {note}" for note in self.verdict.notes)])

    def cells(self) -> list[dict[str, str]]:
        """The rows of the table: every vote of the verdict, then the other metrics."""
        votes = {vote.measure: vote for vote in self.verdict.votes}
        others = [Vote(name, value, "", "") for name, value in self.metrics.items() if name not in votes]
        return [
            {
                "metric": vote.measure,
                "value": f"{vote.value:.4g}",
                "says": vote.says if vote.bound else "",
                "bound": vote.bound,
                "where the bound comes from": vote.origin,
            }
            for vote in (*votes.values(), *others)
        ]


def diagnose(
    path: Path, *, key: str | None = None, reference: Path | None = None, checkpoint: Request | None = None
) -> Diagnosis:
    """The diagnosis of a feature array, a run directory or, with a request that says how to read it, a checkpoint.

    ``reference`` is what a good run left behind: a run directory for a run, a feature array otherwise. Raises
    ``InputError`` for whatever cannot be read.
    """
    if path.is_dir():
        return of_run(path, reference)
    if not path.is_file():
        raise InputError(f"'{path}' {'is not a file' if path.exists() else 'does not exist'}; {EXPECTED}")
    good = None if reference is None else _tensor(read_features(_array(reference)))
    if path.suffix.lower() in ARRAYS:
        rows = _tensor(read_features(path, key))
        return of_features({"eval": rows}, f"{path.name}, {_size(rows)}", reference=good)
    if checkpoint is None:
        raise InputError(f"'{path}' is neither .npy nor .npz; a checkpoint needs --model module:function; {EXPECTED}")
    modes, what = checkpoints.features(path, checkpoint)
    return of_features(modes, f"{what}, {_size(modes['eval'])}", tap=checkpoint.layer or "output", reference=good)


def of_features(
    modes: dict[Mode, Tensor], what: str, *, tap: str = "features", reference: Tensor | None = None
) -> Diagnosis:
    """The diagnosis of one layer's features (N, D) in one mode or two; where there are two, train mode counts.

    With a reference (M, D) the bounds are shares of its values, taken from min(N, M) rows of either.
    """
    verdicts = {mode: _judge(rows, mode, tap, reference) for mode, rows in modes.items()}
    if "train" in verdicts:
        verdicts["train"], verdicts["eval"] = compare_modes(verdicts["train"], verdicts["eval"])
    counts: Mode = "train" if "train" in modes else "eval"
    features, verdict = modes[counts], verdicts[counts]
    finite = features[features.isfinite().all(1)]
    if len(finite) < len(features):
        bad = len(features) - len(finite)
        told = f"{bad:,} of {len(features):,} rows hold NaN or infinity; the other measures are of the rest"
        verdict = verdict._replace(notes=(*verdict.notes, told))
    panels = cloud_panels(_cloud(finite), None if reference is None else _cloud(reference)) if len(finite) else ()
    return Diagnosis(what, verdict, tuple(verdicts.values()), _metrics(finite), panels)


def _metrics(features: Tensor) -> dict[str, float]:
    if not len(features):
        return {"rows": 0, "dimension": features.shape[1]}
    drawn = geometry.unit_rows(_evenly(features, DRAWN))
    gathered = Gathered(moments(features), moments(features, normalise=False), (drawn,))
    scalars = {name: value for name, index, value in read(gathered, FULL) if index == 0}
    size = {"rows": len(features), "dimension": features.shape[1]}
    return {**size, **scalars, "outlier_share": geometry.outlier_share(features)}


def of_run(directory: Path, reference: Path | None = None) -> Diagnosis:
    """The diagnosis of a run from its records alone, train mode, every layer; the projector counts."""
    run, good = recorded.read(directory), None if reference is None else recorded.read(reference)
    verdict, taps = recorded.judge(run, directory, good)
    table, config = run
    what = f"{directory}: {config.method}, seed {config.train.seed}, step {table['step'].max()}, train mode at the projector"
    panels = run_panels(table, verdict.onset, None if good is None else good.table)
    return Diagnosis(what, verdict, taps, final_values(directory), panels)


def _judge(features: Tensor, mode: Mode, tap: str, reference: Tensor | None) -> Verdict:
    if reference is None:
        return judge_features(features, mode=mode, tap=tap)
    if reference.shape[1] != features.shape[1]:
        raise InputError(
            f"--reference: found {reference.shape[1]} channels, the features have {features.shape[1]}; "
            "take both from the same layer of equal networks"
        )
    # Ranks are comparable at equal numbers of rows only.
    rows = min(len(features), len(reference))
    sound = _evenly(reference, rows)
    return judge_features(_evenly(features, rows), mode=mode, tap=tap, expected=measure(moments(sound), sound))


def _tensor(features: np.ndarray) -> Tensor:
    return torch.from_numpy(features)


def _size(rows: Tensor) -> str:
    return f"{len(rows):,} x {rows.shape[1]:,} {str(rows.dtype).removeprefix('torch.')}"


def _array(reference: Path) -> Path:
    if reference.suffix.lower() not in ARRAYS or not reference.is_file():
        raise InputError(
            f"--reference: found '{reference}'; for features it is a .npy or .npz file of a run that went well"
        )
    return reference


def _cloud(features: Tensor) -> Cloud:
    gathered = moments(features)
    centred = geometry.unit_rows(features) - gathered.total / gathered.count
    _, directions = torch.linalg.eigh(gathered.covariance)
    variances = gathered.centred_eigenvalues
    far = centred.square().sum(1).topk(min(len(features), FAR)).indices
    return Cloud(
        spectrum=geometry.spectrum(gathered).numpy(),
        rows=geometry.unit_rows(_evenly(features, DRAWN)).numpy(),
        places=(torch.cat([_evenly(centred, DRAWN), centred[far]]) @ directions[:, -2:].flip(1)).numpy(),
        shares=(variances / variances.sum().clamp(min=1e-300))[:2].tolist(),
    )


def _evenly(features: Tensor, most: int) -> Tensor:
    """At most so many rows, evenly spaced, so that every class of features sorted by class is there."""
    count = len(features)
    return features if count <= most else features[torch.linspace(0, count - 1, most).long()]


def _plain(verdict: Verdict) -> dict[str, Any]:
    votes = [{**vote._asdict(), "value": _finite(vote.value)} for vote in verdict.votes]
    kept = {name: value for name, value in verdict._asdict().items() if name not in ("kind", "votes", "severity")}
    return {"verdict": verdict.kind, "severity": _finite(verdict.severity), "votes": votes, **kept}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
