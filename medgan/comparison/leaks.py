"""The checks before a study's first step: nobody tested was trained on, and there is enough to train and to test."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from medgan.checkpoint import Checkpoint
from medgan.comparison.scoring import Task
from medgan.config import Config
from medgan.data.cohort import Case, Cohort
from medgan.data.loaders import Prepared
from medgan.data.split import Split, split_cohort
from medgan.errors import InputFault


def require_no_leak(
    split: Split,
    hashes: Mapping[str, Sequence[str]],
    source: Path,
    checkpoints: Sequence[Checkpoint],
    labelled: int = 0,
    *,
    redrawn: bool = False,
) -> None:
    """Refuse a study in which something that was trained on is tested on.

    Args:
        split: who is where.
        hashes: SHA-256 of every case's images, by part.
        source: the cohort.
        checkpoints: the generators used with this split.
        labelled: training cases that keep their class; 0 for all.
        redrawn: under every seed other cases keep it.

    Raises:
        InputFault: a validation or test case is, by case id, patient id or content, one that a generator was trained
            with, or is byte for byte a training case; or a generator knew more classes than the study's models may.
            The message counts; it names no patient.
    """
    held_out: list[Case] = [*split.validation, *split.test]
    everybody = [case.patient_id for part in hashes for case in getattr(split, part)]
    patient_of = dict(zip([h for of_part in hashes.values() for h in of_part], everybody, strict=True))
    held_out_hashes = [*hashes["validation"], *hashes["test"]]
    copies = set(hashes["training"]) & set(held_out_hashes)
    if copies:
        reason = f"{len(copies)} validation or test cases are byte for byte training cases"
        raise InputFault(source, "LEAK", reason, "remove the copies or give them one patient id")
    for checkpoint in checkpoints:
        seen = checkpoint.origin.training_cases
        patients = {str(c["patient_id"]) for c in seen}
        if checkpoint.identifiers_withheld:
            # From a registry: its patients are those of this cohort whose scans it has seen.
            patients = {patient_of[c["content_sha256"]] for c in seen if c["content_sha256"] in patient_of}
        found = {
            "by patient id": patients & {c.patient_id for c in held_out},
            "by case id": {str(c["case_id"]) for c in seen} & {c.case_id for c in held_out},
            "by content": {str(c["content_sha256"]) for c in seen} & set(held_out_hashes),
        }
        if any(found.values()):
            counts = ", ".join(f"{len(ids)} {how}" for how, ids in found.items())
            reason = f"the generator was trained with cases of this study's validation or test ({counts})"
            remedy = "train it with the same data section as the study, so that both split the patients alike"
            raise InputFault(checkpoint.folder, "LEAK", reason, remedy)
        theirs = checkpoint.config.data.labelled or 0
        if checkpoint.origin.class_names and labelled and (theirs == 0 or theirs > labelled):
            known = "all" if theirs == 0 else str(theirs)
            reason = f"the generator was trained with {known} classes, the models of this study see {labelled}"
            remedy = (
                f"train it with data.labelled={labelled}, e.g. into a folder with {{labelled}} in compare.checkpoint"
            )
            raise InputFault(checkpoint.folder, "LEAK", reason, remedy)
        if checkpoint.origin.class_names and labelled and redrawn:
            reason = "under every seed other cases keep their class, and the generator knows those of the first draw"
            raise InputFault(checkpoint.folder, "LEAK", reason, "leave compare.redraw out")


def require_unseen(external: Sequence[str], seen: Collection[str], source: Path) -> None:
    """Refuse a test on another site whose cases were trained on or chosen by.

    Args:
        external: SHA-256 of its cases' images.
        seen: SHA-256 of those of training and validation, the generators' too.
        source: the other site's cohort.

    Raises:
        InputFault: some are the same. The message counts.
    """
    copies = sum(digest in seen for digest in external)
    if copies:
        reason = f"{copies} cases of the other site are byte for byte training or validation cases"
        raise InputFault(source, "LEAK", reason, "remove the copies")


def require_other_choosers(checkpoint: Checkpoint, cohort: Cohort, split: Split) -> None:
    """Refuse a generator whose weights were chosen by patients who are tested here.

    Raises:
        InputFault: its validation patients are test patients of ``split``. The message counts.
    """
    theirs = split_cohort(cohort, checkpoint.config.data.model_copy(update={"labelled": None}))
    chosen_by = {c.patient_id for c in theirs.validation} & {c.patient_id for c in split.test}
    if theirs.digest == checkpoint.origin.split_digest and chosen_by:
        reason = f"the generator was chosen by {len(chosen_by)} of this study's test patients"
        raise InputFault(checkpoint.folder, "LEAK", reason, "train it with the same data section as the study")


def require_no_copies(used: Mapping[str, Sequence[Prepared]], external: Sequence[Prepared], source: Path) -> None:
    """Refuse one scan under two names or formats on both sides of the split: the same voxels on the grid.

    Raises:
        InputFault: a validation or test case has the voxels of a training case. The message counts.
    """
    copies = _copies(used["training"], [*used["validation"], *used["test"], *external])
    if copies:
        reason = f"{copies} validation or test cases have voxel for voxel the content of a training case"
        raise InputFault(source, "LEAK", reason, "remove the copies or give them one patient id")


def _copies(known: Sequence[Prepared], others: Sequence[Prepared]) -> int:
    """Return how many of the others have voxel for voxel the content of one that is known."""
    digests = {voxels_digest(p.image) for p in known}
    return sum(voxels_digest(p.image) in digests for p in others)


def voxels_digest(image: Tensor) -> str:
    """Return the SHA-256 of a volume on the grid in 8 bits: the same scan whatever its file's name, format or dtype."""
    return hashlib.sha256(np.round(image.numpy() * 255).clip(0, 255).astype(np.uint8).tobytes()).hexdigest()


