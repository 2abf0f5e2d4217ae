"""The configuration: one strict YAML file for a domain, read by ``train`` and ``compare`` alike.

An unknown key, a wrong type or a value out of range is an :class:`~medgan.errors.InputFault` that names the dotted
path, the value and the nearest known key. Only the safe YAML loader is used: a file can hold no code.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from medgan.errors import InputFault

Triple = tuple[int, int, int]
Beta = Annotated[float, Field(ge=0, lt=1)]
MAX_CONFIG_BYTES = 1_000_000


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class ModelConfig(Section):
    """Generator and discriminator."""

    latent: int = Field(32, ge=2, le=512, description="length of the noise vector z")
    width: int = Field(
        16, ge=4, le=256, multiple_of=4, description="channels at half resolution; doubled at each level"
    )
    basis: int = Field(16, ge=0, le=256, description="learned constant fields at the coarsest level that z can weigh")
    centred: bool = Field(
        False,
        description="recipes are odd in z: what all noise would do alike cancels, and z = 0 leaves the source as it is",
    )
    batch_diversity: bool = Field(
        False, description="the discriminator sees how much the pairs of its batch differ (against mode collapse)"
    )
    max_velocity: float = Field(
        0.08, ge=0, le=0.5, description="bound of the velocity field, as a share of each axis' length"
    )
    max_rotation: float = Field(0.25, ge=0, le=1, description="bound of the affine's rotation generators, rad")
    max_scale: float = Field(0.2, ge=0, le=1, description="bound of the affine's log-scale and shear generators")
    max_shift: float = Field(
        0.06, ge=0, le=0.5, description="bound of the affine's shift, as a share of each axis' length"
    )
    max_gain: float = Field(0.3, ge=0, le=2, description="bound of the log gain field")
    max_offset: float = Field(0.1, ge=0, le=0.25, description="bound of the offset field, which fades out at 0 and 1")
    max_texture: float = Field(
        0.0, ge=0, le=1, description="bound of the band-limited texture residual; 0 leaves it out"
    )

    @model_validator(mode="after")
    def _order_of_grey_values_is_kept(self) -> ModelConfig:
        limit = math.exp(-self.max_gain) / 4
        if self.max_offset >= limit:
            reason = (
                f"max_offset must be below exp(-max_gain) / 4 = {limit:.3f}, or dark could become brighter than bright"
            )
            raise ValueError(f"{reason}, got {self.max_offset}")
        return self


class TrainingConfig(Section):
    """The adversarial training of the generator."""

    steps: int = Field(2000, ge=1, description="updates of the generator")
    max_minutes: float | None = Field(None, gt=0, description="stop after this much training time, at the next step")
    batch: int = Field(6, ge=1, description="pairs in an update")
    generator_rate: float = Field(2e-4, gt=0, description="learning rate of the generator")
    discriminator_rate: float = Field(2e-4, gt=0, description="learning rate of the discriminator")
    betas: tuple[Beta, Beta] = Field((0.0, 0.99), description="Adam's betas, both networks")
    loss: Literal["relativistic", "nonsaturating", "hinge", "wgan-gp"] = Field(
        "relativistic", description="adversarial loss"
    )
    penalty: float = Field(1.0, ge=0, description="weight of R1 + R2 (of the gradient penalty for wgan-gp)")
    penalty_every: int = Field(4, ge=1, description="lazy penalty: every so many updates, weighted accordingly")
    mismatch: float = Field(0.5, ge=0, description="weight of pairs of two classes as further negatives")
    mode_seeking_shape: float = Field(
        1.0, ge=0, description="weight of the term that keeps deformations of two z apart"
    )
    mode_seeking_affine: bool = Field(
        True,
        description="mode seeking: whether turning, moving or stretching the whole volume counts as a distance; "
        "false asks for anatomy that varies",
    )
    mode_seeking_directions: float = Field(
        0.0, ge=0, description="weight of the term that keeps different noise from doing one and the same thing"
    )
    mode_seeking_appearance: float = Field(0.5, ge=0, description="weight of the same for appearance")
    shape_spread: float = Field(
        1.5, ge=0, description="mode seeking: wanted RMS distance of two z's displacements, voxels"
    )
    appearance_spread: float = Field(
        0.04, ge=0, description="mode seeking: wanted RMS distance of two z's appearance, 0 to 1 range"
    )
    pair: float = Field(
        0.0, ge=0, description="weight of rebuilding a patient from another by encoded noise (cVAE-GAN); 0: none"
    )
    pair_divergence: float = Field(
        0.02, ge=0, description="weight, within it, of the encoded noise's divergence from a standard normal"
    )
    smoothness: float = Field(1.0, ge=0, description="weight of the bending of the displacement field")
    appearance_smoothness: float = Field(1.0, ge=0, description="weight of the gradient of the gain and offset fields")
    magnitude: float = Field(0.02, ge=0, description="weight of the mean squared displacement and appearance change")
    ema_halflife: float = Field(500, gt=0, description="half-life of the generator's moving average, in pairs seen")
    augment: float = Field(
        0.8, ge=0, le=1, description="probability of the differentiable augmentation, alike on real and fake"
    )
    augment_target: float | None = Field(
        None,
        ge=0,
        le=1,
        description="adaptive augmentation: the discriminator's lead over chance (2 accuracy - 1) "
        "above which, in the mean of four steps, the probability rises from `augment`, and below which it falls; "
        "none: fixed",
    )
    augment_pairs: int = Field(3000, ge=1, description="adaptive augmentation: pairs seen while it goes from 0 to 1")
    instance_noise: float = Field(
        0.02, ge=0, description="SD of the noise added to every volume the discriminator sees"
    )
    fake_buffer: int = Field(
        0,
        ge=0,
        description="siblings of earlier steps kept; about half of the discriminator's batch is drawn of them; 0: none",
    )
    validate_every: int = Field(250, ge=1, description="steps between validations (and choices of the best generator)")
    picture_every: int = Field(250, ge=1, description="steps between pictures of siblings")
    state_every: int = Field(250, ge=1, description="steps between states to resume from; two are kept")
    log_every: int = Field(10, ge=1, description="steps between logged losses")
    patience: int = Field(0, ge=0, description="validations without a better score before stopping; 0: never")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Fabric's precision")


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
    strength: float = Field(1.0, ge=0, le=2, description="0: the identity; 1: what was learned")
    min_quality: float = Field(0.0, ge=0, lt=1, description="siblings that score less are drawn again; 0: none are")


class ArmConfig(Section):
    """An arm of its own name; a plain ``classical+gan`` in the list stands for one with the defaults."""

    name: str = Field(min_length=1, max_length=80, description="shown in tables")
    use: str = Field("none", description="parts joined by +, e.g. classical+gan")
    generator: str | None = Field(None, description="name in `generators`; none: the only one")
    probability: float | None = Field(None, ge=0, le=1, description="none: compare.gan.probability")
    strength: float | None = Field(None, ge=0, le=2, description="none: compare.gan.strength")
    min_quality: float | None = Field(None, ge=0, lt=1, description="none: compare.gan.min_quality")
    transforms: tuple[dict[str, Any], ...] = Field((), description="MONAI or TorchIO transforms by `_target_`")


class SweepConfig(Section):
    """Values for which each listed arm with gan or random-deformation is repeated; empty: no sweep."""

    probability: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (), description="shares of siblings: listed arms with gan or random-deformation are repeated for each"
    )
    strength: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field((), description="strengths: likewise")


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
        if self.function is not None and self.network is not None:
            raise ValueError("give network or function, not both")
        return self


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


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, without aliases (they can explode) and without duplicate keys (one would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise yaml.YAMLError(f"the key {repeated[0]!r} stands twice")
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply ``KEY=VALUE`` overrides, e.g. ``data.root=../scans``.

    Raises:
        InputFault: the file is missing or no YAML mapping, or a key or value does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFault(path, "MISSING_FILE", "there is no such configuration file", "give the path of a YAML file")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InputFault(
            path, "CONFIG_SIZE", f"the file is larger than {MAX_CONFIG_BYTES} bytes", "give a medgan configuration"
        )
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputFault(path, "CONFIG_YAML", f"not readable as YAML ({error})", "mend the file") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputFault(
            path, "CONFIG_YAML", f"the top level is a {type(tree).__name__}, not a mapping", "mend the file"
        )
    for override in overrides:
        _apply_override(path, tree, override)
    return parse_config(tree, source=path)


def parse_config(tree: dict[str, Any], source: str | Path = "configuration") -> Config:
    """Validate a nested mapping. ``source`` names its origin in a fault."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _first_fault(error, source) from None


