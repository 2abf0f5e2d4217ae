"""The one gate every volume passes before a voxel of it is used: complete, of a sane size, finite, in a true geometry.

Common readers accept a truncated or damaged ``.nii.gz`` and return wrong voxels, so the gzip stream is read to its end
here and its checksum compared; the header is judged from the first bytes, before memory is spent on the rest.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import psutil
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medgan.data.volume import Volume
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

MAX_BYTES = 8 * 2**30
"""Largest volume read, in bytes once decompressed."""
MIN_AXIS = 3
"""Fewest voxels along an axis: with fewer slices their spacing cannot be verified, nor can anything deform."""
MAX_LABEL = 255
GEOMETRY_TOLERANCE = 0.05
"""Largest disagreement of two geometries, as a share of the smallest voxel edge."""
SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes of an affine (0.06 degrees off the right angle)."""
_LONGEST_HEADER = 544
_PEEK = 4096
_CHUNK = 2**20
_PIECE = 2**24


@dataclass(frozen=True)
class NiftiHeader:
    """What the first bytes of a NIfTI file promise; ``needed`` counts the bytes of the whole decompressed file."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    slope: float
    intercept: float
    needed: int
    nibabel: Any


def fault_path(path: Path) -> str:
    """Return a path as it can be printed on one line."""
    return str(path).encode("unicode_escape", "surrogateescape").decode() if not str(path).isprintable() else str(path)


def require_file(path: Path) -> None:
    """Raise ``MISSING_FILE`` unless ``path`` is a regular file."""
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise InputFault(fault_path(path), "MISSING_FILE", "there is no such file", "mend the path or add the file")


def peek_header(path: Path, max_bytes: int = MAX_BYTES) -> NiftiHeader:
    """Judge a ``.nii`` or ``.nii.gz`` by its first bytes alone.

    Raises:
        InputFault: the file is missing, is no NIfTI, or its header is impossible or beyond the size budget.
    """
    with _opened(path) as file:
        return _parse_header(path, _head(_pieces(path, file, _PEEK, _PEEK)), max_bytes)


def read_gated(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the whole decompressed file, verified.

    Args:
        path: a ``.nii`` or ``.nii.gz`` (NIfTI-1 or NIfTI-2, in one file).
        max_bytes: the size budget, decompressed.

    Raises:
        InputFault: as :func:`peek_header`; or the stream ends early, fails its checksum, or goes on after its end.
    """
    with _opened(path) as file:
        pieces = _pieces(path, file, _CHUNK, _PIECE)
        parts = [_head(pieces)]
        needed = _parse_header(path, parts[0], max_bytes).needed
        if not path.name.endswith(".gz"):  # in one read, which spares joining the pieces
            file.seek(0)
            parts = [file.read(needed + 1)]
        size = len(parts[0])
        while size <= needed and (part := next(pieces, b"")):
            parts.append(part)
            size += len(part)
    if size < needed:
        reason = f"the file ends after {size} of the {needed} bytes its header asks for"
        raise InputFault(path, "TRUNCATED", reason, "copy or download it again")
    if size > needed:
        compressed = path.name.endswith(".gz")
        reason = f"the {'stream goes' if compressed else 'file goes'} on past the {needed} bytes its header asks for"
        raise InputFault(path, "BOMB" if compressed else "CORRUPT", reason, "export it again from its source")
    return b"".join(parts)


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
    if volume.data.dtype.kind == "f":
        finite = np.isfinite(volume.data)
        if not finite.all():
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


