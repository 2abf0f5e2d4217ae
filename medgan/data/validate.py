"""The one gate every volume passes before a voxel of it is used: complete, of a sane size, finite, in a true geometry.

What is refused on the way from disk stands in :mod:`medgan.data.nifti_bytes` and :mod:`medgan.data.files` and is given
on from here; what is refused of a volume in memory stands below.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.data.files import MAX_BYTES, fault_path, require_budget, require_file
from medgan.data.nifti_bytes import NiftiHeader, peek_header, read_gated
from medgan.data.volume import Volume
from medgan.errors import InputFault

__all__ = [
    "MAX_BYTES", "MIN_AXIS", "SHEAR_TOLERANCE", "NiftiHeader", "fault_path", "label_values", "peek_header",
    "read_gated", "require_affine", "require_budget", "require_file", "require_image", "require_label",
    "require_same_geometry",
]  # fmt: skip

logger = logging.getLogger(__name__)

MIN_AXIS = 3
"""Fewest voxels along an axis: with fewer slices their spacing cannot be verified, nor can anything deform."""
MAX_LABEL = 255
GEOMETRY_TOLERANCE = 0.05
"""Largest disagreement of two geometries, as a share of the smallest voxel edge."""
SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes of an affine (0.06 degrees off the right angle)."""


def require_affine(path: Path, affine: NDArray[np.float64]) -> None:
    """Refuse an affine that is not finite, has an axis of no length, or axes that are not at right angles."""
    columns = np.asarray(affine, np.float64)[:3, :3]
    with np.errstate(all="ignore"):
        lengths = np.sqrt((columns**2).sum(axis=0))
    if not (np.isfinite(affine).all() and lengths.min() >= 1e-6 and lengths.max() <= 1e6):
        reason = f"the affine gives voxel edges of {_listed(lengths)} mm"
        raise InputFault(path, "DEGENERATE_AFFINE", reason, "mend the header's geometry")
    cosines = np.abs((columns / lengths).T @ (columns / lengths) - np.eye(3))
    if cosines.max() > SHEAR_TOLERANCE:
        angle = np.degrees(np.arcsin(min(1.0, float(cosines.max()))))
        reason = f"the affine is sheared: two axes are {angle:.2f} degrees off the right angle"
        raise InputFault(path, "SHEARED_AFFINE", reason, "resample it onto an orthogonal grid")


def require_image(volume: Volume) -> None:
    """Refuse an image that is too small, not finite, or whose affine is no geometry.

    Args:
        volume: ``data`` of shape ``(C, X, Y, Z)``.

    Raises:
        InputFault: ``TOO_FEW_SLICES``, ``NOT_FINITE``, ``SHEARED_AFFINE`` or ``DEGENERATE_AFFINE``.
    """
    if min(volume.spatial_shape) < MIN_AXIS:
        reason = f"{_sized(volume.spatial_shape)} voxels, but at least {MIN_AXIS} are needed along each axis"
        raise InputFault(volume.path, "TOO_FEW_SLICES", reason, "give a 3-D volume")
    require_affine(volume.path, volume.affine)
    if volume.data.dtype.kind == "f" and not _sum_is_finite(volume.data):
        finite = np.isfinite(volume.data)
        if not finite.all():  # a sum can also overflow
            bad = int(finite.size - np.count_nonzero(finite))
            reason = f"{bad} of {finite.size} voxels are NaN or infinite"
            raise InputFault(volume.path, "NOT_FINITE", reason, "replace them in the source")


def require_same_geometry(volume: Volume, reference: Volume) -> None:
    """Refuse a volume that does not lie where ``reference`` lies; the fault says by how many mm."""
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in reference.spatial_shape])).reshape(3, -1)
    own_ends = np.array(np.meshgrid(*[(0, n - 1) for n in volume.spatial_shape])).reshape(3, -1)
    shift = _placed(volume.affine, own_ends) - _placed(reference.affine, ends)
    apart = float(np.sqrt((shift**2).sum(axis=0)).max())
    if volume.spatial_shape != reference.spatial_shape:
        reason = (
            f"{_sized(volume.spatial_shape)} voxels, but {fault_path(reference.path)} has "
            f"{_sized(reference.spatial_shape)}; corners up to {apart:.3g} mm apart"
        )
        raise InputFault(volume.path, "GEOMETRY_MISMATCH", reason, "resample one onto the other's grid")
    if apart > GEOMETRY_TOLERANCE * min(reference.spacing):
        reason = f"it lies up to {apart:.3g} mm from {fault_path(reference.path)}"
        raise InputFault(volume.path, "GEOMETRY_MISMATCH", reason, "resample one onto the other's grid")


def require_label(volume: Volume, image: Volume, declared: Mapping[int, str]) -> None:
    """Refuse a label map that is not on the image's grid or holds values nobody declared.

    Args:
        volume: the label map, ``(1, X, Y, Z)``.
        image: the image it belongs to.
        declared: values and names, without the background 0; empty where the cohort declares none, and then any
            whole number from 0 to 255 is accepted.
    """
    require_same_geometry(volume, image)
    found = label_values(volume)
    if declared:
        strange = [value for value in found if value != 0 and value not in declared]
        if strange:
            known = ", ".join(f"{value} {name}" for value, name in sorted(declared.items()))
            reason = f"label values {_some(strange)} are not declared (declared: 0 background, {known})"
            raise InputFault(volume.path, "UNDECLARED_LABELS", reason, "declare them or mend the label map")
    if found == [0]:
        logger.warning("%s: EMPTY_MASK: the label map holds only background", volume.path)


def label_values(volume: Volume) -> list[int]:
    """List the values of a label map; refuse any that is not a whole number from 0 to 255."""
    data = volume.data
    if data.dtype == np.uint8:  # counting is far quicker than sorting
        return [int(value) for value in np.flatnonzero(np.bincount(data.ravel(), minlength=1))]
    values = np.unique(data)
    broken = values[(values != np.rint(values)) | (values < 0) | (values > MAX_LABEL)]
    if broken.size:
        reason = f"label values {_some(broken.tolist())} are not whole numbers from 0 to {MAX_LABEL}"
        raise InputFault(volume.path, "UNDECLARED_LABELS", reason, "give a label map of whole numbers")
    return [int(value) for value in values]


def _sum_is_finite(data: NDArray[Any]) -> bool:
    """Whether the sum is finite, which no NaN or infinity leaves it; in one pass and without a mask in memory."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(data.ravel(order="K").sum()))


def _placed(affine: NDArray[np.float64], indices: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.asarray(affine[:3, :3] @ indices + affine[:3, 3:], np.float64)


def _sized(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _listed(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _some(values: list[Any], limit: int = 10) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
