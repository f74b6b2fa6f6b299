"""A watch as a callback of the ``Trainer`` of Hugging Face Transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from collapse_lab.monitors.sinks import scalars
from collapse_lab.monitors.tap import Tap
from collapse_lab.monitors.watch import Reading, Watch


class WatchCallback(TrainerCallback):
    """Watches layers of the trained model; readings go to ``state.log_history``, and so into ``trainer_state.json``.

    ``layers`` and ``options`` are those of ``Watch``; its ``sinks`` are called on the first process only. A step is a step
    of the optimizer, so micro-batches are pooled; with several processes all their rows count. This trainer does not
    tell its callbacks of an exception: to train the same model on afterwards, call ``close``.

        Trainer(model, arguments, callbacks=[WatchCallback([Tap("vit", pick="last_hidden_state")], every=50)])
    """

    def __init__(self, layers: Sequence[str | Tap] | Mapping[str, str | Tap], **options: Any) -> None:
        self._layers, self._sinks, self._options = layers, options.pop("sinks", ()), options
        self._watch: Watch | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Attach the hooks."""

        def log(readings: Sequence[Reading]) -> None:
            state.log_history.append({**scalars(readings), "step": readings[0].step})

        self.close()
        sinks = (log, *self._sinks) if state.is_world_process_zero else ()
        start, several = state.global_step, args.world_size > 1
        self._watch = Watch(model, self._layers, sinks=sinks, start=start, reduce=several, **self._options)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Read; the trainer calls this after each step of the optimizer."""
        if self._watch:
            self._watch.step()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Remove the hooks."""
        self.close()

    def close(self) -> None:
        """Remove the hooks of a training that was cut short."""
        if self._watch:
            self._watch.close()