def _apply_override(path: Path, tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputFault(path, "CONFIG_OVERRIDE", f"{override!r} is not KEY=VALUE", "write e.g. training.steps=500")
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputFault(path, "CONFIG_OVERRIDE", f"the value of {key} is no YAML ({error})", "quote it") from error
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise InputFault(
                path, "CONFIG_OVERRIDE", f"{key}: {parent} holds a value, not a section", "name a key inside a section"
            )
        node = child
    node[last] = value


def _first_fault(error: ValidationError, source: str | Path) -> InputFault:
    # A key that is not known comes before what its lack leaves missing.
    details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    detail = _meant(details)
    location = _without_branches(detail["loc"])
    dotted = ".".join(map(str, location)) or "configuration"
    value = detail.get("input")
    if detail["type"] == "extra_forbidden":
        deeper, value = _only_key(value)
        dotted = ".".join([dotted, *deeper])
        return InputFault(
            source,
            "CONFIG_UNKNOWN_KEY",
            f"{dotted} is not a known key (value {value!r})",
            f"did you mean {_nearest(dotted, location)}?",
        )
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict | BaseModel) else f" (value {value!r})"
    # What a check of a whole section says begins with the key that is at fault.
    named = message.partition(" must ")[0] if detail["type"] == "value_error" else ""
    if ".".join([*map(str, location), named]) in _known_keys(Config):
        dotted, message = ".".join([*map(str, location), named]), message.removeprefix(f"{named} ")
    hint = f"change {dotted} in the file or on the command line"
    return InputFault(source, "CONFIG_VALUE", f"{dotted}: {message}{shown}", hint)


