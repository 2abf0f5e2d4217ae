"""The headers of a folder's DICOM files. Of what identifies a person only a hash of the PatientID is given back."""

from __future__ import annotations

import functools
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from medgan.data.dicom_geometry import Slice
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

# All that is read of a header.
_TAGS = [
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "SOPInstanceUID", "InstanceNumber",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "GantryDetectorTilt",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
# Objects that lie beside a series and have no slices of it, although some have rows and columns.
_NO_SLICES = {
    "SEG",
    "SR",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "RTRECORD",
    "PR",
    "KO",
    "REG",
    "FID",
    "DOC",
    "AU",
    "ECG",
    "PLAN",
}
_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
_MODALITIES = {"MR": "mri", "CT": "ct"}
_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
_AGAIN = "copy it again"


def is_dicom_folder(folder: Path) -> bool:
    """Whether ``folder`` itself holds at least one DICOM file."""
    return folder.is_dir() and any(_is_dicom_file(path) for path in _files(folder))


def read_headers(folder: Path) -> list[tuple[Path, Any]]:
    """Read the headers of all DICOM files with slices in ``folder``, in the order of their names.

    Raises:
        InputFault: a file that claims by its name or its first bytes to be DICOM is empty or damaged.
    """
    headers = ((path, _read_header(path)) for path in _files(folder))
    return [(path, header) for path, header in headers if header is not None]


def series_digest(uid: str) -> str:
    """Return the SHA-256 of a SeriesInstanceUID, by which a record names a series without repeating its header."""
    return hashlib.sha256(uid.encode()).hexdigest()


def find_series(folder: Path, digest: str) -> str:
    """Return the SeriesInstanceUID in ``folder`` whose :func:`series_digest` this is.

    Raises:
        InputFault: ``UNKNOWN_SERIES``: the folder holds none, or a file in it is damaged.
    """
    uids = {str(header.get("SeriesInstanceUID", "")) for _, header in read_headers(folder)}
    for uid in uids:
        if series_digest(uid) == digest:
            return uid
    reason = f"none of its {len(uids)} series is the recorded one"
    raise InputFault(folder, "UNKNOWN_SERIES", reason, "put the recorded series back")


def series_modality(folder: Path) -> str | None:
    """Return ``ct`` or ``mri`` (another modality in lower case) of the first slice, or ``None``."""
    for path in _files(folder):
        header = _read_header(path)
        if header is not None:
            modality = str(header.get("Modality") or "")
            return _MODALITIES.get(modality, modality.lower()) or None
    return None


def patient_digest(folder: Path) -> str:
    """Return twelve hexadecimal digits that stand for the PatientID, or the folder's name where there is none.

    The same in every cohort, so that a patient is recognised. Medical record numbers are short: a slow hash makes
    trying them all costly, not impossible, so the digits are a pseudonym and not anonymous.
    """
    for path in filter(_is_dicom_file, _files(folder)):
        with parsing(path):
            header = pydicom.dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True)
            identity = str(header.get("PatientID") or "").strip()
        if identity:
            return pseudonym(identity)
    return folder.resolve().name


@functools.lru_cache(maxsize=100_000)
def pseudonym(identity: str) -> str:
    """Return twelve hexadecimal digits that stand for an identifier, always the same; see :func:`patient_digest`."""
    return hashlib.scrypt(identity.encode(), salt=b"medgan PatientID", n=2**14, r=8, p=1, dklen=6).hex()