def require_budget(path: Path, needed: int, max_bytes: int = MAX_BYTES) -> None:
    """Refuse what would not fit the size budget or the memory that is free now."""
    if needed > max_bytes:
        reason = f"the header claims {needed} bytes of voxels, the budget is {max_bytes}"
        raise InputFault(path, "SIZE", reason, "crop or downsample it first")
    free = psutil.virtual_memory().available
    if needed > free:
        reason = f"the volume needs {needed} bytes, {free} are free"
        raise InputFault(path, "SIZE", reason, "crop or downsample it first, or free memory")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    require_file(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        reason = "the name does not end in .nii or .nii.gz"
        raise InputFault(path, "NOT_NIFTI", reason, "convert it to NIfTI in one file")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputFault(
            path, "UNREADABLE", f"it cannot be read ({error.strerror})", "check its permissions"
        ) from error


def _pieces(path: Path, file: BinaryIO, chunk: int, piece: int) -> Iterator[bytes]:
    """Yield the decompressed bytes in pieces; at the end of a gzip stream its checksum has been compared."""
    data = file.read(chunk)
    gzipped = data.startswith(b"\x1f\x8b")
    if len(data) > 1 and gzipped != path.name.endswith(".gz"):
        found = (
            "gzip-compressed, though its name does not end" if gzipped else "not gzip-compressed, though its name ends"
        )
        raise InputFault(path, "CORRUPT", f"the content is {found} in .gz", "rename it or export it again")
    while data and not gzipped:
        yield data
        data = file.read(piece)
    inflater = zlib.decompressobj(wbits=31)
    while data:
        try:
            part = inflater.decompress(data, piece)
        except zlib.error as error:
            reason = f"the gzip stream is damaged ({error})"
            raise InputFault(path, "CORRUPT", reason, "copy or download it again") from error
        if part:
            yield part
        if not inflater.eof:
            data = inflater.unconsumed_tail or file.read(chunk)
            if not data:
                raise InputFault(
                    path, "TRUNCATED", "the gzip stream ends before its checksum", "copy or download it again"
                )
            continue
        # Zeros may pad the end of a gzip file; a further member may follow (as parallel compressors write them).
        data = inflater.unused_data.lstrip(b"\0")
        while len(data) < 2 and (more := file.read(chunk)):
            data = (data + more).lstrip(b"\0")
        if data and not data.startswith(b"\x1f\x8b"):
            raise InputFault(
                path, "CORRUPT", "other bytes follow the end of the gzip stream", "copy or download it again"
            )
        inflater = zlib.decompressobj(wbits=31)


def _head(pieces: Iterator[bytes]) -> bytes:
    """Return the first pieces, long enough for any NIfTI header."""
    head = b""
    while len(head) < _LONGEST_HEADER and (part := next(pieces, b"")):
        head += part
    return head


def _parse_header(path: Path, head: bytes, max_bytes: int) -> NiftiHeader:
    swapped = head[:4] in ((348).to_bytes(4, "big"), (540).to_bytes(4, "big"))
    size = int.from_bytes(head[:4], "big" if swapped else "little")
    if size not in (348, 540) and len(head) >= 4:
        raise InputFault(path, "NOT_NIFTI", "it does not begin with a NIfTI header", "convert it to NIfTI")
    if len(head) < size + 4:
        raise InputFault(
            path, "TRUNCATED", f"the file ends after {len(head)} bytes, inside its header", "copy it again"
        )
    kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    header = kind(head[:size], endianness=">" if swapped else "<", check=False)
    magic = bytes(header["magic"].item()).rstrip(b"\0")
    if magic[:3] not in (b"n+1", b"n+2"):
        reason = "header and voxels are in two files" if magic[:2] == b"ni" else "it is Analyze, not NIfTI"
        raise InputFault(path, "NOT_NIFTI", reason, "convert it to NIfTI in one file")
    shape = _header_shape(path, header)
    dtype = _header_dtype(path, header)
    offset = float(header["vox_offset"])
    if not size + 4 <= offset <= max_bytes:
        reason = f"the header puts the voxels at byte {offset:g}, but it is {size + 4} bytes long itself"
        raise InputFault(path, "CORRUPT", reason, "export it again from its source")
    needed = int(offset) + int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    require_budget(path, needed, max_bytes)
    slope, intercept = _header_scale(path, header)
    return NiftiHeader(shape, dtype, slope, intercept, needed, header)


def _header_shape(path: Path, header: Any) -> tuple[int, ...]:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise InputFault(
            path, "DIMENSIONS", f"the header gives the dimensions {dims}", "export it again from its source"
        )
    return tuple(dims[1 : dims[0] + 1])


def _header_dtype(path: Path, header: Any) -> np.dtype[np.generic]:
    try:
        dtype: np.dtype[np.generic] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        reason = f"the header's data type {int(header['datatype'])} is unknown"
        raise InputFault(path, "DATATYPE", reason, "export it again from its source") from error
    if dtype.fields is not None:
        raise InputFault(path, "RGB", "the voxels are colours, not intensities", "convert it to one intensity a voxel")
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise InputFault(path, "DATATYPE", f"voxels of type {dtype.name} are no intensities", "convert it to float32")
    return dtype


def _header_scale(path: Path, header: Any) -> tuple[float, float]:
    """Return slope and intercept; NIfTI says that a slope of 0 (and readers that NaN) means unscaled."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope) or slope == 0:
        logger.debug("%s: scl_slope is %g: the voxels are taken as stored", path, slope)
        return 1.0, 0.0
    if not np.isfinite(slope) or not np.isfinite(intercept):
        reason = f"the header's scale is {slope:g} with intercept {intercept:g}"
        raise InputFault(path, "SCALE", reason, "write a finite scl_slope and scl_inter")
    return slope, intercept


def _placed(affine: NDArray[np.float64], indices: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.asarray(affine[:3, :3] @ indices + affine[:3, 3:], np.float64)


def _sized(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _listed(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _some(values: list[Any], limit: int = 10) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
