"""Where the slices of a DICOM series lie: on one line along their common normal, evenly, each once – or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgan.data.validate import MIN_AXIS, SHEAR_TOLERANCE
from medgan.errors import InputFault

TILT_TOLERANCE = 0.1
"""Largest angle between the slices' normal and the line through their positions, degrees."""
GAP_TOLERANCE = 0.01
"""Largest deviation of a gap from the usual one, as a share of it."""
ROUNDING = 0.01
"""Positions are written in decimals: differences below this are none, mm."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: where its pixels are and where it lies (LPS mm)."""

    path: Path
    frame: int | None
    instance: str
    rows: int
    columns: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float
    intercept: float
    thickness: float | None
    tilt: float
    number: int | None


def ordered(folder: Path, slices: list[Slice]) -> tuple[list[Slice], float]:
    """Return the slices in order along their normal, and the mm between them.

    Raises:
        InputFault: they do not belong to one even, untilted stack.
    """
    _require_alike(folder, slices)
    normal = _axes(slices[0])[2]
    slices = sorted(slices, key=lambda part: float(part.position @ normal))
    if len(slices) < MIN_AXIS:
        reason = f"{len(slices)} slice{'s' * (len(slices) > 1)}, but at least {MIN_AXIS} are needed"
        raise InputFault(folder, "TOO_FEW_SLICES", reason, "give the whole series")
    along = np.array([float(part.position @ normal) for part in slices])
    _require_single(folder, slices, along)
    _require_upright(folder, slices, normal, along)
    return slices, _require_even(folder, slices, along)


def ras_affine(slices: list[Slice], spacing: float) -> NDArray[np.float64]:
    """Return the affine from (column, row, slice) to RAS mm; DICOM's own frame is LPS."""
    row, column, normal = _axes(slices[0])
    between_rows, between_columns = slices[0].spacing
    affine = np.eye(4)
    affine[:3, 0] = row * between_columns
    affine[:3, 1] = column * between_rows
    affine[:3, 2] = normal * spacing
    affine[:3, 3] = slices[0].position
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, np.float64)


def _axes(part: Slice) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return unit vectors along a row, along a column, and their normal; the decimals' rounding is taken out."""
    row = part.orientation[:3] / np.linalg.norm(part.orientation[:3])
    column = part.orientation[3:] - (part.orientation[3:] @ row) * row
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _require_alike(folder: Path, slices: list[Slice]) -> None:
    first = slices[0]
    for part in slices:
        row, column = part.orientation[:3], part.orientation[3:]
        if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > 2 * SHEAR_TOLERANCE:
            reason = "the ImageOrientationPatient is not two unit vectors at a right angle"
            raise InputFault(part.path, "SHEARED_AFFINE", reason, "export it again")
        if (part.rows, part.columns) != (first.rows, first.columns):
            reason = f"slices of {part.rows}x{part.columns} and of {first.rows}x{first.columns} in one series"
            raise InputFault(folder, "SLICE_MISMATCH", reason, "remove localizers, or give the slices of one stack")
        if not np.allclose(part.orientation, first.orientation, atol=SHEAR_TOLERANCE):
            raise InputFault(
                folder, "SLICE_MISMATCH", "slices of different orientation in one series", "give one stack alone"
            )
        if not np.allclose(part.spacing, first.spacing, rtol=SHEAR_TOLERANCE):
            raise InputFault(
                folder, "SLICE_MISMATCH", "slices of different pixel spacing in one series", "give one stack alone"
            )


