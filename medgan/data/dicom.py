"""A DICOM series as one volume: every slice accounted for, geometry from positions and orientation, rescale a slice.

Common readers average the spacing over a missing slice or shear a tilted stack in silence; here each is refused.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.data.dicom_geometry import Slice, ordered, ras_affine
from medgan.data.dicom_headers import is_dicom_folder, parsing, read_headers, slices_of
from medgan.data.dicom_pixels import read_pixels
from medgan.data.validate import require_budget, require_image
from medgan.data.volume import Volume
from medgan.errors import InputFault

__all__ = ["is_dicom_folder", "read_dicom_series"]

logger = logging.getLogger(__name__)


def read_dicom_series(folder: Path, series: str | None = None) -> Volume:
    """Read the one image series in a folder.

    Args:
        folder: holds the files of the series; other DICOM objects and other files beside it are passed over.
        series: SeriesInstanceUID of the one wanted, where the folder holds several.

    Returns:
        The volume: ``data`` ``(1, columns, rows, slices)`` in rescaled units, slices ordered along their normal,
        ``affine`` to RAS mm. Where slope and intercept are the same in every slice they and the stored type are kept.

    Raises:
        InputFault: a slice is missing, double or damaged, spacing varies, the stack is tilted, the folder holds several
            series, colours or a compression that cannot be decoded, or a rescale is not finite.
    """
    folder = Path(folder)
    headers = read_headers(folder)
    if not headers:
        raise InputFault(
            folder, "NO_DICOM", "no DICOM file with slices in this folder", "give the folder of one series"
        )
    chosen = _choose_series(folder, headers, series)
    for path, header in chosen:
        with parsing(path):
            _require_grey(path, header)
    slices, spacing = ordered(folder, [part for path, header in chosen for part in slices_of(path, header)])
    rows, columns = slices[0].rows, slices[0].columns
    require_budget(folder, rows * columns * len(slices) * 4)
    stored = _stack(slices, rows, columns)
    data, dtype, slope, intercept = _rescaled(stored, slices)
    volume = Volume(data[None], ras_affine(slices, spacing), folder, dtype, slope, intercept)
    require_image(volume)
    return volume


def _choose_series(folder: Path, headers: list[tuple[Path, Any]], series: str | None) -> list[tuple[Path, Any]]:
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for path, header in headers:
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    listing = "; ".join(_described(uid, [header for _, header in group]) for uid, group in groups.items())
    if series is not None:
        if series not in groups:
            raise InputFault(folder, "UNKNOWN_SERIES", f"no series {series} among: {listing}", "give one of these UIDs")
        return groups[series]
    if len(groups) > 1:
        remedy = "give each a folder of its own, or choose one by its UID (the manifest's column `series`, or --series)"
        raise InputFault(folder, "SEVERAL_SERIES", f"{len(groups)} series: {listing}", remedy)
    return next(iter(groups.values()))


def _described(uid: str, headers: list[Any]) -> str:
    first = headers[0]
    description = str(first.get("SeriesDescription") or "no description")
    return f"{uid} (number {first.get('SeriesNumber')}, {first.get('Modality')}, {description!r}, {len(headers)} files)"


def _require_grey(path: Path, header: Any) -> None:
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(header.get("SamplesPerPixel") or 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise InputFault(path, "RGB", f"the pixels are colours ({photometric})", "give the original intensities")
    if photometric == "MONOCHROME1":
        reason = "the pixels are MONOCHROME1: low values are bright"
        raise InputFault(path, "PHOTOMETRIC", reason, "export it as MONOCHROME2")


def _stack(slices: list[Slice], rows: int, columns: int) -> NDArray[Any]:
    """Return the stored values, ``(columns, rows, slices)``."""
    stored: NDArray[Any] | None = None
    frames: NDArray[Any] | None = None
    for index, part in enumerate(slices):
        if part.frame is None or frames is None:
            with parsing(part.path):
                frames = read_pixels(part.path, part.slope, part.intercept)
        pixels = frames if part.frame is None else frames[part.frame]
        if pixels.shape != (rows, columns):
            raise InputFault(
                part.path, "CORRUPT", f"the pixels are {pixels.shape}, not {(rows, columns)}", "copy it again"
            )
        if stored is None:
            stored = np.empty((columns, rows, len(slices)), pixels.dtype, order="F")
        if not np.can_cast(pixels.dtype, stored.dtype):
            stored = stored.astype(np.promote_types(pixels.dtype, stored.dtype))
        stored[:, :, index] = pixels.T
    if stored is None:
        raise ValueError("a stack needs slices")
    return stored


def _rescaled(stored: NDArray[Any], slices: list[Slice]) -> tuple[NDArray[Any], np.dtype[np.generic], float, float]:
    """Apply each slice's own slope and intercept; return values and the scale to store them with again."""
    slopes = np.array([part.slope for part in slices])
    intercepts = np.array([part.intercept for part in slices])
    slope, intercept = float(slopes[0]), float(intercepts[0])
    if np.ptp(slopes) or np.ptp(intercepts):
        logger.info("%s: slope and intercept differ between slices; applied to each", slices[0].path.parent)
        values = (stored * slopes + intercepts).astype(np.float32)
        return values, values.dtype, 1.0, 0.0
    if (slope, intercept) == (1.0, 0.0):
        return stored, stored.dtype, slope, intercept
    if slope == 1 and intercept.is_integer() and stored.dtype.itemsize <= 2 and abs(intercept) < 2**30:
        whole = stored.astype(np.int32) + np.int32(intercept)
        fits = whole.min() >= -(2**15) and whole.max() < 2**15
        return whole.astype(np.int16) if fits else whole, stored.dtype, slope, intercept
    kind = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    return (stored * slope + intercept).astype(kind), stored.dtype, slope, intercept