def require_same_grid(checkpoint: Checkpoint, config: Config, channels: int) -> None:
    """Refuse a generator that would take the study's samples for something else.

    Raises:
        InputFault: another number of channels, another intensity range, or another size of a voxel.
    """
    mine, theirs = config.study_grid, checkpoint.config.preprocess
    remedy = "use the generator's preprocess section in the study, or train one with the study's"
    if checkpoint.origin.channels != channels:
        reason = f"the generator has {checkpoint.origin.channels} channels, the study's volumes {channels}"
        raise InputFault(checkpoint.folder, "CHANNELS", reason, "train a generator with volumes like the study's")
    if mine.intensity != theirs.intensity:
        reason = f"0 and 1 mean other values to the generator ({theirs.intensity.kind}) than in the study"
        raise InputFault(checkpoint.folder, "OTHER_INTENSITY", reason, remedy)
    if theirs.fit == "crop" and (mine.fit, mine.spacing) != (theirs.fit, theirs.spacing):
        reason = (
            f"the generator's voxels are {theirs.spacing or 'as they come'} mm, the study's {mine.spacing} ({mine.fit})"
        )
        raise InputFault(checkpoint.folder, "OTHER_GRID", reason, remedy)


def require_further_labels(
    used: Sequence[Case], annotated: Sequence[Case], task: Task, references: Sequence[str]
) -> None:
    """Refuse a reference with all labels in a block that takes none away: it would be its own comparison again.

    Args:
        used: training cases that keep their annotation in the block.
        annotated: training cases that the cohort has an annotation of.
        task: what is annotated.
        references: names of the arms that ask for all labels.

    Raises:
        InputFault: there are no more of the latter.
    """
    if len(annotated) > len(used):
        return
    need = "label maps" if task.kind == "segmentation" else "classes"
    reason = f"{', '.join(references)}: the cohort holds no {need} beyond the {len(used)} that every arm trains with"
    remedy = "leave all-labels out, or set data.labelled or compare.labelled lower"
    raise InputFault("compare.arms", "NO_FURTHER_LABELS", reason, remedy)


def require_enough(cases: Mapping[str, Sequence[Case]], task: Task, source: Path, batch: int) -> None:
    """Refuse a study that has too little to train or to test with.

    Raises:
        InputFault: no training case with a label map or class, no test case, or, for classification, fewer than two
            classes or a batch of one (batch norm needs two).
    """
    need = "label map" if task.kind == "segmentation" else "class"
    if not cases["training"]:
        raise InputFault(source, "TOO_FEW_CASES", f"no training case has a {need}", "annotate cases")
    if not cases["test"]:
        raise InputFault(source, "NO_TEST", f"no test case has a {need}", "raise data.test or annotate more cases")
    if task.kind == "classification":
        if batch < 2:
            raise InputFault("compare.batch", "CONFIG_VALUE", f"a batch of {batch} is too small", "set at least 2")
        for part in ("training", "test"):
            if len({case.class_name for case in cases[part]}) < 2:
                reason = f"the {part} cases are all of one class"
                raise InputFault(source, "ONE_CLASS", reason, "add cases, or choose another data.split_seed")


def require_choosers(
    used: Mapping[str, Sequence[Prepared]], external: Sequence[Prepared], task: Task, source: Path
) -> None:
    """Refuse to tune arms where validation cases cannot tell which values are better, or are tested themselves.

    Args:
        used: prepared cases with an annotation, by part.
        external: those of another site.
        task: what is annotated.
        source: the cohort.

    Raises:
        InputFault: no validation case with a label map or class, or, for classification, all of one class; or a test
            case has the voxels of a validation case. The message counts.
    """
    remedy = "raise data.validation, annotate more cases, or leave compare.tune out"
    validation = used["validation"]
    if not validation:
        need = "label map" if task.kind == "segmentation" else "class"
        raise InputFault(
            source, "TOO_FEW_CASES", f"no validation case has a {need}, and compare.tune needs them", remedy
        )
    if task.kind == "classification" and len({p.case.class_name for p in validation}) < 2:
        reason = "the validation cases, by which compare.tune chooses, are all of one class"
        raise InputFault(source, "ONE_CLASS", reason, remedy)
    copies = _copies(validation, [*used["test"], *external])
    if copies:
        reason = (
            f"{copies} test cases have voxel for voxel the content of a validation case, by which compare.tune chooses"
        )
        raise InputFault(source, "LEAK", reason, "remove the copies or give them one patient id")