def _meant(details: Sequence[ErrorDetails]) -> ErrorDetails:
    """Return the first error, of a value that may be a text or a section that of what it is."""
    first = _without_branches(details[0]["loc"])
    for detail in details:
        wrong_kind = detail["type"] == "string_type" and isinstance(detail.get("input"), dict)
        if not wrong_kind and _without_branches(detail["loc"])[: len(first)] == first:
            return detail
    return details[0]


def _without_branches(location: Sequence[int | str]) -> list[int | str]:
    """Return where an error is without the names that pydantic gives to the members of a union."""
    kept: list[int | str] = []
    inside: Any = Config
    for part in location:
        if part in _branches(inside):
            continue
        kept.append(part)
        inside = _inside(inside, part)
    return kept


def _branches(annotation: Any) -> set[str]:
    """Return the names of a union's members in pydantic's locations; none for what is no union of several."""
    members = _members(annotation)
    return {getattr(member, "__name__", "") for member in members} if len(members) > 1 else set()


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, without None; none for what is no union."""
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return []
    return [member for member in typing.get_args(annotation) if member is not type(None)]


def _inside(annotation: Any, part: int | str) -> Any:
    """Return the type of a section's key or of a sequence's item; ``None`` where there is none to know."""
    if isinstance(part, int):
        return next(iter(typing.get_args(annotation)), None)
    field = next((s.model_fields[part] for s in _sections(annotation) if part in s.model_fields), None)
    return None if field is None else field.annotation


def _only_key(value: Any) -> tuple[list[str], Any]:
    """Return the rest of the dotted path to a value that stands alone in mappings, and the value."""
    path: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        key, value = next(iter(value.items()))
        path.append(str(key))
    return path, value


def _nearest(dotted: str, location: Sequence[int | str]) -> str:
    """Return the known key that is most like an unknown one: of its own section, where one there is like it."""
    numbered = [str(part) for part in location]
    plain = ["[]" if isinstance(part, int) else str(part) for part in location]
    section = ".".join(plain[:-1]).replace(".[]", "[]")
    known = _known_keys(Config)
    beside = [key.rpartition(".")[2] for key in known if section and key.rpartition(".")[0] == section]
    near = difflib.get_close_matches(plain[-1], beside, n=1)
    if near:
        return ".".join([*numbered[:-1], near[0]])
    return difflib.get_close_matches(dotted, known, n=1, cutoff=0.0)[0]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a field can hold: itself, or members of a union."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for member in _members(annotation) for section in _sections(member)]


def _inner(field: FieldInfo) -> list[tuple[str, type[BaseModel]]]:
    """Return the sections under a key, each with what stands between: ``.``, or ``[].`` for the items of a list."""
    found = [(".", section) for section in _sections(field.annotation)]
    if typing.get_origin(field.annotation) is tuple:
        found += [("[].", section) for item in typing.get_args(field.annotation) for section in _sections(item)]
    return found


def _known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for between, inner in _inner(field):
            keys += _known_keys(inner, f"{prefix}{name}{between}")
    return keys


def describe(section: type[BaseModel] = Config, prefix: str = "") -> list[tuple[str, str, str]]:
    """List every key as (dotted key, default, meaning), for the documentation; ``[]`` stands for an item of a list."""
    rows: list[tuple[str, str, str]] = []
    for name, field in section.model_fields.items():
        if field.annotation not in _sections(field.annotation):
            default = "required" if field.is_required() else str(field.default)
            rows.append((prefix + name, default, field.description or ""))
        for between, inner in _inner(field):
            rows += describe(inner, f"{prefix}{name}{between}")
    return rows
