"""The settings of a run: its sections, and what they may not be together."""

from __future__ import annotations

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from collapse_lab.conflicts import conflicts
from collapse_lab.sections import (
    NO_EXTRA,
    AugmentConfig,
    DataConfig,
    DataName,
    MonitorConfig,
    NetworkConfig,
    ObjectiveConfig,
    OutputNorm,
    TargetConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DataName",
    "MonitorConfig",
    "NetworkConfig",
    "ObjectiveConfig",
    "OutputNorm",
    "TargetConfig",
    "TrainConfig",
]


@dataclass(frozen=True, config=NO_EXTRA)
class Config:
    """Everything that decides the numbers of one run."""

    method: str = "simsiam"
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    target: TargetConfig = Field(default_factory=TargetConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)

    @model_validator(mode="after")
    def check(self) -> Config:
        """Refuse parts that do not fit together."""
        for reason in conflicts(self.target, self.objective, self.network, self.train):
            raise ValueError(reason)
        return self

    @property
    def views(self) -> int:
        """Views of an image that the encoder itself sees in one step."""
        both = self.objective.symmetric or self.target.network == "online"
        return (2 if both else 1) * self.objective.pairs
