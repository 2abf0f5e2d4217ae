"""The arms of the study: what an arm is, the transforms of its training samples, and the samples of its batches.

A sample is ``{"image": (C, D, H, W) in 0..1, "class": name or None}`` and, for segmentation, ``"label": (1, D, H, W)``.
Every arm changes training samples only, on the fly; validation and test cases are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from medgan.comparison.classical import Modality, TaskKind, classical_transforms
from medgan.config import ArmPart, Triple
from medgan.seeding import derive_seed, numpy_generator

if TYPE_CHECKING:
    from medgan.comparison.composition import ArmTransform
    from medgan.comparison.magnitudes import Magnitudes
    from medgan.sampler import Sampler

PARTS: tuple[str, ...] = get_args(ArmPart)
GENERATOR_PARTS = ("gan", "identity", "random-deformation", "consensus", "random-consensus")
LEARNED_PARTS = ("gan", "consensus")  # made with what the generator learned, not with its magnitudes alone
TEACHER_PARTS = ("self-training", "consensus", "random-consensus", "atlas")
FITTED_PART = "atlas"
REFERENCE_PART = "all-labels"
RANDOM_PARTS = ("random-deformation", "random-consensus")  # made with the generator's magnitudes
AUGMENTATION_THREADS = 1
"""On volumes this small, threads that wait for each other cost up to 30 times the work."""


@dataclass(frozen=True)
class Arm:
    """One arm of a study.

    Attributes:
        name: unique in its study; what tables and figures show.
        parts: of :data:`PARTS`; ``()`` or ``("none",)`` is no augmentation.

            - ``classical``: nnU-Net's spatial and intensity augmentation.
            - ``gan``: a sample is replaced, with ``probability``, by a sibling of its class.
            - ``identity``: the same with strength 0, a control that must change nothing.
            - ``random-deformation``: a control with the magnitudes of the generator, drawn at random.
            - ``duplicate``: a control in which another real case of the class takes the sibling's place.
            - ``self-training``: further cases with pseudo-labels (:mod:`medgan.comparison.self_training`).
            - ``consensus``: the same with pseudo-labels on which the teacher's answers for siblings of the scan agree.
            - ``random-consensus``: its control, with random fields of the generator's magnitudes for siblings.
            - ``atlas``: the same with pseudo-labels to which scans fitted to the scan add theirs (segmentation).
            - ``oversample``: every class is drawn equally often (classification).
            - ``all-labels``: the annotations of all training cases that the cohort holds, also those that the block
              takes away; a reference (:func:`is_reference`).
        generator: name of the generator, where a study has several.
        probability: share of samples that ``gan``, ``identity``, ``random-deformation`` and ``duplicate`` replace.
        strength: of every part made with a generator but ``identity``; 0 is the identity, 1 what was learned.
        min_quality: of the siblings of ``gan``, see :func:`~medgan.sampler.quality.sibling_quality`; 0 lets all pass.
        transforms: further transforms by ``_target_``, see :mod:`medgan.comparison.components`.

    Raises:
        ValueError: an unknown part, a part twice, ``none`` beside others, a teacher beside another or beside
            ``all-labels``, a probability, strength or quality out of range.
    """

    name: str
    parts: tuple[str, ...]
    generator: str | None = None
    probability: float = 0.5
    strength: float = 1.0
    min_quality: float = 0.0
    transforms: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _require_parts(self.parts)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {self.probability}")
        if not self.strength >= 0:
            raise ValueError(f"strength must be ≥ 0, got {self.strength}")
        if not 0 <= self.min_quality < 1:
            raise ValueError(f"min_quality must be in [0, 1), got {self.min_quality}")

    @property
    def needs_generator(self) -> bool:
        """Whether any part is made with a generator."""
        return any(part in GENERATOR_PARTS for part in self.parts)


def is_check(arm: Arm, baseline: Arm) -> bool:
    """Return whether an arm must equal the baseline: it differs from it by the identity alone.

    Such an arm checks the study's machinery; it is no comparison that anything is claimed of.
    """
    rest = tuple(part for part in arm.parts if part != "identity")
    same = set(rest or ("none",)) == set(baseline.parts or ("none",))
    return "identity" in arm.parts and same and arm.transforms == baseline.transforms


def is_reference(arm: Arm) -> bool:
    """Return whether an arm is a ceiling: trained with annotations that the arms under comparison do not have.

    It shows how much there is to gain; it is no comparison that anything is claimed of.
    """
    return REFERENCE_PART in arm.parts


def teacher_of(arm: Arm) -> Arm | None:
    """Return how an arm's teacher is trained: as the arm is, but for its teacher; ``None`` where it has none."""
    parts = tuple(part for part in arm.parts if part not in TEACHER_PARTS)
    return None if parts == arm.parts else replace(arm, parts=parts)


