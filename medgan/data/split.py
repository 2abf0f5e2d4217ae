"""Who may see whom: training, validation and test, split by patient."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from medgan.config import DataConfig
from medgan.data.case import Case, Cohort, SplitName
from medgan.errors import InputFault
from medgan.seeding import numpy_generator

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The three parts; no patient is in two of them."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of who is where: the same for the same parts, whatever their order."""
        parts: dict[str, tuple[Case, ...]] = {
            "training": self.training,
            "validation": self.validation,
            "test": self.test,
        }
        lines = sorted((name, case.patient_id, case.case_id) for name, cases in parts.items() for case in cases)
        return hashlib.sha256("\n".join("\x1f".join(line) for line in lines).encode()).hexdigest()


def split_cohort(cohort: Cohort, data: DataConfig, draw: int = 0) -> Split:
    """Split by patient, then take label and class from all but ``data.labelled`` training cases.

    Splits the source gives win (unless ``data.given_split`` is false); patients it gives none go to training.
    Otherwise patients are drawn by ``data.split_seed``, in equal shares of every class; with ``data.folds`` always so,
    and fold after fold of them is the test. Where some patients are
    annotated (with a class, where the cohort has classes, else with a label map), those who are not go to training:
    nothing can be tested on them.

    Args:
        cohort: who there is.
        data: shares, seeds and how many keep their annotation.
        draw: which draw of those who keep it; everybody's place is the same in all.

    Raises:
        InputFault: a patient stands in two splits, or none is left for training.
    """
    given = _given(cohort) if data.given_split and data.folds is None else {}
    places = given or _drawn(cohort, data)
    parts: dict[SplitName, list[Case]] = {"training": [], "validation": [], "test": []}
    for case in cohort.cases:
        parts[places[case.patient_id]].append(case)
    if not parts["training"]:
        reason = f"none of the {len(cohort.cases)} cases is left for training"
        raise InputFault(cohort.source, "NO_TRAINING_CASES", reason, "mend the split column or the shares in data")
    training = _with_few_labels(cohort, parts["training"], data, draw)
    return Split(tuple(training), tuple(parts["validation"]), tuple(parts["test"]))


def content_hash(case: Case) -> str:
    """Return the SHA-256 of the bytes of a case's image files (not of its label map), in order."""
    digest = hashlib.sha256()
    for path in case.images:
        try:
            for file in _image_files(path):
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise InputFault(
                path, "UNREADABLE", f"it cannot be read ({error.strerror})", "check that it is there"
            ) from error
    return digest.hexdigest()


def is_annotated(case: Case, cohort: Cohort) -> bool:
    """Whether a case has what the cohort is annotated with: a class where there are classes, else a label map."""
    return case.class_name is not None if cohort.class_names else case.label is not None


def _image_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file())


def _given(cohort: Cohort) -> dict[str, SplitName]:
    places: dict[str, SplitName] = {}
    for case in cohort.cases:
        if case.split is None:
            continue
        if places.setdefault(case.patient_id, case.split) != case.split:
            reason = f"the patient {case.patient_id} is in {places[case.patient_id]} and in {case.split}"
            raise InputFault(cohort.source, "PATIENT_IN_TWO_SPLITS", reason, "keep each patient in one split")
    others = {case.patient_id for case in cohort.cases} - set(places)
    if places and others:
        logger.info("%s: %d patients without a split go to training", cohort.source, len(others))
        places.update(dict.fromkeys(others, "training"))
    return places


def _drawn(cohort: Cohort, data: DataConfig) -> dict[str, SplitName]:
    by_patient: dict[str, list[Case]] = {}
    for case in cohort.cases:
        by_patient.setdefault(case.patient_id, []).append(case)
    annotated = [patient for patient, cases in by_patient.items() if any(is_annotated(case, cohort) for case in cases)]
    # Sorted, so that the order of the source does not matter.
    patients = sorted(annotated or by_patient)
    places: dict[str, SplitName] = dict.fromkeys(by_patient, "training")
    if len(patients) < len(by_patient):
        logger.info("%s: %d patients without annotation go to training", cohort.source, len(by_patient) - len(patients))
    stratum: Callable[[str], str] = lambda patient: _class_of(by_patient[patient])  # noqa: E731
    if data.folds is None:
        order = _interleaved(patients, stratum, data.split_seed, "split")
        tested = _share(len(order), data.test)
    else:
        order, tested = _fold_first(patients, stratum, data, cohort.source)
    validated = _share(len(order) - (tested if data.folds else 0), data.validation)
    places.update(dict.fromkeys(order[:tested], "test"))
    places.update(dict.fromkeys(order[tested : tested + validated], "validation"))
    return places


def _fold_first(
    patients: list[str], stratum: Callable[[str], Hashable], data: DataConfig, source: Path
) -> tuple[list[str], int]:
    """Return the patients with those of ``data.fold`` first, and how many they are; every patient is in one fold."""
    assert data.folds is not None
    if len(patients) < data.folds:
        reason = f"data.folds is {data.folds}, but there are {len(patients)} annotated patients"
        raise InputFault(source, "TOO_FEW_PATIENTS", reason, "lower data.folds")
    repeat, fold = divmod(data.fold, data.folds)
    order = _interleaved(patients, stratum, data.split_seed, f"folds {repeat}")
    start, stop = (round(len(order) * k / data.folds) for k in (fold, fold + 1))
    return order[start:] + order[:start], stop - start


def _share(count: int, share: float) -> int:
    """Round a share of ``count`` patients; from three patients on, a share that is asked for is never empty."""
    return max(round(count * share), 1 if share > 0 and count >= 3 else 0)


def _class_of(cases: Sequence[Case]) -> str:
    """Return the class most of a patient's cases have, the first by name among equals."""
    counts = Counter(case.class_name or "" for case in cases)
    return min(counts, key=lambda name: (-counts[name], name))


def _interleaved(items: Sequence[T], stratum: Callable[[T], Hashable], seed: int, purpose: str) -> list[T]:
    """Shuffle ``items`` so that every stretch of the order holds each stratum in its share of the whole."""
    strata: dict[Hashable, list[T]] = {}
    for item in items:
        strata.setdefault(stratum(item), []).append(item)
    ranked: list[tuple[float, str, T]] = []
    for name, members in sorted(strata.items(), key=lambda pair: str(pair[0])):
        generator = numpy_generator(seed, purpose, name)
        offset = generator.random()
        for rank, index in enumerate(generator.permutation(len(members))):
            ranked.append(((rank + offset) / len(members), str(name), members[index]))
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])]


def _with_few_labels(cohort: Cohort, training: list[Case], data: DataConfig, draw: int) -> list[Case]:
    """Keep label and class of ``data.labelled`` cases; the first of a fixed order, so that fewer are among more."""
    if data.labelled is None:
        return training
    annotated = sorted((case for case in training if is_annotated(case, cohort)), key=lambda case: case.case_id)
    if len(annotated) < data.labelled:
        reason = f"data.labelled is {data.labelled}, but {len(annotated)} training cases are annotated"
        raise InputFault(cohort.source, "TOO_FEW_LABELLED", reason, "lower data.labelled")
    purpose = f"labelled {draw}" if draw else "labelled"
    order = _interleaved(annotated, lambda case: case.class_name, data.split_seed, purpose)
    # Those with a label map first: a case that keeps its class alone is of no use to a segmentation.
    order.sort(key=lambda case: case.label is None)
    kept = {case.case_id for case in order[: data.labelled]}
    return [case if case.case_id in kept else replace(case, label=None, class_name=None) for case in training]
