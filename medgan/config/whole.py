"""A whole configuration: the sections together, the trackers' among them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medgan.config.comparison import CompareConfig
from medgan.config.data import DataConfig, PreprocessConfig
from medgan.config.section import Section
from medgan.config.training import ModelConfig, TrainingConfig


class TrackingConfig(Section):
    """Where runs are recorded."""

    kind: Literal["mlflow", "none"] = Field("mlflow", description="tracker")
    uri: str | None = Field(
        None, description="MLflow tracking URI; none: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    )
    experiment: str = Field("medgan", min_length=1, description="MLflow experiment")
    system_seconds: float = Field(
        10, ge=0, description="seconds between samples of the machine's load while a run is open; 0: none"
    )


class Config(Section):
    """A whole configuration file."""

    name: str = Field("medgan", min_length=1, description="name of the generator and of its runs")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything random except the split")
    data: DataConfig = DataConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    compare: CompareConfig = CompareConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def study_grid(self) -> PreprocessConfig:
        """Grid and intensities of the downstream model."""
        return self.compare.preprocess or self.preprocess
