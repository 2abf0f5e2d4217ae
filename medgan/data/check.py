"""``medgan check``: everything that is wrong with a cohort, a volume or a DICOM folder, not just the first fault."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medgan.data.case import Case, Cohort
from medgan.data.cohort import load_image, load_label, read_cohort
from medgan.data.dicom import is_dicom_folder
from medgan.data.split import content_hash
from medgan.data.validate import fault_path, label_values, peek_header
from medgan.data.volume import Volume
from medgan.errors import InputFault
from medgan.progress import track

logger = logging.getLogger(__name__)

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found. ``str`` gives it as one line; ``dataclasses.asdict`` as JSON-able values."""

    path: str
    code: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.code}: {self.message}"


@dataclass
class _Seen:
    """What the volumes read so far have in common."""

    contents: dict[str, list[Case]] = field(default_factory=dict)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)
    values: set[int] = field(default_factory=set)


def check(
    path: Path,
    *,
    class_key: str | None = None,
    deep: bool = True,
    frame: int | None = None,
    series: str | None = None,
) -> list[Finding]:
    """List all findings; a fault of one case does not keep the others from being checked.

    Args:
        path: a cohort, one NIfTI file or one DICOM folder.
        class_key: the manifest column with the class.
        deep: read every voxel; otherwise only which files there are, and the NIfTI headers.
        frame: the one to look at, from 0, where ``path`` is 4-D and not listed in a manifest.
        series: UID of the series to look at, where ``path`` is a DICOM folder with several.

    Returns:
        The findings in the order of the cases; a note that summarises them comes last.
    """
    path = Path(path)
    findings: list[Finding] = []
    try:
        cohort = read_cohort(path, class_key=class_key, report=lambda fault: findings.append(_of(fault)))
    except InputFault as fault:
        return [*findings, _of(fault)]
    if frame is not None or series is not None:
        cases = tuple(replace(case, frame=frame, series=series) for case in cohort.cases)
        cohort = replace(cohort, cases=cases)
    seen = _Seen()
    sound: list[Case] = []
    for case in _watched(cohort.cases):
        try:
            findings += _deep_findings(case, cohort, seen) if deep else _header_findings(case, seen)
            sound.append(case)
        except InputFault as fault:
            findings.append(_of(fault))
            logger.debug("%s", fault, exc_info=True)
    findings += _duplicates(seen)
    findings.append(Finding(fault_path(path), "SUMMARY", "note", _summary(cohort, len(sound), seen)))
    return findings


def _of(fault: InputFault) -> Finding:
    message = " ".join(f"{fault.reason}, {fault.remedy}".split())
    return Finding(fault.path, fault.code, "error", message)


def _watched(cases: tuple[Case, ...]) -> Iterable[Case]:
    return track(cases, "checking") if len(cases) > 20 else cases


def _deep_findings(case: Case, cohort: Cohort, seen: _Seen) -> list[Finding]:
    findings = []
    image = load_image(case)
    _remember(case, image, seen)
    for number, channel in enumerate(image.data):
        if channel.min() == channel.max():
            where = f"channel {number} is" if len(image.data) > 1 else "every voxel is"
            findings.append(Finding(fault_path(image.path), "CONSTANT", "warning", f"{where} {channel.flat[0]:g}"))
    label = load_label(case, image, cohort.label_names)
    if label is not None:
        values = label_values(label)
        seen.values.update(values)
        if values == [0]:
            message = "the label map holds only background; remove it from the cohort to use the case without label"
            findings.append(Finding(fault_path(label.path), "EMPTY_MASK", "warning", message))
    return findings


def _remember(case: Case, image: Volume, seen: _Seen) -> None:
    digest = hashlib.sha256(f"{image.data.shape} {image.data.dtype}".encode())
    digest.update(image.data.tobytes())
    seen.contents.setdefault(digest.hexdigest(), []).append(case)
    seen.shapes.append(image.spatial_shape)
    seen.spacings.append(image.spacing)


def _header_findings(case: Case, seen: _Seen) -> list[Finding]:
    for path in (*case.images, *([case.label] if case.label else [])):
        if path.is_dir():
            if not is_dicom_folder(path):
                raise InputFault(path, "NO_DICOM", "no DICOM file in this folder", "give the folder of one series")
        else:
            header = peek_header(path)
            if path in case.images:
                seen.shapes.append(header.shape[:3])
                seen.spacings.append(tuple(float(v) for v in header.nibabel.get_zooms()[:3]))
    seen.contents.setdefault(content_hash(case), []).append(case)
    return []


def _duplicates(seen: _Seen) -> list[Finding]:
    findings = []
    for cases in seen.contents.values():
        if len(cases) < 2:
            continue
        patients = {case.patient_id for case in cases}
        names = ", ".join(case.case_id for case in cases[:5]) + (
            f" and {len(cases) - 5} more" if len(cases) > 5 else ""
        )
        whose = (
            "one patient" if len(patients) == 1 else f"{len(patients)} patients, so that a split by patient would leak"
        )
        message = f"the cases {names} have the same image content; they are of {whose}"
        severity: Severity = "warning" if len(patients) == 1 else "error"
        findings.append(Finding(fault_path(cases[0].images[0]), "DUPLICATE_CONTENT", severity, message))
    return findings


def _summary(cohort: Cohort, sound: int, seen: _Seen) -> str:
    cases = cohort.cases
    labelled = sum(case.label is not None for case in cases)
    parts = [
        f"{len(cases)} cases ({sound} without a fault) of {len({case.patient_id for case in cases})} patients",
        f"{labelled} labelled, {len(cases) - labelled} unlabelled",
    ]
    if cohort.class_names:
        counts = Counter(case.class_name or "without class" for case in cases)
        parts.append("classes: " + ", ".join(f"{name} {counts[name]}" for name in sorted(counts)))
    if splits := Counter(case.split for case in cases if case.split):
        parts.append("splits: " + ", ".join(f"{name} {splits[name]}" for name in sorted(splits)))
    if seen.shapes:
        parts.append(f"voxels {_range(seen.shapes, 'x', 'd')}")
        parts.append(f"spacing {_range(seen.spacings, 'x', '.3g')} mm")
    if seen.values:
        declared = "" if cohort.label_names else " (no names declared)"
        parts.append(f"label values {', '.join(map(str, sorted(seen.values)))}{declared}")
    if cohort.channels > 1:
        parts.append(f"{cohort.channels} channels")
    return "; ".join(parts)


def _range(rows: list[tuple[int, ...]] | list[tuple[float, ...]], cross: str, form: str) -> str:
    """Write the least and the most along each axis."""
    array = np.array([row[:3] + (1,) * (3 - len(row[:3])) for row in rows])
    least, most = (
        cross.join(format(v, form) for v in ends.tolist()) for ends in (array.min(axis=0), array.max(axis=0))
    )
    return least if least == most else f"{least} to {most}"
