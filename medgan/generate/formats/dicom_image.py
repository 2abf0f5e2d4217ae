"""A volume as a DICOM series: CT or MR Image Storage (PS3.3 A.3 and A.4), one file a slice, nothing of the source.

Every attribute is written anew, so none that could identify a person can be carried over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from medgan.data.nifti import stored_values
from medgan.data.volume import Volume

MODALITIES = {"ct": "CT", "mri": "MR"}
SYNTHESIZING = ("109100", "DCM", "Synthesizing Equipment")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
STATEMENT = "Synthetic volume made by medgan from a transformed scan. Not for diagnosis."


@dataclass(frozen=True)
class Identity:
    """Who a synthetic study is.

    Attributes:
        names: what decides the UIDs: checkpoint, source, seed, index and the like.
        patient: pseudonym, the same for all siblings of one patient.
        contribution: how it was made, for the contributing equipment.
        version: of medgan.
    """

    names: tuple[str, ...]
    patient: str
    contribution: str
    version: str

    def uid(self, *role: object) -> str:
        """Return a UID (PS3.5 B.2, from a UUID) that is a function of the names and the role alone."""
        text = "\x1f".join([*self.names, *map(str, role)])
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
        number = number & ~(0xF << 76) | (0x8 << 76)  # version 8: made by a rule of one's own (RFC 9562)
        number = number & ~(0x3 << 62) | (0x2 << 62)
        return f"2.25.{number}"


@dataclass(frozen=True, eq=False)
class Stored:
    """Stored values and the scale that gives the real ones back: ``real = pixels * slope + intercept``."""

    pixels: NDArray[np.integer[Any]]
    slope: float
    intercept: float


def to_stored(data: NDArray[Any], like: Volume) -> Stored:
    """Return ``(X, Y, Z)`` real values in 16 bits: exactly where they are whole numbers or the source had 16 bits.

    Else, of a float source, in 65,536 steps between smallest and largest value, so within half such a step.
    """
    kind = np.dtype(like.dtype)
    if kind.kind in "iub" and kind.itemsize <= 2:
        narrow = stored_values(data, like)
        wide = narrow.astype(np.int16 if kind.kind == "i" else np.uint16)
        return Stored(wide, _decimal(like.slope), _decimal(like.intercept))
    low, high = float(data.min()), float(data.max())
    if kind.kind in "iu" or np.array_equal(data, np.rint(data)):
        for whole in (np.dtype(np.int16), np.dtype(np.uint16)):
            if np.iinfo(whole).min <= low and high <= np.iinfo(whole).max:
                return Stored(np.rint(data).astype(whole), 1.0, 0.0)
    # The header has room for sixteen characters: the pixels must fit the numbers it says.
    intercept, slope = _decimal(low), _decimal((high - low) / 65535 * (1 + 1e-9)) if high > low else 1.0
    steps = np.rint((data.astype(np.float64) - intercept) / slope)
    return Stored(np.clip(steps, 0, 65535).astype(np.uint16), slope, intercept)


def series(
    stored: Stored,
    affine: NDArray[np.float64],
    modality: str,
    identity: Identity,
    window: tuple[float, float],
    number: int,
) -> Iterator[Dataset]:
    """Yield the slices' data sets, in the order of the third axis.

    Args:
        stored: values ``(X, Y, Z)``; X becomes the columns, Y the rows.
        affine: ``(4, 4)`` voxel to RAS mm.
        modality: ``CT`` or ``MR``.
        identity: of the study.
        window: centre and width to show it with, in real units.
        number: of the series in its study, from 1.
    """
    lps = LPS @ affine
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
    row, column, along = (lps[:3, axis] / spacing[axis] for axis in range(3))
    count = stored.pixels.shape[2]
    # Numbers ascend along the normal of rows and columns, as readers expect, whichever way the third axis runs.
    ascending = float(np.cross(row, column) @ along) > 0
    for k in range(count):
        ds = _base(modality, identity, number)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = identity.uid("image", number, k)
        ds.InstanceNumber = k + 1 if ascending else count - k
        position = lps[:3, :3] @ [0, 0, k] + lps[:3, 3]
        ds.ImagePositionPatient = [_ds(v) for v in position]
        ds.ImageOrientationPatient = [_ds(v) for v in (*row, *column)]
        ds.PixelSpacing = [_ds(spacing[1]), _ds(spacing[0])]
        ds.SliceThickness = _ds(spacing[2])
        if modality == "MR":
            ds.SpacingBetweenSlices = _ds(spacing[2])
        ds.WindowCenter, ds.WindowWidth = (_ds(v) for v in window)
        _set_pixels(ds, stored, k, modality)
        yield ds


def dicom_bytes(ds: Dataset) -> bytes:
    """Return the DICOM file of a data set."""
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def mark_synthetic(ds: Dataset, identity: Identity) -> None:
    """Say in the standard's own words that an object is synthetic, and what made it."""
    ds.SyntheticData = "YES"
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = SYNTHESIZING
    equipment = Dataset()
    equipment.Manufacturer = equipment.ManufacturerModelName = "medgan"
    equipment.SoftwareVersions = identity.version
    equipment.ContributionDescription = identity.contribution
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    ds.ContributingEquipmentSequence = [equipment]


def _base(modality: str, identity: Identity, number: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    mark_synthetic(ds, identity)
    ds.PatientName, ds.PatientID = f"Synthetic^{identity.patient}", identity.patient
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Synthetic: no attribute of a source was copied"
    ds.StudyInstanceUID = identity.uid("study")
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.StudyID = ds.AccessionNumber = ""
    ds.StudyDescription = ds.SeriesDescription = "medgan synthetic"
    ds.Modality = modality
    ds.SeriesInstanceUID, ds.SeriesNumber = identity.uid("series", number), number
    ds.Laterality = ds.PatientPosition = ""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = identity.uid("frame of reference"), ""
    ds.Manufacturer = ds.ManufacturerModelName = "medgan"
    ds.SoftwareVersions = identity.version
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
    ds.AcquisitionNumber = None
    ds.DerivationDescription = STATEMENT
    if modality == "CT":
        ds.KVP = None
    else:
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "RM", "NONE", "", "3D"
        ds.RepetitionTime = ds.EchoTime = ds.EchoTrainLength = None
    return ds


def _set_pixels(ds: Dataset, stored: Stored, k: int, modality: str) -> None:
    ds.Columns, ds.Rows = stored.pixels.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(stored.pixels.dtype.kind == "i")
    if modality == "CT" or (stored.slope, stored.intercept) != (1.0, 0.0):
        ds.RescaleSlope, ds.RescaleIntercept = _ds(stored.slope), _ds(stored.intercept)
        ds.RescaleType = "HU" if modality == "CT" else "US"
    ds.PixelData = np.ascontiguousarray(stored.pixels[:, :, k].T).astype("<" + stored.pixels.dtype.str[1:]).tobytes()
    ds["PixelData"].VR = "OW"


def _ds(value: float) -> str:
    return str(format_number_as_ds(float(value)))


def _decimal(value: float) -> float:
    """Return the number that the header's sixteen characters say."""
    return float(_ds(value))
