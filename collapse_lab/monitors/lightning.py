"""A watch as a callback of Lightning's ``Trainer``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from collapse_lab.monitors.sinks import scalars
from collapse_lab.monitors.tap import Tap
from collapse_lab.monitors.watch import Reading, Watch


class WatchCallback(Callback):
    """Watches layers of a ``LightningModule`` while it is fitted; readings go to the trainer's loggers.

    ``layers`` and ``options`` are those of ``Watch``; its ``sinks`` are called on the first process only. A step is a step
    of the optimizer, so micro-batches are pooled; with several processes all their rows count.

        Trainer(callbacks=[WatchCallback(["backbone", "projector"], every=50)])
    """

    def __init__(self, layers: Sequence[str | Tap] | Mapping[str, str | Tap], **options: Any) -> None:
        self._layers, self._sinks, self._options = layers, options.pop("sinks", ()), options
        self._watch: Watch | None = None
        self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the hooks."""

        def log(readings: Sequence[Reading]) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(scalars(readings), readings[0].step)

        sinks = (log, *self._sinks) if trainer.is_global_zero else ()
        self._seen, several = trainer.global_step, trainer.world_size > 1
        self._watch = Watch(pl_module, self._layers, sinks=sinks, start=self._seen, reduce=several, **self._options)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Read, where the optimizer has made a step."""
        if self._watch and trainer.global_step > self._seen:
            self._seen = trainer.global_step
            self._watch.step()

    def on_train_end(self, *_: Any) -> None:
        """Remove the hooks."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Remove the hooks."""
        self._close()

    def _close(self) -> None:
        if self._watch:
            self._watch.close()