def _require_single(folder: Path, slices: list[Slice], along: NDArray[np.float64]) -> None:
    """Refuse two slices in one place; a whole stack repeated is time, echo or direction, and so 4-D."""
    same = np.diff(along) < ROUNDING
    if not same.any():
        return
    counts = np.diff(np.flatnonzero(np.concatenate([[True], ~same, [True]])))
    instances = {(part.instance, part.frame) for part in slices}
    if len(counts) >= MIN_AXIS and len(set(counts.tolist())) == 1 and len(instances) == len(slices):
        reason = f"{counts[0]} slices at each of {len(counts)} positions: several times, echoes or directions"
        raise InputFault(folder, "FOUR_DIMENSIONAL", reason, "give one of them in a folder of its own")
    places = _places(along[1:][same])
    reason = f"slices lie where others lie already, {int(same.sum())} too many (at {places} mm along the normal)"
    raise InputFault(folder, "DUPLICATE_SLICE", reason, "remove the copies")


def _require_upright(
    folder: Path, slices: list[Slice], normal: NDArray[np.float64], along: NDArray[np.float64]
) -> None:
    offsets = np.array([part.position - slices[0].position for part in slices])
    lateral = offsets - np.outer(along - along[0], normal)
    drift = np.linalg.norm(lateral, axis=1)
    angle = float(np.degrees(np.arctan2(drift[-1], along[-1] - along[0])))
    if angle > TILT_TOLERANCE and drift[-1] > 5 * ROUNDING:
        raise _tilted(folder, angle, "the positions run")
    steady = np.outer((along - along[0]) / (along[-1] - along[0]), lateral[-1])
    stray = float(np.linalg.norm(lateral - steady, axis=1).max())
    if stray > max(5 * ROUNDING, 0.1 * min(slices[0].spacing)):
        reason = f"the slices are shifted against each other in their plane, by up to {stray:.3g} mm"
        raise InputFault(folder, "SLICE_MISMATCH", reason, "resample it onto a straight stack")
    # Some scanners tilt the gantry and yet write an upright orientation: then the header contradicts itself.
    stated = max((abs(part.tilt) for part in slices), default=0.0)
    if stated > 5 * TILT_TOLERANCE and abs(normal[2]) > np.cos(np.radians(TILT_TOLERANCE)):
        raise _tilted(folder, stated, "GantryDetectorTilt says that the slices lie")


def _tilted(folder: Path, angle: float, what: str) -> InputFault:
    reason = f"gantry tilt: {what} {angle:.2f} degrees off the slices' normal"
    return InputFault(folder, "GANTRY_TILT", reason, "resample it onto an upright grid")


def _require_even(folder: Path, slices: list[Slice], along: NDArray[np.float64]) -> float:
    gaps = np.diff(along)
    mean = float(along[-1] - along[0]) / len(gaps)
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() <= max(ROUNDING, GAP_TOLERANCE * usual):
        return mean
    unit = _unit(slices, gaps)
    if unit is not None:
        steps = np.rint(gaps / unit)
        missing = [
            float(start + k * unit) for start, n in zip(along[:-1], steps, strict=True) for k in range(1, int(n))
        ]
        verb = "slice is" if len(missing) == 1 else "slices are"
        reason = (
            f"{len(missing)} {verb} missing (at {_places(np.array(missing))} mm along the normal, {unit:.4g} mm apart)"
        )
        raise InputFault(folder, "MISSING_SLICE", reason, "fetch the whole series again")
    reason = f"the slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart"
    raise InputFault(folder, "SLICE_SPACING", reason, "resample it onto even slices")


def _unit(slices: list[Slice], gaps: NDArray[np.float64]) -> float | None:
    """Return the gap of which all gaps are multiples, or ``None``: then it is the spacing itself that varies."""
    if len({part.thickness for part in slices}) > 1:
        return None
    candidates = [float(gaps.min())]
    numbers = [part.number for part in slices if part.number is not None]
    if len(numbers) == len(slices) and (steps := np.abs(np.diff(numbers))).all():
        candidates.append(float(np.median(gaps / steps)))
    for unit in candidates:
        if np.abs(gaps - np.rint(gaps / unit) * unit).max() <= max(2 * ROUNDING, 0.05 * unit):
            return unit
    return None


def _places(values: NDArray[np.float64], limit: int = 8) -> str:
    shown = ", ".join(f"{value:.2f}" for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
