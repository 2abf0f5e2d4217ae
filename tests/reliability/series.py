"""A DICOM series being made, with a patient's name, dates and identifiers planted in every header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

CANARIES = {
    "PatientName": "CANARYNAME^Quentin",
    "PatientID": "CANARYID-4711",
    "PatientBirthDate": "19031207",
    "StudyDate": "19870923",
    "SeriesDate": "19870924",
    "AcquisitionDate": "19870925",
    "ReferringPhysicianName": "CANARYDOCTOR^Anna",
    "InstitutionName": "CANARYHOSPITAL",
    "AccessionNumber": "CANARYACC99",
    "StudyID": "CANARYSTUDY",
    "StudyDescription": "CANARYSTUDYTEXT",
    "PatientComments": "CANARYCOMMENT",
    "StationName": "CANARYSTATION",
}


def make_slices(seed: int = 0, count: int = 7, shape: tuple[int, int] = (22, 20), step: float = 2.5) -> list[Dataset]:
    """Return upright CT slices with a bright ball in the middle."""
    rng = np.random.default_rng(seed)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    grid = np.indices((count, *shape)) - np.reshape([(n - 1) / 2 for n in (count, *shape)], (3, 1, 1, 1))
    inside = (grid**2).sum(axis=0) <= rng.uniform(5, 7) ** 2
    pixels = (rng.normal(1000, 30, inside.shape) + 400 * inside).astype(np.int16)
    slices = []
    for index in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
        ds.SeriesNumber, ds.Modality, ds.InstanceNumber = "3", "CT", str(index + 1)
        for name, value in CANARIES.items():
            setattr(ds, name, value if name != "PatientID" else f"{value}-{seed}")
        ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        ds.ImagePositionPatient = ["-20", "30", f"{5 + index * step:.10g}"]
        ds.PixelSpacing, ds.SliceThickness = ["2", "2"], "2.5"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        ds.PixelData = pixels[index].tobytes()
        slices.append(ds)
    return slices


def write_slices(folder: Path, slices: list[Dataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(slices):
        ds.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return folder


def canaries(slices: list[Dataset]) -> list[bytes]:
    """Everything planted that must appear nowhere else."""
    uids = {ds[name].value for ds in slices for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")}
    words = {part for value in CANARIES.values() for part in value.split("^") if not part.isdigit()}
    dates = {value for value in CANARIES.values() if value.isdigit()}
    return sorted(text.encode() for text in {*uids, *words, *dates, slices[0].PatientID})
