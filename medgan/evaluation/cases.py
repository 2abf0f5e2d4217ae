"""Which cases of a cohort the generator was trained on, and which it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medgan.checkpoint import Checkpoint
from medgan.data.cohort import Case, Cohort
from medgan.data.split import content_hash, split_cohort
from medgan.errors import InputFault
from medgan.seeding import numpy_generator


@dataclass(frozen=True)
class Parts:
    """A cohort as a generator sees it.

    Attributes:
        training: cases it was trained on.
        held_out: cases of patients it has not seen.
        notes: what a reader of the figures must know about the two, in words.
    """

    training: tuple[Case, ...]
    held_out: tuple[Case, ...]
    notes: tuple[str, ...] = field(default=())


def part_cases(cohort: Cohort, checkpoint: Checkpoint, *, seed: int = 0, limit: int | None = None) -> Parts:
    """Part a cohort by the training cases that a checkpoint records.

    A case is a training case by its id or by its bytes: the same scans under other ids are still those of training. A
    case that was not trained on, but is of the patient of a training case, here or in training, is held out by name
    only: it is left out. So is a second case with the bytes of one that bears its id of training.

    Args:
        cohort: whose cases.
        checkpoint: of the generator.
        seed: of the cases that stay under a limit.
        limit: at most so many training cases and so many held-out ones; ``None`` for all.
    """
    recorded = checkpoint.origin.training_cases
    hashes = {case.get("content_sha256") for case in recorded}
    by_id, patients = set[str](), set[str]()
    if not checkpoint.identifiers_withheld:
        by_id = {case["case_id"] for case in recorded}
        patients = {case["patient_id"] for case in recorded}
    contents = {case.case_id: content_hash(case) for case in cohort.cases}
    patients |= {case.patient_id for case in cohort.cases if contents[case.case_id] in hashes}
    # Bytes found under the id they had in training are no other case's: that is a copy, or another frame of the file.
    known = {content for case_id, content in contents.items() if case_id in by_id}
    by_bytes = {
        case_id
        for case_id, content in contents.items()
        if content in hashes and (case_id in by_id or content not in known)
    }
    training, held_out, related, changed, renamed = [], [], 0, 0, 0
    for case in sorted(cohort.cases, key=lambda case: case.case_id):
        if case.case_id in by_id or case.case_id in by_bytes:
            training.append(case)
            changed += case.case_id not in by_bytes
            renamed += bool(by_id) and case.case_id not in by_id
        elif case.patient_id in patients:
            related += 1
        else:
            held_out.append(case)
    notes = []
    if related:
        notes.append(f"{related} cases were left out: not trained on, but of a patient of whom another scan was.")
    if renamed:
        notes.append(f"{renamed} cases are training cases by their bytes, under other ids than in training.")
    if changed:
        notes.append(
            f"{changed} cases bear the id of a training case, but not its bytes: they were changed since, or this is "
            "another cohort with the same ids. What is said of training cases holds only if they show the same scans."
        )
    choosing = _validation_ids(cohort, checkpoint) & {case.case_id for case in held_out}
    if choosing:
        notes.append(
            f"{len(choosing)} of the {len(held_out)} held-out cases are the validation cases by which the weights "
            "were chosen: never trained on, but not wholly unseen."
        )
    if limit is not None and max(len(training), len(held_out)) > limit:
        notes.append(
            f"Only {limit} training and {limit} held-out cases at most were used, of {len(training)} and "
            f"{len(held_out)}, drawn by the seed. Nearest neighbours were looked for among these alone."
        )
        training, held_out = (_some(cases, limit, seed) for cases in (training, held_out))
    return Parts(tuple(training), tuple(held_out), tuple(notes))


def _some(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    if len(cases) <= limit:
        return list(cases)
    kept = numpy_generator(seed, "limit").permutation(len(cases))[:limit]
    return [cases[i] for i in sorted(kept.tolist())]


def _validation_ids(cohort: Cohort, checkpoint: Checkpoint) -> set[str]:
    """Return the cases the weights were chosen by, if this is the cohort of training, split as it was then."""
    try:
        split = split_cohort(cohort, checkpoint.config.data)
    except InputFault:
        return set()
    if split.digest != checkpoint.origin.split_digest:
        return set()
    return {case.case_id for case in split.validation}