def parse_parts(text: str) -> tuple[str, ...]:
    """Return the parts of an arm written with ``+`` between them, e.g. ``classical+gan``.

    Raises:
        ValueError: a part is unknown or given twice, or ``none`` is not alone.
    """
    parts = tuple(part.strip() for part in text.split("+"))
    _require_parts(parts)
    return parts


def build_transform(
    arm: Arm,
    *,
    task: TaskKind,
    modality: Modality,
    shape: Triple,
    sampler: Sampler | None = None,
    magnitudes: Magnitudes | None = None,
) -> ArmTransform:
    """Return the MONAI ``Compose`` of an arm; seed it with ``set_random_state``.

    First what the generator or a control of it replaces, then the classical transforms, then the arm's own. Each draws
    from a stream of its own, named after its role: with the same seed two arms that share a part draw alike for it.

    Args:
        arm: its parts, probability, strength and further transforms.
        task: what is learned; for segmentation the label map follows every change of shape.
        modality: what the voxels are.
        shape: voxels of the grid.
        sampler: the generator, for ``gan`` and ``identity``.
        magnitudes: of the generator's fields, for ``random-deformation``.

    Raises:
        ValueError: a part lacks the generator or the magnitudes it needs, or does not fit the task.
        InputFault: a further transform is refused (``COMPONENT_*``).
    """
    from medgan.comparison.components import build_components
    from medgan.comparison.composition import ArmTransform

    if "oversample" in arm.parts and task != "classification":
        raise ValueError(f"arm {arm.name!r}: oversample needs classes, the task is {task}")
    if FITTED_PART in arm.parts and task != "segmentation":
        raise ValueError(f"arm {arm.name!r}: atlas carries label maps over, the task is {task}")
    keys = ["image", "label"] if task == "segmentation" else ["image"]
    named: list[tuple[str, Any]] = []
    for part in arm.parts:
        if part == "random-deformation":
            if magnitudes is None:
                raise ValueError(f"arm {arm.name!r} needs a generator's magnitudes")
            from medgan.comparison.controls import RandMatchedDeformationd

            mode = _modes(modality, len(keys))
            replaced = [RandMatchedDeformationd(keys, magnitudes, arm.probability, arm.strength, mode)]
        elif part in ("gan", "identity"):
            if sampler is None:
                raise ValueError(f"arm {arm.name!r} needs a generator")
            strength, least = (arm.strength, arm.min_quality) if part == "gan" else (0.0, 0.0)
            replaced = sibling_transforms(keys, sampler, arm.probability, strength, modality, least)
        else:
            continue
        # A control replaces the very samples that the generator replaces: the same stream for both.
        named += [("replace", transform) for transform in replaced]
    if "classical" in arm.parts:
        named += [("classical", transform) for transform in classical_transforms(keys, task, modality, shape)]
    named += [("transforms", transform) for transform in build_components(arm.transforms, keys)]
    return ArmTransform(named, check=bool(arm.transforms))


