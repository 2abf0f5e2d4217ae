"""Cohorts that are just folders: of NIfTI files, or of DICOM series."""

from __future__ import annotations

import logging
from pathlib import Path

from medgan.data.case import Case, Cohort, Report
from medgan.data.dicom_headers import is_dicom_folder, patient_digest, series_modality
from medgan.data.nifti import NIFTI_SUFFIXES, nifti_stem
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

_LAYOUTS = (("images", "labels"), ("imagesTr", "labelsTr"))
_ACCEPTED = "give a CSV manifest, a dataset.json, or a folder of NIfTI files or DICOM series"


def read_folder(folder: Path, report: Report) -> Cohort:
    """Read a folder without a description: ``images/`` and ``labels/``, NIfTI files, or DICOM series.

    Raises:
        InputFault: ``EMPTY_COHORT`` where there are none of these.
    """
    for images, labels in _LAYOUTS:
        if (folder / images).is_dir() and (files := nifti_files(folder / images)):
            return Cohort(folder, tuple(_paired(folder / labels, files)))
    if files := nifti_files(folder):
        return Cohort(folder, tuple(nifti_case(file) for file in files))
    series = (
        [folder]
        if is_dicom_folder(folder)
        else [sub for sub in sorted(folder.iterdir()) if sub.is_dir() and is_dicom_folder(sub)]
    )
    if not series:
        raise InputFault(folder, "EMPTY_COHORT", "no cases in this folder", _ACCEPTED)
    cases, modality = [], None
    for sub in series:
        try:
            modality = modality or series_modality(sub)
            cases.append(Case(sub.resolve().name, patient_digest(sub), (sub,)))
        except InputFault as fault:
            report(fault)
    return Cohort(folder, tuple(cases), modality=modality)


def nifti_files(folder: Path) -> list[Path]:
    """List the NIfTI files of a folder by name; hidden files are no cases."""
    return sorted(
        file for file in folder.iterdir() if file.name.endswith(NIFTI_SUFFIXES) and not file.name.startswith(".")
    )


def nifti_case(file: Path, label: Path | None = None) -> Case:
    """Return a file as a case of its own patient."""
    return Case(nifti_stem(file), nifti_stem(file), (file,), label)


def _paired(folder: Path, files: list[Path]) -> list[Case]:
    labels = {nifti_stem(file): file for file in nifti_files(folder)} if folder.is_dir() else {}
    cases = [nifti_case(file, labels.pop(nifti_stem(file), None)) for file in files]
    if labels:
        logger.warning(
            "%s: %d label maps have no image, e.g. %s", folder, len(labels), next(iter(labels.values())).name
        )
    return cases
