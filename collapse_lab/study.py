"""A study is data: the question, what each hypothesis predicts, the arms, and the differences that decide."""

from __future__ import annotations

import hashlib
import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from collapse_lab.config import Overrides, leaves
from collapse_lab.errors import InputError
from collapse_lab.methods import method
from collapse_lab.paper import NUMBERS

# What every summary holds of a run; a gain is the value at the end minus that of the start, BatchNorm calibrated.
QUANTITIES = (
    "loss",
    "std_ratio",
    "mean_energy",
    "rankme",
    "knn",
    "knn_start",
    "knn_gain",
    "linear",
    "linear_start",
    "linear_gain",
)


LONGEST = 200


def arm_directory(method: str, overrides: Overrides) -> str:
    """The directory of an arm's runs: the method, then what it overrides by name, a digest where a path cannot hold it.

    >>> arm_directory("simsiam", {"train.batch": 64, "network.projector_output_norm": "affine"})
    'simsiam,network.projector_output_norm=affine,train.batch=64'
    """
    text = ",".join([method, *(f"{key}={_value(overrides[key])}" for key in sorted(overrides))])
    safe = re.sub(r"[^A-Za-z0-9.,=_+-]", "_", text)
    if safe == text and len(text) < LONGEST:
        return text
    return f"{safe[: LONGEST - 20]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(_value, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value).lower()


@dataclass(frozen=True)
class Arm:
    """One arm: a method, what it overrides beyond the method, and the key of the paper's number in ``paper.NUMBERS``.

    ``train.start`` among the overrides names another arm of the study by its label. Raises ``InputError`` for a method
    or a key of ``NUMBERS`` that does not exist.
    """

    method: str
    overrides: Overrides = field(default_factory=dict)
    paper: str | None = None

    def __post_init__(self) -> None:
        method(self.method)
        if self.paper is not None and self.paper not in NUMBERS:
            raise InputError(f"arm of '{self.method}': paper.NUMBERS has no '{self.paper}'")


@dataclass(frozen=True)
class Contrast:
    """``one`` minus ``other``, labels of arms, in a quantity: one of ``QUANTITIES`` or a value of a measure.

    ``against`` is the quantity of ``other`` where it is another one; then both may be the same arm.
    """

    one: str
    other: str
    quantity: str = "linear_gain"
    against: str | None = None

    @property
    def sides(self) -> tuple[str, str]:
        """What is subtracted from what, in words."""
        if self.against is None:
            return self.one, self.other
        return f"{self.one}: {self.quantity}", f"{self.other}: {self.against}"


@dataclass(frozen=True)
class Measure:
    """What is measured on every finished run: ``module:function``, called with parameters beyond its two arguments.

    The function is ``(run_directory: Path, images: Images, **parameters) -> dict[str, float]``. It is named, not imported,
    so that a study can be listed without torch and measured in another process.
    """

    function: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.function):
            raise InputError(f"measure: found '{self.function}', expected module:function")


@dataclass(frozen=True)
class Study:
    """A question put to arms over seeds.

    ``predictions`` says, for each hypothesis, what it predicts, written before the numbers; ``answer`` what would count as
    an answer; ``settings`` what all arms share beyond the data set's preset; ``headline`` that the question needs
    n >= 8; ``shown`` which of the measured values stand in tables, all where it is empty; ``cost`` what it takes on a
    CPU and on a GPU; ``curves`` that the course of the runs is drawn too.

    Raises ``InputError`` for an unknown key, label or quantity, and for two labels of the same arm.
    """

    question: str
    predictions: Mapping[str, str]
    answer: str
    arms: Mapping[str, Arm]
    contrasts: tuple[Contrast, ...]
    cost: str
    settings: Overrides = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    shown: tuple[str, ...] = ()
    headline: bool = False
    curves: bool = False

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise InputError(f"arms: found {len(self.arms)}, a study compares at least 2")
        self._require_known_keys()
        self._require_distinct()
        for contrast in self.contrasts:
            self._require_labels(contrast)
        if not self.measures:
            self._require_recorded()

    def _require_known_keys(self) -> None:
        known = {leaf.name for leaf in leaves()}
        for key in {*self.settings, *(key for arm in self.arms.values() for key in arm.overrides)}:
            if key not in known:
                raise InputError(f"unknown configuration key '{key}'; `collapse-lab train --help` lists the keys")

    def _require_distinct(self) -> None:
        seen: dict[str, str] = {}
        for label, arm in self.arms.items():
            twin = seen.setdefault(arm_directory(arm.method, arm.overrides), label)
            if twin != label:
                raise InputError(f"arms '{twin}' and '{label}' are the same run; name it once")

    def _require_labels(self, contrast: Contrast) -> None:
        for label in (contrast.one, contrast.other):
            if label not in self.arms:
                raise InputError(f"contrasts: no arm '{label}'; the arms are {', '.join(self.arms)}")
        if contrast.sides[0] == contrast.sides[1]:
            raise InputError(f"contrasts: '{contrast.one}' is compared with itself")

    def _require_recorded(self) -> None:
        """Refuse values that only a measure could give; what measures do give shows when they have run."""
        for name in self.shown:
            raise InputError(f"shown: found '{name}', the study has no measure that could give it")
        for quantity in (name for one in self.contrasts for name in (one.quantity, one.against)):
            if quantity is not None and quantity not in QUANTITIES:
                raise InputError(
                    f"contrasts: found quantity '{quantity}', the study has no measure that could give it; "
                    f"without one it is {', '.join(QUANTITIES)}"
                )


class StudyFile(NamedTuple):
    """A study with the file that it comes from and what the file says of itself."""

    path: Path
    study: Study
    doc: str

    @property
    def name(self) -> str:
        """The file's stem, which is where the study's results lie."""
        return self.path.stem

    @property
    def command(self) -> str:
        """The command that the file's docstring gives."""
        line = next(line for line in self.doc.splitlines() if line.strip().startswith("collapse-lab study "))
        return " ".join(line.split())


def read(path: Path) -> StudyFile:
    """The ``STUDY`` of a Python file, which is executed.

    Raises ``InputError`` naming the file where it cannot be read or run, or has no ``STUDY``, or no docstring with a line
    ``collapse-lab study ...``.
    """
    if path.is_dir():
        files = ", ".join(str(file) for file in sorted(path.glob("*.py"))[:3])
        raise InputError(
            f"study file '{path}' is a directory, expected a Python file{f', such as {files}' if files else ''}"
        )
    try:
        found = runpy.run_path(str(path))
    except OSError as error:
        raise InputError(f"study file '{path}' cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"study file '{path}': {error}") from None
    # The file is somebody's own program: whatever goes wrong in it is said in one line.
    except Exception as error:
        raise InputError(f"study file '{path}' cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(found.get("STUDY"), Study):
        raise InputError(f"study file '{path}' defines no STUDY = Study(...), from collapse_lab.study")
    doc = found.get("__doc__") or ""
    if not re.search(r"^ *collapse-lab study ", doc, flags=re.MULTILINE):
        raise InputError(f"study file '{path}' has no docstring with its command, a line 'collapse-lab study ...'")
    return StudyFile(path, found["STUDY"], doc)
