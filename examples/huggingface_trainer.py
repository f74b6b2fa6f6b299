"""A vision transformer of Hugging Face, trained by its Trainer with SimSiam's loss, watched by a callback.

python examples/huggingface_trainer.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from digits import TwoViews, head
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import Trainer, TrainingArguments, ViTConfig, ViTModel

from collapse_lab.monitors import Tap
from collapse_lab.monitors.huggingface import WatchCallback

LAYERS = {
    "patches": Tap("vit", pick="last_hidden_state", rows="flattened", prefix=1),
    "class token": Tap("vit", pick="last_hidden_state", rows="class-token"),
    "projector": "projector",
}


class ViTSimSiam(nn.Module):
    """``forward`` returns a dict with the loss, as the Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        config = ViTConfig(**sizes, image_size=8, patch_size=2, num_channels=1)
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.projector, self.predictor = head(64, 64, 64), head(64, 16, 64)

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """The symmetric negative cosine similarity of two views."""
        z = [self.projector(self.vit(pixel_values=x).last_hidden_state[:, 0]) for x in (first, second)]
        p = [self.predictor(rows) for rows in z]
        similarity = cosine_similarity(p[0], z[1].detach()).mean() + cosine_similarity(p[1], z[0].detach()).mean()
        return {"loss": -similarity / 2}


def collate(pairs: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Arguments of ``forward`` from pairs of views."""
    first, second = zip(*pairs, strict=True)
    return {"first": torch.stack(first), "second": torch.stack(second)}


def main(
    out: Path, model: ViTSimSiam, *, steps: int = 40, every: int = 10, accumulate: int = 1, **options: Any
) -> Trainer:
    """Fit; the readings lie in ``state.log_history`` of the trainer that is returned."""
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=64,
        gradient_accumulation_steps=accumulate,
        dataloader_drop_last=True,
        learning_rate=1e-3,
        logging_steps=every,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    callbacks = [WatchCallback(LAYERS, every=every, **options)]
    trainer = Trainer(model, arguments, collate, TwoViews(), callbacks=callbacks)
    trainer.train()
    return trainer


if __name__ == "__main__":
    torch.manual_seed(0)
    for entry in main(Path("runs") / "huggingface", ViTSimSiam()).state.log_history:
        print(entry)