def sibling_transforms(
    keys: Sequence[str],
    sampler: Sampler,
    probability: float,
    strength: float,
    modality: Modality = "mri",
    min_quality: float = 0.0,
) -> list[Any]:
    """Return the transforms that replace a sample by a sibling of its class.

    A class the generator was not trained with counts as unknown.
    """
    from monai.transforms import Lambdad

    from medgan.transforms import RandDAGANd

    known = frozenset(sampler.class_names)
    sibling = RandDAGANd(
        keys,
        checkpoint=sampler,
        prob=probability,
        strength=strength,
        mode=_modes(modality, len(keys)),
        image_key="image",
        class_key="class" if known else None,
        # Samples lie on the generator's range already: measuring percentiles again would stretch them.
        input_range=(0.0, 1.0),
        min_quality=min_quality,
    )
    if not known:
        return [sibling]
    return [Lambdad("class", lambda name: name if name in known else None, track_meta=False), sibling]


def choose_indices(
    arm: Arm, seed: int, step: int, classes: Sequence[int], batch: int, pseudo: int = 0, share: float = 0.5
) -> list[int]:
    """Return which training cases the batch of ``step`` holds, a function of (seed, step) alone.

    Shuffled epochs, the same in every arm. Where cases have pseudo-labels, each batch has its share of them: there are
    many, and would crowd out the few whose labels are true. ``oversample`` draws a class, each as likely, and then a
    case of it, with replacement; ``duplicate`` puts, with the arm's probability, another case of the class in a case's
    place (itself where the class has no other).

    Args:
        arm: its parts and probability.
        seed: of the run.
        step: number of the update, from 0.
        classes: class index of each training case; for segmentation, where any case may stand for any, all alike.
        batch: samples in an update.
        pseudo: how many cases, the last ones, have pseudo-labels.
        share: of a batch that they get.

    Raises:
        ValueError: there are no cases.
    """
    true = len(classes) - pseudo
    if not classes or true < 1:
        raise ValueError("there are no training cases to choose from")
    of_case = np.asarray(classes)
    guests = round(share * batch) if pseudo else 0
    chosen = batch_indices(seed, step, true, batch - guests) if guests < batch else []
    if guests:
        chosen += [true + i for i in batch_indices(derive_seed(seed, "pseudo"), step, pseudo, guests)]
    if "oversample" in arm.parts:
        rng = numpy_generator(seed, "oversample", step)
        drawn = rng.choice(np.unique(of_case), size=batch)
        chosen = [int(rng.choice(np.flatnonzero(of_case == value))) for value in drawn]
    if "duplicate" in arm.parts:
        rng = numpy_generator(seed, "duplicate", step)
        replaced = rng.random(batch) < arm.probability
        chosen = [_another(i, of_case, rng) if r else i for i, r in zip(chosen, replaced, strict=True)]
    return chosen


def batch_indices(seed: int, step: int, cases: int, batch: int) -> list[int]:
    """Return which cases the batch of ``step`` holds: shuffled epochs, a function of (seed, step) alone."""
    positions = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: numpy_generator(seed, "order", epoch).permutation(cases) for epoch in {p // cases for p in positions}
    }
    return [int(orders[p // cases][p % cases]) for p in positions]


def _require_parts(parts: Sequence[str]) -> None:
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"an arm has no part {part!r}; known: {', '.join(PARTS)}")
    if len(set(parts)) != len(parts):
        raise ValueError(f"an arm has each part once, got {'+'.join(parts)}")
    teachers = [part for part in parts if part in TEACHER_PARTS]
    if len(teachers) > 1:
        raise ValueError(f"an arm has one teacher, got {'+'.join(teachers)}")
    if teachers and REFERENCE_PART in parts:
        raise ValueError(f"with {REFERENCE_PART} nothing is left for a teacher to label, got {'+'.join(parts)}")
    if "none" in parts and len(parts) > 1:
        raise ValueError(f"none stands alone, got {'+'.join(parts)}")


def _modes(modality: Modality, keys: int) -> tuple[str, ...]:
    """Interpolation of image and label map; binary shapes stay binary, as in the classical arm and in the test."""
    return (image_mode(modality), "label")[:keys]


def image_mode(modality: Modality) -> str:
    """Return the interpolation of images; a binary shape is a label map."""
    return "label" if modality == "mask" else "bilinear"


def _another(index: int, classes: np.ndarray, rng: np.random.Generator) -> int:
    others = np.flatnonzero(classes == classes[index])
    others = others[others != index]
    return int(rng.choice(others)) if len(others) else index
