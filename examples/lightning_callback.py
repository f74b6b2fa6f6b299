"""SimSiam as a LightningModule, watched by a callback; readings go to whatever loggers the trainer has.

python examples/lightning_callback.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from digits import SimSiam, TwoViews
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from collapse_lab.monitors.lightning import WatchCallback


class LightningSimSiam(pl.LightningModule):
    """The model of the other examples, as Lightning wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SimSiam()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss of one batch."""
        loss = self.model(*batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def main(
    out: Path, model: LightningSimSiam, *, epochs: int = 2, every: int = 10, accumulate: int = 1, **options: Any
) -> pl.Trainer:
    """Fit; the readings lie in ``out/lightning_logs/version_0/metrics.csv``."""
    loader = DataLoader(TwoViews(), batch_size=128, shuffle=True, drop_last=True)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(out),
        callbacks=[WatchCallback({"stage3": "model.stage3", "projector": "model.projector"}, every=every, **options)],
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader)
    return trainer


if __name__ == "__main__":
    pl.seed_everything(0)
    main(Path("runs") / "lightning", LightningSimSiam())
