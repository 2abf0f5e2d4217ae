"""Cases and their way onto the grid: the sections ``data`` and ``preprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medgan.config.section import Section

Triple = tuple[int, int, int]


class DataConfig(Section):
    """Which cases there are, and who may see which."""

    root: Path = Field(Path("data"), description="folder (or CSV manifest, or dataset.json) of the cohort")
    download: bool = Field(False, description="fetch the Decathlon task into root first (needs a network)")
    decathlon_task: str | None = Field(None, description="name for download, e.g. Task04_Hippocampus")
    modality: Literal["mri", "ct", "mask"] = Field("mri", description="what the voxels are")
    class_key: str | None = Field(None, description="manifest column that holds the class")
    classes: tuple[str, ...] = Field(
        (), description="classes to keep, in order; cases of others count as without class"
    )
    labels: dict[int, str] = Field({}, description="label values and names; empty: the cohort's own")
    labelled: int | None = Field(None, ge=1, description="training cases that keep label and class; the rest lose both")
    validation: float = Field(0.15, ge=0, lt=1, description="share of patients kept for validation")
    test: float = Field(0.3, ge=0, lt=1, description="share of patients kept for the test")
    given_split: bool = Field(True, description="honour the cohort's own split column; false: split by seed instead")
    split_seed: int = Field(0, ge=0, description="seed of the split by patient")
    folds: int | None = Field(
        None, ge=2, description="K of K-fold cross-validation by patient; replaces the given split and `test`"
    )
    fold: int = Field(0, ge=0, description="which fold is the test, from 0; from K on, of another shuffle")

    @model_validator(mode="after")
    def _shares_leave_training_cases(self) -> DataConfig:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must be below 1, got {self.validation + self.test}")
        return self


class IntensityConfig(Section):
    """How voxel values become the network's range 0 to 1; the inverse gives back the source's scale."""

    kind: Literal["robust", "window", "unit"] = Field(
        "robust", description="percentiles of the volume, a fixed window, or as is"
    )
    lower: float = Field(0.5, ge=0, lt=50, description="robust: percentile of the volume that becomes 0")
    upper: float = Field(99.5, gt=50, le=100, description="robust: percentile of the volume that becomes 1")
    window: tuple[float, float] = Field((-160.0, 240.0), description="window: values (HU) that become 0 and 1")

    @model_validator(mode="after")
    def _window_ascends(self) -> IntensityConfig:
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window must ascend, got {self.window}")
        return self


class PreprocessConfig(Section):
    """From a volume of any size to the grid the networks work on."""

    shape: Triple = Field((32, 32, 32), description="voxels of the grid along R, A, S; multiples of 8")
    spacing: tuple[float, float, float] | None = Field(None, description="mm of a grid voxel; none: the volume's own")
    fit: Literal["crop", "resize"] = Field(
        "crop", description="crop/pad about the centre at `spacing`, or stretch to fit"
    )
    intensity: IntensityConfig = IntensityConfig()

    @model_validator(mode="after")
    def _grid_fits_the_network(self) -> PreprocessConfig:
        if any(n < 16 or n % 8 for n in self.shape):
            raise ValueError(f"shape must be multiples of 8, at least 16, got {list(self.shape)}")
        if self.spacing is not None and min(self.spacing) <= 0:
            raise ValueError(f"spacing must be positive, got {list(self.spacing)}")
        return self
