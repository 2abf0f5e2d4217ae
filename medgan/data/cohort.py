"""A cohort, however it lies on disk: which cases there are, and their volumes through the gate."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medgan.config import DataConfig
from medgan.data.case import Case, Cohort, Report, SplitName, raise_fault
from medgan.data.decathlon import read_decathlon
from medgan.data.dicom import read_dicom_series
from medgan.data.folder import nifti_case, read_folder
from medgan.data.manifest import read_manifest
from medgan.data.nifti import NIFTI_SUFFIXES, read_nifti
from medgan.data.validate import fault_path, label_values, require_label, require_same_geometry
from medgan.data.volume import Volume
from medgan.errors import InputFault

__all__ = ["Case", "Cohort", "SplitName", "load_image", "load_label", "open_cohort", "read_cohort"]

logger = logging.getLogger(__name__)


def read_cohort(
    path: Path,
    *,
    class_key: str | None = None,
    classes: Sequence[str] = (),
    labels: Mapping[int, str] | None = None,
    class_optional: bool = False,
    report: Report = raise_fault,
) -> Cohort:
    """Read which cases there are; no voxel is read.

    Args:
        path: a CSV manifest, a ``dataset.json``, a folder with one of them, a folder of NIfTI files (at its top, or in
            ``images`` and ``labels``, or ``imagesTr`` and ``labelsTr``), a folder of DICOM series, or one NIfTI file.
        class_key: the column (or key of an entry) that holds the class; without one, cases have no class.
        classes: classes to keep, in the order of their index; cases of others count as without class.
        labels: label values and names; empty or none: the cohort's own.
        class_optional: a cohort without that column, or without any case of ``classes``, counts as without class.
        report: what to do about the fault of a single case; the default raises it.

    Raises:
        InputFault: a file is missing, two cases share an id, one patient stands in two splits, or the class column
            does not exist.
    """
    path = Path(path)
    try:
        cohort = _read(path, class_key, report)
    except InputFault as fault:
        if not class_optional or fault.code != "UNKNOWN_CLASS_KEY":
            raise
        logger.info("%s: no %r given, all cases count as without class", path, class_key)
        class_key = None
        cohort = _read(path, None, report)
    cohort = replace(cohort, cases=_unique(path, _named_safely(path, cohort.cases, report), report))
    if not cohort.cases:
        report(InputFault(fault_path(path), "EMPTY_COHORT", "no usable case in this cohort", "list at least one image"))
        return cohort
    _require_patients_apart(path, cohort.cases, report)
    cohort = _with_classes(cohort, class_key, tuple(classes), optional=class_optional)
    channels = Counter(max(len(case.images), case.channels) for case in cohort.cases)
    if len(channels) > 1:
        found = ", ".join(f"{count} with {number}" for number, count in sorted(channels.items()))
        report(InputFault(path, "CHANNELS", f"the cases differ in their channels ({found})", "give all the same"))
    named = {value: name for value, name in labels.items() if value != 0} if labels else cohort.label_names
    return replace(cohort, label_names=dict(named), channels=next(iter(channels)))


def open_cohort(data: DataConfig) -> Cohort:
    """Read the cohort a configuration names, fetched first where it asks for that.

    Where neither the configuration nor the cohort declares label names, all label maps are read for their values.
    """
    root = data.root
    if data.download:
        from medgan.data.download import fetch_decathlon

        root = fetch_decathlon(root, data.decathlon_task)
    if not os.path.exists(root):  # noqa: PTH110 - False, too, for what cannot be a path
        reason = "there is no such file or folder (data.root)"
        raise InputFault(fault_path(root), "MISSING_FILE", reason, "set data.root=FOLDER to where the cohort lies")
    cohort = read_cohort(root, class_key=data.class_key, classes=data.classes, labels=data.labels)
    if not cohort.label_names and any(case.label for case in cohort.cases):
        values = {
            value for case in cohort.cases if (label := _label_alone(case)) is not None for value in label_values(label)
        }
        names = {value: f"label {value}" for value in sorted(values) if value != 0}
        logger.info("%s: no label names declared; the label maps hold the values %s", root, sorted(values))
        cohort = replace(cohort, label_names=names)
    return cohort


def load_image(case: Case) -> Volume:
    """Read a case's image through the gate, ``(C, X, Y, Z)``; several files or series must lie on one grid.

    Raises:
        InputFault: for every fault the gate knows.
    """
    if len(case.images) == 1:
        path = case.images[0]
        if path.is_dir():
            return read_dicom_series(path, case.series)
        return read_nifti(path, channels=case.channels, frame=case.frame)
    parts = [read_dicom_series(path) if path.is_dir() else read_nifti(path) for path in case.images]
    first = parts[0]
    for part in parts[1:]:
        require_same_geometry(part, first)
    data = np.concatenate([part.data for part in parts])
    if len({(part.dtype, part.slope, part.intercept) for part in parts}) > 1:
        return replace(first, data=data, dtype=data.dtype, slope=1.0, intercept=0.0)
    return replace(first, data=data)


def load_label(case: Case, image: Volume, label_names: Mapping[int, str]) -> Volume | None:
    """Read a case's label map through the gate, ``(1, X, Y, Z)`` uint8 on the image's grid; ``None`` without one.

    Args:
        case: the case.
        image: its image, whose geometry the label map must share.
        label_names: the values declared, without 0; empty accepts any.

    Raises:
        InputFault: for every fault the gate knows.
    """
    if case.label is None:
        return None
    if _is_segmentation(case.label):
        from medgan.data.dicom_seg import read_segmentation

        label = read_segmentation(case.label, image, label_names)
    else:
        label = read_nifti(case.label, role="label")
    require_label(label, image, label_names)
    return label


def _is_segmentation(path: Path) -> bool:
    return path.suffix.lower() == ".dcm"


def _label_alone(case: Case) -> Volume | None:
    """Read a label map for its values; a segmentation object needs its image for that."""
    if case.label is None or not _is_segmentation(case.label):
        return None if case.label is None else read_nifti(case.label, role="label")
    return load_label(case, load_image(case), {})


def _read(path: Path, class_key: str | None, report: Report) -> Cohort:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_file and path.suffix.lower() == ".csv":
        return read_manifest(path, class_key, report)
    if is_file and path.suffix.lower() == ".json":
        return read_decathlon(path, class_key, report)
    if is_folder and (path / "dataset.json").is_file():
        return read_decathlon(path / "dataset.json", class_key, report)
    if is_folder and (path / "manifest.csv").is_file():
        return read_manifest(path / "manifest.csv", class_key, report)
    if not is_folder and not is_file:
        raise InputFault(fault_path(path), "MISSING_FILE", "there is no such file or folder", "mend the path")
    if class_key is not None:
        reason = f"plain files have no column {class_key!r}"
        raise InputFault(path, "UNKNOWN_CLASS_KEY", reason, "list the cases and their classes in a CSV manifest")
    if is_folder:
        try:
            return read_folder(path, report)
        except OSError as error:
            raise InputFault(
                path, "UNREADABLE", f"it cannot be listed ({error.strerror})", "check its permissions"
            ) from error
    if path.name.endswith(NIFTI_SUFFIXES):
        return Cohort(path, (nifti_case(path),))
    raise InputFault(
        path, "NO_COHORT", "neither a CSV manifest, a dataset.json nor a NIfTI file", "give one of these or a folder"
    )


def _named_safely(path: Path, cases: tuple[Case, ...], report: Report) -> tuple[Case, ...]:
    """Keep cases whose id can be a file name: ids become names of files, below the output folder and nowhere else."""
    safe = []
    for case in cases:
        name = case.case_id
        if not name or name.startswith(".") or len(name) > 200 or any(c in "/\\" or not c.isprintable() for c in name):
            reason = f"the case_id {name[:80]!r} cannot be a file name"
            report(InputFault(path, "BAD_CASE_ID", reason, "use letters, digits, '-', '_', '.' and spaces"))
        else:
            safe.append(case)
    return tuple(safe)


def _unique(path: Path, cases: tuple[Case, ...], report: Report) -> tuple[Case, ...]:
    seen: dict[str, Case] = {}
    for case in cases:
        if case.case_id in seen:
            report(
                InputFault(
                    path, "DUPLICATE_CASE", f"two cases are called {case.case_id!r}", "give each its own case_id"
                )
            )
        else:
            seen[case.case_id] = case
    return tuple(seen.values())


def _require_patients_apart(path: Path, cases: tuple[Case, ...], report: Report) -> None:
    splits: dict[str, set[str]] = {}
    for case in cases:
        if case.split:
            splits.setdefault(case.patient_id, set()).add(case.split)
    torn = sorted(patient for patient, names in splits.items() if len(names) > 1)
    if torn:
        shown = ", ".join(torn[:5]) + (f" and {len(torn) - 5} more" if len(torn) > 5 else "")
        report(
            InputFault(
                path,
                "PATIENT_IN_TWO_SPLITS",
                f"patients in more than one split: {shown}",
                "keep each patient in one split",
            )
        )


def _with_classes(cohort: Cohort, class_key: str | None, classes: tuple[str, ...], *, optional: bool) -> Cohort:
    if class_key is None:
        return cohort
    counts = Counter(case.class_name for case in cohort.cases if case.class_name is not None)
    names = classes or tuple(sorted(counts))
    if not any(name in counts for name in names) and not optional:
        found = ", ".join(sorted(counts)) or "none"
        reason = f"no case is of a class {', '.join(names) or 'at all'} (column {class_key!r} holds: {found})"
        raise InputFault(cohort.source, "UNKNOWN_CLASS", reason, "mend data.classes or data.class_key")
    for name in names:
        if name not in counts:
            logger.warning("%s: no case is of the class %s", cohort.source, name)
    without = len(cohort.cases) - sum(counts[name] for name in names)
    if without:
        others = {name: count for name, count in counts.items() if name not in names}
        logger.info("%s: %d cases count as without class %s", cohort.source, without, others or "")
    kept = tuple(case if case.class_name in names else replace(case, class_name=None) for case in cohort.cases)
    return replace(cohort, cases=kept, class_names=names)
