"""What a study works on: its cases, split and read once; its generators, verified; the checks before the first step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medgan.checkpoint import Checkpoint, file_digest, library_versions
from medgan.comparison.arms import FITTED_PART, RANDOM_PARTS, Arm, is_reference
from medgan.comparison.atlas import Atlas
from medgan.comparison.components import build_components
from medgan.comparison.design import ALL_LABELLED, Cell, blocks, expand_arms, folds
from medgan.comparison.downstream import network_settings
from medgan.comparison.leaks import (
    require_enough,
    require_further_labels,
    require_no_copies,
    require_no_leak,
    require_same_grid,
)
from medgan.comparison.magnitudes import Magnitudes, measure_magnitudes
from medgan.comparison.networks import build_network, require_fit
from medgan.comparison.own_function import function_digest, load_function
from medgan.comparison.scoring import make_task
from medgan.comparison.teachers import Teachers, teacher_of
from medgan.config import Config, DataConfig
from medgan.data.cohort import Case, Cohort, open_cohort, read_cohort
from medgan.data.loaders import Prepared, prepare, stack_images
from medgan.data.preprocess import Preprocessing
from medgan.data.split import Split, content_hash, split_cohort
from medgan.errors import InputFault
from medgan.sampler import Sampler, load, require_gate
from medgan.seeding import derive_seed, numpy_generator
from medgan.tracking import is_model_uri

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
        teachers: where trained teachers lie; by default none is kept.
        digests: of files, as that process has found them (:attr:`digests`); they are not read for it again.

    Raises:
        InputFault: the cohort or a generator is at fault, or they do not allow the study (a leak, too few cases).
    """

    def __init__(
        self,
        config: Config,
        *,
        checked: bool = False,
        teachers: Teachers | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.teachers = Teachers() if teachers is None else teachers
        self.arms = {arm.name: arm for arm in expand_arms(config.compare, config.name)}
        self.cohort = open_cohort(config.data)
        self.task = make_task(config, self.cohort)
        self._digests = dict(digests or {})
        self._atlases: dict[tuple[int, int], tuple[int, Atlas]] = {}
        self._redrawn: dict[tuple[int, int, int], Split] = {}
        self._magnitudes: dict[tuple[str, int, int], Magnitudes] = {}
        self.splits = {
            (n, k): split_cohort(self.cohort, _data(config, n, k)) for n in blocks(config) for k in folds(config)
        }
        self.generators = self._load_generators()
        outside = self._read_external()
        if not checked:
            # By ids and hashes before the volumes are read, which takes longer.
            self._check_patients()
            self._check_external(outside)
        self._prepared = self._prepare(self.cohort, self.cohort.cases)
        self.external = () if outside is None else tuple(self._prepare(*outside).values())
        if not checked:
            self._check_volumes()
            self._check_models()

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
            used[part] = tuple(p for p in prepared if self._is_usable(p.case))
            if part == "training":
                unlabelled = [p for p in prepared if not self._is_usable(p.case)]
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

    def is_teacher(self, cell: Cell, key: str) -> bool:
        """Return whether the model that a run trains, known by its key, is the teacher of another arm as well."""
        taught = filter(None, map(teacher_of, self.arms.values()))
        return any(self.key(cell, teacher) == key for teacher in taught)

    def key(self, cell: Cell, arm: Arm | None = None) -> str:
        """Return the SHA-256 of all that decides a run's figures: a run with the same key need not be made again.

        Args:
            cell: which run.
            arm: in the place of the run's own.
        """
        arm = self.arms[cell.arm] if arm is None else arm
        split = self.split(cell.labelled, cell.fold, cell.seed)
        sampler = self.sampler(arm, cell.labelled, cell.fold)
        settings = self.config.compare.model_dump(mode="json", include=set(OF_A_RUN))
        # Of a reference alone: the keys of the other arms' runs stay what they were.
        known = [self.case_digest(c) for c in self._annotated(cell.labelled, cell.fold)] if is_reference(arm) else []
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
                "cases": {part: [self.case_digest(c) for c in getattr(split, part)] for part in PARTS},
                "external": [self.case_digest(p.case) for p in self.external],
                "function": self.function_digest,
                "versions": versions(),
            }
        )

    def case_digest(self, case: Case) -> str:
        """Return the SHA-256 of a case's images, label map and class, as they count in its block."""
        path = case.label
        label = "" if path is None else self._once(str(path), lambda: _label_digest(path))
        return digest_of([self.image_digest(case), label, case.class_name, case.patient_id])

    def image_digest(self, case: Case) -> str:
        """Return the SHA-256 of a case's images."""
        return self._once("/".join(map(str, case.images)), lambda: content_hash(case))

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of the files that were asked for so far, for another process that sees the same."""
        return self._digests

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
        return digest_of(sorted(self.case_digest(case) for case in self.cohort.cases))

    def _once(self, name: str, compute: Any) -> str:
        if name not in self._digests:
            self._digests[name] = compute()
        return self._digests[name]

    def _is_usable(self, case: Case) -> bool:
        return case.label is not None if self.task.kind == "segmentation" else case.class_name in self.task.class_names

    def _annotated(self, labelled: int, fold: int) -> list[Case]:
        """Return the training cases that the cohort has an annotation of, with it, whatever the block takes away."""
        whole = {case.case_id: case for case in self.cohort.cases}
        training = [whole[case.case_id] for case in self.splits[labelled, fold].training]
        return [case for case in training if self._is_usable(case)]

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

    def _read_external(self) -> tuple[Cohort, list[Case]] | None:
        """Return the other site's cohort and those of its cases that can be tested on."""
        site = self.config.compare.test
        if site is None:
            return None
        cohort = read_cohort(
            site.root,
            class_key=site.class_key or self.config.data.class_key,
            classes=self.cohort.class_names,
            labels=dict(self.cohort.label_names),
            class_optional=True,
        )
        if cohort.channels != self.cohort.channels:
            reason = f"{cohort.channels} channels, the study's cohort has {self.cohort.channels}"
            raise InputFault(cohort.source, "CHANNELS", reason, "give volumes of the same channels")
        cases = [case for case in cohort.cases if self._is_usable(case)]
        if not cases:
            need = "label map" if self.task.kind == "segmentation" else "class"
            raise InputFault(
                cohort.source, "NO_TEST", f"no case has a {need}", "annotate cases, or leave compare.test out"
            )
        return cohort, cases

    def _load_generators(self) -> dict[tuple[str, int, int], Sampler]:
        """Load each arm's generator for each block."""
        found: dict[tuple[str, int, int], Sampler] = {}
        compare = self.config.compare
        patterns: Mapping[str, str | None] = compare.generators or {self.config.name: compare.checkpoint}
        names = sorted({str(arm.generator) for arm in self.arms.values() if arm.needs_generator})
        for name in names:
            pattern = patterns.get(name)
            for labelled, fold in self.splits:
                sampler = load(_folder(pattern, labelled, fold, self.arms.values()))
                require_same_grid(sampler.checkpoint, self.config, self.cohort.channels)
                for arm in self.arms.values():
                    if arm.generator == name and "gan" in arm.parts:
                        require_gate(sampler.checkpoint, arm.min_quality, f"min_quality of arm {arm.name!r}")
                found[name, labelled, fold] = sampler
        return found

    def _check_models(self) -> None:
        """Build the network and every arm's transforms once, so that a name or keyword is refused before the start."""
        compare, task = self.config.compare, self.task
        if compare.function is None:
            settings = network_settings(compare)
            network = build_network(task, self.cohort.channels, settings, 0, self.config.study_grid.shape)
            require_fit(network, task, self.cohort.channels, self.config.study_grid.shape)
        else:
            load_function(compare.function)
        for arm in self.arms.values():
            keys = ["image", "label"] if task.kind == "segmentation" else ["image"]
            build_components(arm.transforms, keys)
            if "oversample" in arm.parts and task.kind != "classification":
                reason = f"arm {arm.name!r}: oversample needs classes, the task is {task.kind}"
                raise InputFault("compare.arms", "CONFIG_VALUE", reason, "leave oversample out")
            if FITTED_PART in arm.parts and task.kind != "segmentation":
                reason = f"arm {arm.name!r}: atlas carries label maps over, the task is {task.kind}"
                raise InputFault("compare.arms", "CONFIG_VALUE", reason, "leave atlas out")

    def _check_patients(self) -> None:
        for (labelled, fold), split in self.splits.items():
            hashes = {part: [self.image_digest(case) for case in getattr(split, part)] for part in PARTS}
            points = [p for (_, n, k), p in self.checkpoints().items() if (n, k) == (labelled, fold)]
            redrawn = self.config.compare.redraw
            require_no_leak(split, hashes, self.cohort.source, points, labelled, redrawn=redrawn)
            if self.references:
                used = [case for case in split.training if self._is_usable(case)]
                require_further_labels(used, self._annotated(labelled, fold), self.task, self.references)
            for point in points:
                self._check_choice(point, split)

    def _check_external(self, outside: tuple[Cohort, list[Case]] | None) -> None:
        if outside is None:
            return
        cohort, cases = outside
        seen = {self.image_digest(c) for split in self.splits.values() for c in (*split.training, *split.validation)}
        seen |= {str(c["content_sha256"]) for point in self.checkpoints().values() for c in point.origin.training_cases}
        copies = sum(self.image_digest(case) in seen for case in cases)
        if copies:
            reason = f"{copies} cases of the other site are byte for byte training or validation cases"
            raise InputFault(cohort.source, "LEAK", reason, "remove the copies")

    def _check_volumes(self) -> None:
        for number, fold in self.splits:
            block = self.block(number, fold)
            trained_on = (*block.used["training"], *block.unlabelled)  # by the generator or with pseudo-labels
            require_no_copies({**block.used, "training": trained_on}, self.external, self.cohort.source)
            for draw in sorted({self.draw(number, seed) for seed in range(self.config.compare.seeds)}):
                used = self.block(number, fold, draw).used
                cases = {part: [p.case for p in used[part]] for part in PARTS}
                require_enough(cases, self.task, self.cohort.source, self.config.compare.batch)

    def _check_choice(self, point: Checkpoint, split: Split) -> None:
        """Refuse a generator whose weights were chosen by patients who are tested here."""
        theirs = split_cohort(self.cohort, point.config.data.model_copy(update={"labelled": None}))
        chosen_by = {c.patient_id for c in theirs.validation} & {c.patient_id for c in split.test}
        if theirs.digest == point.origin.split_digest and chosen_by:
            reason = f"the generator was chosen by {len(chosen_by)} of this study's test patients"
            raise InputFault(point.folder, "LEAK", reason, "train it with the same data section as the study")


def digest_of(tree: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the figures."""
    found = library_versions()
    return {name: found[name] for name in DECISIVE}


def _data(config: Config, labelled: int, fold: int) -> DataConfig:
    change: dict[str, Any] = {"labelled": None if labelled == ALL_LABELLED else labelled}
    if config.data.folds is not None:
        change["fold"] = fold
    return config.data.model_copy(update=change)


def _folder(pattern: str | None, labelled: int, fold: int, arms: Any) -> str:
    remedy = "train a generator first (medgan train CONFIG --output DIR) and set compare.checkpoint=DIR"
    users = ", ".join(arm.name for arm in arms if arm.needs_generator)
    if pattern is None:
        reason = f"the arms {users} need a generator, none is named"
        raise InputFault("compare.checkpoint", "NO_CHECKPOINT", reason, remedy)
    folder = pattern.replace("{labelled}", str(labelled)).replace("{fold}", str(fold))
    if not is_model_uri(folder) and not Path(folder).is_dir():
        raise InputFault(folder, "NO_CHECKPOINT", f"the arms {users} need a generator, the folder is not there", remedy)
    return folder


def _label_digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputFault(
            path, "UNREADABLE", f"it cannot be read ({error.strerror})", "check that it is there"
        ) from error
