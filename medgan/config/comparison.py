"""The study: the section ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medgan.config.data import PreprocessConfig
from medgan.config.section import Section
from medgan.limits import MAX_STRENGTH

ArmPart = Literal[
    "none",
    "classical",
    "gan",
    "identity",
    "random-deformation",
    "duplicate",
    "self-training",
    "consensus",
    "random-consensus",
    "atlas",
    "oversample",
    "all-labels",
]


class AugmentConfig(Section):
    """How an arm uses the generator."""

    probability: float = Field(0.5, ge=0, le=1, description="share of samples replaced by a sibling")
    strength: float = Field(1.0, ge=0, le=MAX_STRENGTH, description="0: the identity; 1: what was learned")
    min_quality: float = Field(0.0, ge=0, lt=1, description="siblings that score less are drawn again; 0: none are")


class ArmConfig(Section):
    """An arm of its own name; a plain ``classical+gan`` in the list stands for one with the defaults."""

    name: str = Field(min_length=1, max_length=80, description="shown in tables")
    use: str = Field("none", description="parts joined by +, e.g. classical+gan")
    generator: str | None = Field(None, description="name in `generators`; none: the only one")
    probability: float | None = Field(None, ge=0, le=1, description="none: compare.gan.probability")
    strength: float | None = Field(None, ge=0, le=MAX_STRENGTH, description="none: compare.gan.strength")
    min_quality: float | None = Field(None, ge=0, lt=1, description="none: compare.gan.min_quality")
    transforms: tuple[dict[str, Any], ...] = Field((), description="MONAI or TorchIO transforms by `_target_`")


class SweepConfig(Section):
    """Values for which each listed arm with gan or random-deformation is repeated; empty: no sweep."""

    probability: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (), description="shares of siblings: listed arms with gan or random-deformation are repeated for each"
    )
    strength: tuple[Annotated[float, Field(ge=0, le=MAX_STRENGTH)], ...] = Field((), description="strengths: likewise")


class TuneConfig(Section):
    """Values among which validation cases choose for an arm before it is tested; empty: the arm's own value."""

    probability: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (), description="shares tried for each arm with gan, random-deformation or duplicate that gives none itself"
    )
    strength: tuple[Annotated[float, Field(ge=0, le=MAX_STRENGTH)], ...] = Field(
        (), description="strengths tried for each arm with gan or random-deformation that gives none itself"
    )
    seeds: int = Field(2, ge=1, description="trainings of each value, with the study's first seeds; at most its own")


class NetworkConfig(Section):
    """A network of MONAI for the downstream model."""

    name: str = Field(description="class in monai.networks.nets, e.g. SegResNet")
    arguments: dict[str, Any] = Field({}, description="its keywords; dimensions and channels are filled in")


class ExternalConfig(Section):
    """A cohort of another site: every annotated case of it is a further test case."""

    root: Path = Field(description="folder (or CSV manifest, or dataset.json) of the cohort")
    class_key: str | None = Field(None, description="manifest column of the class; none: data.class_key")


class CompareConfig(Section):
    """The study: arms × paired seeds (× folds × numbers of labelled cases) of the downstream model."""

    task: Literal["segmentation", "classification"] = Field(
        "segmentation", description="what the downstream model does"
    )
    checkpoint: str | None = Field(
        None, description="folder of the trained generator; {fold} and {labelled} in it are filled in"
    )
    generators: dict[str, str] = Field({}, description="several generators by name, instead of `checkpoint`")
    arms: tuple[str | ArmConfig, ...] = Field(
        ("none", "classical", "gan", "classical+gan"),
        min_length=1,
        description="arms, each against `baseline`: parts joined by + (none, classical, gan, identity, "
        "random-deformation, duplicate, self-training, consensus, random-consensus, atlas, oversample; all-labels "
        "makes a reference), or a mapping with a name",
    )
    baseline: str = Field("classical", description="arm the others are compared with")
    sweep: SweepConfig = SweepConfig()
    tune: TuneConfig = TuneConfig()
    labelled: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="learning curve: numbers of labelled training cases; empty: data.labelled"
    )
    redraw: bool = Field(
        False, description="every seed keeps the annotation of other cases, so that the verdict does not hang on which"
    )
    splits: int = Field(1, ge=1, description="with data.folds=K: folds to run, more than K repeat with a new shuffle")
    test: ExternalConfig | None = Field(None, description="another site's cohort, tested on as well")
    margin: float = Field(0.0, ge=0, description="smallest difference of the primary metric that counts as a gain")
    sensitivity: float = Field(
        0.9, gt=0, lt=1, description="classification: operating point, the sensitivity reached on validation cases"
    )
    seeds: int = Field(2, ge=1, description="paired seeds: the same initialisation and data order in every arm")
    steps: int = Field(400, ge=1, description="updates of the downstream model, the same for each arm")
    batch: int = Field(8, ge=1, description="samples in an update")
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate (AdamW, one-cycle)")
    width: int = Field(16, ge=4, description="channels of the built-in network's first level")
    network: NetworkConfig | None = Field(None, description="a MONAI network instead of the built-in one")
    function: str | None = Field(
        None, description="your own training, `module:function`, instead of network and loop (docs/own_model.py)"
    )
    confidence: float = Field(
        0.9, ge=0, lt=1, description="self-training, classification: pseudo-labels from this probability on"
    )
    consensus: int = Field(4, ge=1, description="consensus: siblings of a scan the teacher is asked about, beside it")
    atlas: int = Field(12, ge=1, description="atlas: scans fitted to an unlabelled one")
    pseudo_share: float = Field(
        0.5, ge=0, le=1, description="share of a batch that pseudo-labelled cases get, where an arm has a teacher"
    )
    preprocess: PreprocessConfig | None = Field(None, description="grid of the downstream model; none: the generator's")
    gan: AugmentConfig = AugmentConfig()
    curve_points: int = Field(4, ge=1, description="validations along the steps, for the curve in the report")
    bootstrap: int = Field(2000, ge=100, description="resamples of patients and seeds for a confidence interval")
    threads: int = Field(1, ge=1, description="threads of a run: part of the plan, since they decide the last digits")
    pictures: bool = Field(True, description="slices of patients in the report: worst cases, siblings")

    @model_validator(mode="after")
    def _fits_together(self) -> CompareConfig:
        names = [arm if isinstance(arm, str) else arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms must differ, got {names}")
        if self.baseline not in names:
            raise ValueError(f"baseline must be one of the arms {names}, got {self.baseline!r}")
        if self.checkpoint is not None and self.generators:
            raise ValueError("give checkpoint or generators, not both")
        for name in ("probability", "strength"):
            values = getattr(self.tune, name)
            if values and (len(values) < 2 or len(set(values)) != len(values)):
                raise ValueError(f"tune.{name} must hold two or more different values, or none, got {values}")
            if values and getattr(self.sweep, name):
                raise ValueError(f"tune.{name} must be empty where sweep.{name} is not: an arm is one or the other")
        if (self.tune.probability or self.tune.strength) and self.tune.seeds > self.seeds:
            raise ValueError(f"tune.seeds must be at most compare.seeds, {self.seeds}, got {self.tune.seeds}")
        if self.function is not None and self.network is not None:
            raise ValueError("give network or function, not both")
        return self