def slices_of(path: Path, header: Any) -> list[Slice]:
    """List the slices of one file: itself, or the frames of an enhanced multi-frame object.

    Raises:
        InputFault: position, orientation, spacing or rescale are absent or not finite.
    """
    with parsing(path):
        frames = int(header.get("NumberOfFrames") or 1)
        groups = header.get("PerFrameFunctionalGroupsSequence")
        if (frames > 1 or groups) and len(groups or []) != frames:
            reason = f"{frames} frames with {len(groups or [])} positions"
            raise InputFault(path, "MULTI_FRAME", reason, "export it as one file a slice")
        if not groups:
            return [_slice(path, None, header, [header])]
        shared = [item for group in header.get("SharedFunctionalGroupsSequence") or [] for item in _parts(group)]
        return [_slice(path, number, header, [*_parts(group), *shared]) for number, group in enumerate(groups)]


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Turn whatever a foreign parser raises into a fault of the file, and keep its values to itself.

    Warnings and the text of errors are dropped: they quote header values, which may name the patient.
    """
    log = logging.getLogger("pydicom")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputFault:
        raise
    except Exception as error:
        raise InputFault(path, "CORRUPT", f"the file is damaged ({type(error).__name__})", _AGAIN) from error
    finally:
        log.setLevel(before)


def _files(folder: Path) -> list[Path]:
    try:
        return [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError) as error:
        raise InputFault(
            folder, "MISSING_FILE", "there is no such folder, or it cannot be read", "mend the path"
        ) from error


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" and path.name.upper() != "DICOMDIR"
    except OSError as error:
        raise InputFault(
            path, "UNREADABLE", f"it cannot be read ({error.strerror})", "check its permissions"
        ) from error


def _read_header(path: Path) -> Any | None:
    """Read one header; ``None`` for what is no DICOM or has no slices."""
    if not _is_dicom_file(path):
        if path.suffix.lower() in _DICOM_SUFFIXES:
            empty = path.stat().st_size == 0
            reason = "the file is empty" if empty else "it does not begin as a DICOM file does"
            raise InputFault(path, "TRUNCATED" if empty else "CORRUPT", reason, f"{_AGAIN} or remove it")
        logger.debug("%s: passed over: not a DICOM file", path)
        return None
    with parsing(path):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=False, specific_tags=_TAGS)
        kind = UID(header.file_meta.MediaStorageSOPClassUID).name
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        for name in _TAGS:  # values are converted on access: whatever cannot be is found here
            header.get(name)
    if str(header.get("Modality")) in _NO_SLICES:
        return None
    if rows and columns:
        return header
    if kind.endswith("Image Storage"):
        raise InputFault(path, "TRUNCATED", "the header of the slice ends early", _AGAIN)
    return None


def _parts(group: Any) -> list[Any]:
    """Return the items of a functional group's sequences, where position, spacing and rescale stand."""
    return [item for name in _GROUPS for item in (group.get(name) or [])[:1]]


def _slice(path: Path, frame: int | None, header: Any, parts: Sequence[Any]) -> Slice:
    orientation = _numbers(path, parts, "ImageOrientationPatient", 6)
    position = _numbers(path, parts, "ImagePositionPatient", 3)
    spacing = _numbers(path, parts, "PixelSpacing", 2)
    if orientation is None or position is None or spacing is None or min(spacing) <= 0:
        reason = "a slice without a usable position, orientation or pixel spacing"
        raise InputFault(path, "NO_GEOMETRY", reason, "export the original slices, not screen captures")
    if header.get("ModalityLUTSequence"):
        raise InputFault(
            path, "SCALE", "the values need a modality look-up table", "export it with slope and intercept"
        )
    slope = _number(path, parts, "RescaleSlope", "SCALE")
    if slope == 0:
        raise InputFault(path, "SCALE", "the RescaleSlope is 0", "export it again with its true scale")
    number = _number(path, [header], "InstanceNumber")
    return Slice(
        path=path,
        frame=frame,
        instance=str(header.get("SOPInstanceUID", "")),
        rows=int(header.Rows),
        columns=int(header.Columns),
        position=np.array(position),
        orientation=np.array(orientation),
        spacing=(spacing[0], spacing[1]),
        slope=1.0 if slope is None else slope,
        intercept=_number(path, parts, "RescaleIntercept", "SCALE") or 0.0,
        thickness=_number(path, parts, "SliceThickness"),
        tilt=_number(path, [header], "GantryDetectorTilt") or 0.0,
        number=None if number is None or frame is not None else int(number),
    )


def _number(path: Path, parts: Sequence[Any], name: str, code: str = "NO_GEOMETRY") -> float | None:
    found = _numbers(path, parts, name, 1, code)
    return found[0] if found else None


def _numbers(path: Path, parts: Sequence[Any], name: str, count: int, code: str = "NO_GEOMETRY") -> list[float] | None:
    """Return the first ``name`` among ``parts`` as finite numbers, or ``None`` where it is absent or empty."""
    for part in parts:
        try:
            value = part.get(name)
            if value is None or value == "":
                continue
            several = isinstance(value, Sequence) and not isinstance(value, str)
            numbers = [float(v) for v in value] if several else [float(value)]
        except (ValueError, OverflowError, TypeError):
            numbers = [float("nan")]
        if not numbers:
            continue
        if len(numbers) != count or not np.isfinite(numbers).all():
            wanted = "a finite number" if count == 1 else f"{count} finite numbers"
            raise InputFault(path, code, f"{name} is not {wanted}", "export it again")
        return numbers
    return None
