"""The stored pixel values of one DICOM file, whatever their compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.uid import UID, AllTransferSyntaxes, RLELossless

from medgan.errors import InputFault

_PACKAGES = "install pylibjpeg[all] (or python-gdcm), or decompress the files first"


def read_pixels(path: Path, slope: float, intercept: float) -> NDArray[Any]:
    """Return the pixels as stored, ``(rows, columns)`` or ``(frames, rows, columns)``.

    Args:
        path: a DICOM file with greyscale pixels.
        slope, intercept: the rescale of its header, taken out again where the decoder applies it.

    Raises:
        InputFault: ``TRUNCATED``, ``CORRUPT``, or ``NO_DECODER`` with the name of the compression.
        Exception: whatever pydicom raises for a damaged file.
    """
    syntax = UID(str(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID))
    if syntax not in AllTransferSyntaxes:
        raise InputFault(path, "NO_DECODER", f"the transfer syntax {syntax} is not known", _PACKAGES)
    dataset = pydicom.dcmread(path, force=False)
    incomplete = not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    if incomplete:
        raise InputFault(path, "TRUNCATED", "the file ends before or within its pixels", "copy it again")
    # SimpleITK decodes every JPEG family and is always installed; pydicom alone knows the length of plain pixels.
    if not syntax.is_encapsulated or syntax == RLELossless:
        return _decoded(path, dataset)
    if int(dataset.get("NumberOfFrames") or 1) == 1:
        pixels = _by_simpleitk(path, slope, intercept, dataset)
        if pixels is not None:
            return pixels
    if not _has_decoder(syntax):
        raise InputFault(path, "NO_DECODER", f"the pixels are compressed as {syntax.name}", _PACKAGES)
    return _decoded(path, dataset)


def _decoded(path: Path, dataset: Any) -> NDArray[Any]:
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:
        short = "less than expected" in str(error)
        reason = (
            "the pixels are fewer than the header says"
            if short
            else f"the pixels cannot be decoded ({type(error).__name__})"
        )
        raise InputFault(path, "TRUNCATED" if short else "CORRUPT", reason, "copy it again") from error


def _has_decoder(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _by_simpleitk(path: Path, slope: float, intercept: float, dataset: Any) -> NDArray[Any] | None:
    """Decode with SimpleITK, which applies the rescale; ``None`` where it cannot."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
        values = sitk.GetArrayFromImage(image)[0]
    except RuntimeError:
        return None
    if values.ndim != 2:
        return None
    bits, signed = int(dataset.BitsAllocated), int(dataset.get("PixelRepresentation") or 0)
    kind = np.dtype(f"{'i' if signed else 'u'}{max(1, bits // 8)}")
    stored: NDArray[Any] = np.rint((values.astype(np.float64) - intercept) / slope).astype(kind)
    return stored
