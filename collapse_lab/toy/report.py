"""What a toy command answers: numbers, a table for people, and the files behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from collapse_lab.errors import InputError
from collapse_lab.style import STYLE, save

GALLERY_DPI = 120


@dataclass(frozen=True)
class Report:
    """``answer`` is the JSON document; ``cells`` and ``caption`` the printed table; ``table`` the recorded trajectory.

    ``draw`` makes the figure from the table as it is read back from its file.
    """

    name: str
    answer: Mapping[str, Any]
    cells: list[dict[str, str]]
    caption: str
    table: pd.DataFrame
    draw: Callable[[pd.DataFrame], Figure]

    def write(self, out: Path) -> list[Path]:
        """Write ``<name>.csv`` and the figure drawn from it; raises ``InputError`` where the directory cannot be used."""
        path = out / f"{self.name}.csv"
        try:
            out.mkdir(parents=True, exist_ok=True)
            self.table.to_csv(path, index=False)
        except OSError as error:
            raise InputError(f"output directory '{out}' cannot be written: {error.strerror}") from None
        return [path, *save(self.draw(pd.read_csv(path)), out / self.name)]


def publish(name: str, record: Callable[[], pd.DataFrame], draw: Callable[[pd.DataFrame], Figure]) -> None:
    """Record the table as ``runs/toy/<name>.csv`` and draw ``figures/gallery/<name>.png`` from it, in a clone's root.

    Equal tables give equal bytes. Ends a script with one line outside a clone's root, before anything is computed.
    """
    gallery, kept = Path("figures", "gallery"), Path("runs", "toy", f"{name}.csv")
    if not gallery.is_dir():
        raise SystemExit(f"directory '{gallery}' is not here; run the script from the root of a clone")
    kept.parent.mkdir(parents=True, exist_ok=True)
    record().to_csv(kept, index=False, float_format="%.8g")
    with matplotlib.rc_context(STYLE):
        draw(pd.read_csv(kept)).savefig(gallery / f"{name}.png", dpi=GALLERY_DPI, metadata={"Software": None})


def finite(value: float) -> float | None:
    """The number, or None where it is infinite or not one: JSON knows neither."""
    return float(value) if abs(value) < float("inf") else None


def cell(value: Any) -> str:
    """A number as it is printed in a table."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)
