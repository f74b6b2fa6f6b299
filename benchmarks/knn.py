"""kNN of this package beside lightly's and the bare matrix product; run by ``monitors.py``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

import torch
from measure import Measured, summary, timed

from collapse_lab.monitors.probes import knn_predict


def knn_costs(rounds: int, queries: int = 10_000, bank: int = 50_000, dimension: int = 512) -> Measured:
    """Seconds of a kNN classification (k = 200), of lightly's, and of the bare matrix product alone."""
    generator = torch.Generator().manual_seed(0)
    classes, k, temperature = 10, 200, 0.1
    labels = torch.randint(classes, (bank,), generator=generator)
    centres = torch.randn(classes, dimension, generator=generator)
    rows = torch.nn.functional.normalize(centres[labels] + 3 * torch.randn(bank, dimension, generator=generator), dim=1)
    wanted = torch.randint(classes, (queries,), generator=generator)
    asked = centres[wanted] + 3 * torch.randn(queries, dimension, generator=generator)
    asked = torch.nn.functional.normalize(asked, dim=1)

    def product() -> float:
        return float(sum((part @ rows.T)[0, 0] for part in asked.split(1024)))

    def ours() -> float:
        found = knn_predict(rows, labels, asked, k=k, temperature=temperature, classes=classes)
        return float((found == wanted).double().mean())

    contenders: dict[str, Callable[[], float]] = {"matrix product alone": product, "knn_predict (ours)": ours}
    if find_spec("lightly"):
        from lightly.utils.benchmarking import knn_predict as lightly_predict

        def lightly() -> float:
            parts = [lightly_predict(part, rows.T, labels, classes, k, temperature)[:, 0] for part in asked.split(1024)]
            return float((torch.cat(parts) == wanted).double().mean())

        contenders["lightly's knn_predict"] = lightly
    seconds, values = timed(contenders, rounds)
    product_seconds = median(seconds["matrix product alone"])
    values.pop("matrix product alone")
    return {
        "what": f"{queries} queries x {bank} rows x {dimension}, k = {k}, T = {temperature}, float32, seconds",
        "seconds": {name: summary(taken) for name, taken in seconds.items()},
        "over_product": {name: round(median(taken) / product_seconds, 3) for name, taken in seconds.items()},
        "accuracy": values,
    }
