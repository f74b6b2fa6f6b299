"""An evaluation for its readers: the table, its caption, the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collapse_lab.classified import Result
from collapse_lab.errors import InputError
from collapse_lab.whole import write_whole


def line(result: Result, seconds: float) -> str:
    """A result in one line, with the seconds that it took, for whoever waits."""
    what = f"{result.network} {result.layer} {result.feature} {result.classifier}"
    return f"{result.data}: {what} {100 * result.accuracy:.2f} % ({seconds:.1f} s)"


def require_folder(path: Path) -> None:
    """Raise ``InputError`` where the folder that a file is to be written into does not exist."""
    if not path.parent.is_dir():
        raise InputError(f"--out: folder '{path.parent}' does not exist; make it, or choose another FILE")


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file at ``path``, whole or not at all; raises ``InputError`` where it cannot be written."""
    try:
        write_whole(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"--out: '{path}' cannot be written: {error.strerror}") from None


def cells(document: dict[str, Any]) -> list[dict[str, str]]:
    """The rows of the table: one a result, in the order of the document."""
    return [
        {
            "data": result["data"],
            "network": result["network"],
            "layer": result["layer"],
            "feature": result["feature"],
            "classifier": result["classifier"],
            "accuracy %": f"{100 * result['accuracy']:.2f}",
            "protocol": _words(result["protocol"]),
        }
        for result in document["results"]
    ]


def _words(protocol: dict[str, Any]) -> str:
    if "epochs" in protocol:
        low, high = protocol["crop_scale"]
        views = f"crop {low:g} to {high:g}, flip {protocol['flip']:g}"
        rate = f"{protocol['optimizer']} rate {protocol['rate']:g}, batch {protocol['batch']}"
        return f"{rate}, {protocol['epochs']} epochs, {views}"
    views = f", {protocol['views']} views" if protocol["views"] else ""
    if "k" in protocol:
        return f"k {protocol['k']}, T {protocol['temperature']:g}, bank {protocol['bank']:,}{views}"
    return f"penalty {protocol['penalty']:g}, {protocol['penalty_is'].split()[0]}, bank {protocol['bank']:,}{views}"


def caption(document: dict[str, Any]) -> str:
    """What was evaluated, and what the columns are."""
    height, width = document["view_size"]
    state = f"{document['method']}, seed {document['seed']}, {document['state']}, step {document['step']}"
    return (
        f"{document['run']}: {state}, verdict {document['verdict']}. All test images, {height} x {width}, without "
        "augmentation unless the feature is a mean over views; network in eval mode. start: initial weights, BatchNorm "
        "calibrated. Accuracies of the last epoch; no test image chose anything."
    )
