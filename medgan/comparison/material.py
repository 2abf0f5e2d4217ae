"""What a study works on: its cases, split and read once; its generators, verified; the checks before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from medgan.checkpoint import Checkpoint, library_versions
from medgan.comparison.arms import RANDOM_PARTS, Arm, is_reference, teacher_of
from medgan.comparison.atlas import Atlas
from medgan.comparison.buildable import require_buildable
from medgan.comparison.design import ALL_LABELLED, TUNED, Cell, blocks, expand_arms, expand_trials, folds
from medgan.comparison.digests import Digests, digest_of
from medgan.comparison.external import read_external
from medgan.comparison.generators import load_generators
from medgan.comparison.kept import KeptModels
from medgan.comparison.leaks import (
    require_choosers,
    require_enough,
    require_further_labels,
    require_no_copies,
    require_no_leak,
    require_other_choosers,
    require_unseen,
)
from medgan.comparison.magnitudes import Magnitudes, measure_magnitudes
from medgan.comparison.own_function import function_digest, load_function
from medgan.comparison.scoring import make_task
from medgan.config import Config, DataConfig
from medgan.data.cohort import Case, Cohort, open_cohort
from medgan.data.loaders import Prepared, prepare, stack_images
from medgan.data.preprocess import Preprocessing
from medgan.data.split import Split, split_cohort
from medgan.sampler import Sampler
from medgan.seeding import derive_seed, numpy_generator

PARTS = ("training", "validation", "test")
DECISIVE = ("medgan", "torch", "monai")  # of the libraries these decide the figures
MAGNITUDE_VOLUMES, MAGNITUDE_DRAWS = 32, 4
# What of compare decides a run; the rest says which runs there are and what is made of them.
OF_A_RUN = (
    "task", "steps", "batch", "learning_rate", "width", "network", "confidence", "consensus", "atlas", "pseudo_share",
    "curve_points", "threads",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Block:
    """The cases of one fold, with so many labelled.

    Attributes:
        split: everybody, by part.
        used: by part, the cases with the label map or class that the task needs, prepared.
        unlabelled: training cases without it, prepared.
        annotated: training cases that the cohort has an annotation of, with it, in the order of an arm of the block in
            which none is taken away; for references alone.
    """

    split: Split
    used: Mapping[str, tuple[Prepared, ...]]
    unlabelled: tuple[Prepared, ...]
    annotated: tuple[Prepared, ...] = ()


class Material:
    """Cases and generators of a study.

    Everything is read, and every check made, when it is opened: a study that starts has nothing left to stumble over.

    Args:
        config: of the study.
        checked: the checks were made by the process that started this one, on the same files; they are not made again.
        kept: where models lie that are needed again; by default none is kept.
        digests: of files, as that process has found them (:attr:`Digests.known`); they are not read for it again.

    Raises:
        InputFault: the cohort or a generator is at fault, or they do not allow the study (a leak, too few cases).
    """

    def __init__(
        self,
        config: Config,
        *,
        checked: bool = False,
        kept: KeptModels | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.kept = KeptModels() if kept is None else kept
        self.arms = {arm.name: arm for arm in expand_arms(config.compare, config.name)}
        self.trials = expand_trials(config.compare, config.name)
        self._variants = {arm.name: arm for variants in self.trials.values() for arm in variants}
        self.cohort = open_cohort(config.data)
        self.task = make_task(config, self.cohort)
        self.digests = Digests(digests)
        self._atlases: dict[tuple[int, int], tuple[int, Atlas]] = {}
        self._redrawn: dict[tuple[int, int, int], Split] = {}
        self._magnitudes: dict[tuple[str, int, int], Magnitudes] = {}
        self.splits = {
            (n, k): split_cohort(self.cohort, _data(config, n, k)) for n in blocks(config) for k in folds(config)
        }
        self.generators = load_generators(config, self.arms.values(), self.splits, self.cohort.channels)
        outside = read_external(config, self.cohort, self.task)
        if not checked:
            # By ids and hashes before the volumes are read, which takes longer.
            self._check_patients()
            self._check_external(outside)
        self._prepared = self._prepare(self.cohort, self.cohort.cases)
        self.external = () if outside is None else tuple(self._prepare(*outside).values())
        if not checked:
            self._check_volumes()
            require_buildable(config, self.arms.values(), self.task, self.cohort.channels)

    def arm(self, cell: Cell) -> Arm:
        """Return the arm of a run: with the values that were chosen for it, or that are tried."""
        if self.is_trial(cell):
            return self._variants[cell.arm]
        arm = self.arms[cell.arm]
        if not cell.choice:
            return arm
        chosen = self._variants[cell.choice]
        return replace(arm, **{parameter: getattr(chosen, parameter) for parameter in TUNED})

    def is_trial(self, cell: Cell) -> bool:
        """Return whether a run only tries values: it is scored on validation cases alone."""
        return cell.arm in self._variants

    def split(self, labelled: int, fold: int, seed: int = 0) -> Split:
        """Return who is where in a block, and who keeps the annotation under this seed."""
        draw = self.draw(labelled, seed)
        if draw == 0:
            return self.splits[labelled, fold]
        if (labelled, fold, draw) not in self._redrawn:
            split = split_cohort(self.cohort, _data(self.config, labelled, fold), draw)
            self._redrawn[labelled, fold, draw] = split
        return self._redrawn[labelled, fold, draw]

    def draw(self, labelled: int, seed: int) -> int:
        """Return which draw of the labelled cases a seed works with."""
        return seed if self.config.compare.redraw and labelled != ALL_LABELLED else 0

    def block(self, labelled: int, fold: int, seed: int = 0) -> Block:
        """Return the cases of one fold with so many labelled, as they count under a seed."""
        split = self.split(labelled, fold, seed)
        used, unlabelled = {}, []
        for part in PARTS:
            prepared = [self._as(case) for case in getattr(split, part)]
            used[part] = tuple(p for p in prepared if self.task.is_usable(p.case))
            if part == "training":
                unlabelled = [p for p in prepared if not self.task.is_usable(p.case)]
        annotated = tuple(self._prepared[case.case_id] for case in self._annotated(labelled, fold))
        return Block(split, used, tuple(unlabelled), annotated)

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the arms that know all labels."""
        return tuple(name for name, arm in self.arms.items() if is_reference(arm))

    def sampler(self, arm: Arm, labelled: int, fold: int) -> Sampler | None:
        """Return the generator of an arm in a block; ``None`` where it needs none."""
        return self.generators[str(arm.generator), labelled, fold] if arm.needs_generator else None

    def magnitudes(self, arm: Arm, labelled: int, fold: int) -> Magnitudes | None:
        """Return how large the fields of the arm's generator are on the training cases, for the random control."""
        if not any(part in RANDOM_PARTS for part in arm.parts):
            return None
        key = str(arm.generator), labelled, fold
        if key not in self._magnitudes:
            block = self.block(labelled, fold)
            everybody = (*block.used["training"], *block.unlabelled)
            # Drawn, as a cohort may be sorted by class.
            order = numpy_generator(self.config.seed, "magnitudes").permutation(len(everybody))
            volumes = [everybody[i] for i in order[:MAGNITUDE_VOLUMES]]
            self._magnitudes[key] = measure_magnitudes(
                self.generators[key],
                stack_images(volumes),
                [p.case.class_name for p in volumes],
                MAGNITUDE_DRAWS,
                derive_seed(self.config.seed, "magnitudes"),
            )
        return self._magnitudes[key]

    def atlas(self, labelled: int, fold: int, seed: int = 0) -> Atlas:
        """Return the training scans of a block, to be fitted to each other.

        A fit is made once a process and draw of the labelled cases; of each block the last draw's are kept.
        """
        draw = self.draw(labelled, seed)
        if self._atlases.get((labelled, fold), (-1,))[0] != draw:
            block = self.block(labelled, fold, seed)
            scans = stack_images([*block.used["training"], *block.unlabelled])
            atlas = Atlas(scans, len(block.used["training"]), sources=self.config.compare.atlas)
            self._atlases[labelled, fold] = draw, atlas
        return self._atlases[labelled, fold][1]

    def is_needed_again(self, cell: Cell, key: str) -> bool:
        """Return whether the model that a run trains, known by its key, may be the teacher of another arm, or an arm.

        A trial with the values that are chosen is what the arm is to be with the same seed.
        """
        if self.is_trial(cell):
            return True
        taught = filter(None, map(teacher_of, (*self.arms.values(), *self._variants.values())))
        return any(self.key(cell, teacher) == key for teacher in taught)

    def key(self, cell: Cell, arm: Arm | None = None) -> str:
        """Return the SHA-256 of all that decides a run's figures: a run with the same key need not be made again.

        Args:
            cell: which run.
            arm: in the place of the run's own.
        """
        arm = self.arm(cell) if arm is None else arm
        split = self.split(cell.labelled, cell.fold, cell.seed)
        sampler = self.sampler(arm, cell.labelled, cell.fold)
        settings = self.config.compare.model_dump(mode="json", include=set(OF_A_RUN))
        # Of a reference alone: the keys of the other arms' runs stay what they were.
        known = [self.digests.case(c) for c in self._annotated(cell.labelled, cell.fold)] if is_reference(arm) else []
        return digest_of(
            {
                **({"all_labels": known} if known else {}),
                "arm": {k: v for k, v in asdict(arm).items() if k not in ("name", "generator")},
                "seed": [self.config.seed, cell.seed],
                "settings": settings,
                "modality": self.config.data.modality,
                "task": asdict(self.task),
                "grid": self.config.study_grid.model_dump(mode="json"),
                "generator": None if sampler is None else sampler.checkpoint.digest,
                "cases": {part: [self.digests.case(c) for c in getattr(split, part)] for part in PARTS},
                "external": [self.digests.case(p.case) for p in self.external],
                "function": self.function_digest,
                "versions": versions(),
            }
        )

    def keys(self, cell: Cell) -> tuple[str, ...]:
        """Return the keys of the models that a run needs: its own, and its teacher's where it has one."""
        teacher = teacher_of(self.arm(cell))
        return (self.key(cell), *(() if teacher is None else (self.key(cell, teacher),)))

    def checkpoints(self) -> dict[tuple[str, int, int], Checkpoint]:
        """Return the generators' checkpoints by (name, labelled, fold)."""
        return {key: sampler.checkpoint for key, sampler in self.generators.items()}

    @cached_property
    def function_digest(self) -> str | None:
        """SHA-256 of the file of the researcher's own training function."""
        path = self.config.compare.function
        return None if path is None else function_digest(load_function(path))

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 of all cases of the cohort, whatever their place."""
        return self.digests.cases(self.cohort.cases)

    def _annotated(self, labelled: int, fold: int) -> list[Case]:
        """Return the training cases that the cohort has an annotation of, with it, whatever the block takes away."""
        whole = {case.case_id: case for case in self.cohort.cases}
        training = [whole[case.case_id] for case in self.splits[labelled, fold].training]
        return [case for case in training if self.task.is_usable(case)]

    def _as(self, case: Case) -> Prepared:
        """Return a prepared case as it counts in a block: without label and class where the block takes them away."""
        prepared = self._prepared[case.case_id]
        if case == prepared.case:
            return prepared
        index = prepared.class_index if case.class_name is not None else -1
        return replace(prepared, case=case, label=None if case.label is None else prepared.label, class_index=index)

    def _prepare(self, cohort: Cohort, cases: Sequence[Case]) -> dict[str, Prepared]:
        """Read every case once, with all it has."""
        wanted = {case.case_id for case in cases}
        whole = [case for case in cohort.cases if case.case_id in wanted]
        prepared = prepare(whole, cohort, Preprocessing(self.config.study_grid), f"reading {cohort.source.name}")
        return {p.case.case_id: p for p in prepared}

    def _check_patients(self) -> None:
        for (labelled, fold), split in self.splits.items():
            hashes = {part: [self.digests.image(case) for case in getattr(split, part)] for part in PARTS}
            points = [p for (_, n, k), p in self.checkpoints().items() if (n, k) == (labelled, fold)]
            redrawn = self.config.compare.redraw
            require_no_leak(split, hashes, self.cohort.source, points, labelled, redrawn=redrawn)
            if self.references:
                used = [case for case in split.training if self.task.is_usable(case)]
                require_further_labels(used, self._annotated(labelled, fold), self.task, self.references)
            for point in points:
                require_other_choosers(point, self.cohort, split)

    def _check_external(self, outside: tuple[Cohort, list[Case]] | None) -> None:
        if outside is None:
            return
        cohort, cases = outside
        seen = {self.digests.image(c) for split in self.splits.values() for c in (*split.training, *split.validation)}
        seen |= {str(c["content_sha256"]) for point in self.checkpoints().values() for c in point.origin.training_cases}
        require_unseen([self.digests.image(case) for case in cases], seen, cohort.source)

    def _check_volumes(self) -> None:
        for number, fold in self.splits:
            block = self.block(number, fold)
            trained_on = (*block.used["training"], *block.unlabelled)  # by the generator or with pseudo-labels
            require_no_copies({**block.used, "training": trained_on}, self.external, self.cohort.source)
            if self.trials:
                require_choosers(block.used, self.external, self.task, self.cohort.source)
            for draw in sorted({self.draw(number, seed) for seed in range(self.config.compare.seeds)}):
                used = self.block(number, fold, draw).used
                cases = {part: [p.case for p in used[part]] for part in PARTS}
                require_enough(cases, self.task, self.cohort.source, self.config.compare.batch)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the figures."""
    found = library_versions()
    return {name: found[name] for name in DECISIVE}


def _data(config: Config, labelled: int, fold: int) -> DataConfig:
    change: dict[str, Any] = {"labelled": None if labelled == ALL_LABELLED else labelled}
    if config.data.folds is not None:
        change["fold"] = fold
    return config.data.model_copy(update=change)
