"""NIfTI files in and out: through the gate, and back in the source's own geometry and scale."""

from __future__ import annotations

import errno
import gzip
import io
import logging
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medgan.atomic import atomic_file
from medgan.data.validate import NiftiHeader, label_values, read_gated, require_affine, require_image
from medgan.data.volume import Volume
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii.gz", ".nii")
# Within a few per cent of level 6's size at a third of its time (benchmarks/compression.py).
_GZIP_LEVEL = 3
_SCALED_AT_ONCE = 2**17
_PLANES = 16
_UNIT_MM = {1: 1000.0, 3: 0.001}


def nifti_stem(path: Path) -> str:
    """Return the file name without ``.nii`` or ``.nii.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def read_nifti(
    path: Path, *, role: Literal["image", "label"] = "image", channels: int = 1, frame: int | None = None
) -> Volume:
    """Read one volume through the gate.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        role: a label map must hold whole numbers from 0 to 255 and comes as ``uint8``.
        channels: number of channels expected; more than one means a 4-D file with that many.
        frame: the one wanted, from 0, of a 4-D file whose fourth axis is time and not channels.

    Returns:
        The volume with ``data`` of shape ``(channels, X, Y, Z)`` in real units, axes as stored.

    Raises:
        InputFault: for every fault the gate knows.
    """
    path = Path(path)
    header, raw = read_gated(path, judge=lambda header: _require_channels(path, header, channels, frame))
    affine = _affine(path, header)
    stored = np.frombuffer(raw, header.dtype, offset=header.offset).reshape(*header.shape[:3], -1, order="F")
    if frame is not None:
        stored = stored[..., frame : frame + 1].copy(order="F")
    data = np.moveaxis(_scaled(stored, header), -1, 0)
    dtype = header.dtype.newbyteorder("=")
    volume = Volume(data, affine, path, dtype, header.slope, header.intercept)
    require_image(volume)
    if role == "label":
        label_values(volume)
        volume = Volume(data.astype(np.uint8), affine, path, dtype, header.slope, header.intercept)
    return volume


def write_nifti(path: Path, data: NDArray[Any], like: Volume) -> None:
    """Write voxels in the geometry, voxel type and intensity scale of ``like``.

    The file appears under its name only when complete. Values beyond an integer type's range are clipped to it.

    Args:
        path: ``.nii`` or ``.nii.gz``; its folder must exist.
        data: ``(C, X, Y, Z)`` in real units; several channels become the fourth axis.
        like: the volume whose affine, ``dtype``, ``slope`` and ``intercept`` are used.

    Raises:
        ValueError: ``data`` has not the shape of ``like``, or is not finite.
        InputFault: the folder has no room.
    """
    raw = encode_nifti(data, like)
    # Without a time stamp the same voxels give the same bytes.
    path = Path(path)
    _write_whole(path, gzip.compress(raw, _GZIP_LEVEL, mtime=0) if path.name.endswith(".gz") else raw)


def encode_nifti(data: NDArray[Any], like: Volume) -> bytes:
    """Return the uncompressed bytes of a NIfTI file: the same voxels and geometry give the same bytes.

    Args:
        data: see :func:`write_nifti`.
        like: see :func:`write_nifti`.

    Raises:
        ValueError: ``data`` has not the shape of ``like``, or is not finite.
    """
    data = np.asarray(data)
    if data.ndim != 4 or data.shape[1:] != like.spatial_shape:
        raise ValueError(f"data must be (C, {', '.join(map(str, like.spatial_shape))}), got {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError("data must be finite")
    stored = stored_values(data, like)
    stored = stored[0] if len(stored) == 1 else np.moveaxis(stored, 0, -1)
    header = nib.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    header.set_xyzt_units("mm")
    header.set_sform(like.affine, code=1)
    header.set_qform(like.affine, code=1)
    if (like.slope, like.intercept) != (1.0, 0.0):
        header.set_slope_inter(like.slope, like.intercept)
    header.set_data_shape(stored.shape)
    start = io.BytesIO()
    header.write_to(start)
    return b"".join((start.getvalue(), _as_in_file(stored).T.data))


def _as_in_file(stored: NDArray[Any]) -> NDArray[Any]:
    """Return the voxels with the first axis running fastest.

    A few planes at a time: lines of all planes together fall on the same few places of a processor's cache.
    """
    ordered = np.empty(stored.shape, stored.dtype, order="F")
    for start in range(0, len(stored), _PLANES):
        ordered[start : start + _PLANES] = stored[start : start + _PLANES]
    return ordered


def _require_channels(path: Path, header: NiftiHeader, channels: int, frame: int | None) -> None:
    """Axes of length one past the third are allowed; otherwise the fourth must be the declared channels, or frames."""
    shape = header.shape
    longer = [n for n in shape[3:] if n > 1]
    if len(shape) < 3 or (not longer and min(shape[:3]) == 1):
        reason = f"{'x'.join(map(str, shape))} voxels are a single slice; at least 3 slices are needed"
        raise InputFault(path, "TOO_FEW_SLICES", reason, "give a 3-D volume")
    if frame is not None:
        count = longer[0] if longer else 1
        if len(longer) > 1 or frame >= count:
            reason = f"there is no frame {frame} in {'x'.join(map(str, shape))} voxels"
            raise InputFault(path, "NO_FRAME", reason, f"choose one from 0 to {count - 1}")
        return
    if longer != ([channels] if channels > 1 else []):
        reason = f"{'x'.join(map(str, shape))} voxels, but {channels} channel{'s' if channels > 1 else ''} expected"
        remedy = "choose a frame (the manifest's column `frame`, or --frame), or declare the channels in dataset.json"
        raise InputFault(path, "FOUR_DIMENSIONAL" if longer else "CHANNELS", reason, remedy)


def _affine(path: Path, header: NiftiHeader) -> NDArray[np.float64]:
    """Return the affine in RAS mm: the sform where there is one, else the qform, else the voxel sizes."""
    source = header.nibabel
    try:
        affine = np.array(source.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputFault(
            path, "DEGENERATE_AFFINE", "the header's quaternion is none", "mend the header's geometry"
        ) from error
    if int(source["sform_code"]) == 0 and int(source["qform_code"]) == 0:
        logger.info(
            "%s: the header gives no orientation; axes are taken as left-right, posterior-anterior, inferior-superior",
            path,
        )
    factor = _UNIT_MM.get(int(source["xyzt_units"]) & 7, 1.0)
    if factor != 1:
        logger.info("%s: lengths are converted to mm (factor %g)", path, factor)
        affine[:3] *= factor
    require_affine(path, affine)
    return affine


def _scaled(stored: NDArray[Any], header: NiftiHeader) -> NDArray[Any]:
    """Return real values in native byte order; small types fit float32 exactly, larger ones need float64."""
    native = stored.astype(stored.dtype.newbyteorder("="), copy=not stored.flags.aligned)
    if native.dtype.itemsize > 8:
        native = native.astype(np.float64)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return native
    small = native.dtype.itemsize <= 2 or native.dtype == np.float32
    flat = native.reshape(-1, order="F")
    values = np.empty(flat.shape, np.float32 if small else np.float64)
    with np.errstate(over="ignore"):
        for start in range(0, len(flat), _SCALED_AT_ONCE):  # a whole volume in float64 would cost twice its memory
            part = slice(start, start + _SCALED_AT_ONCE)
            values[part] = flat[part].astype(np.float64) * header.slope + header.intercept
    return values.reshape(native.shape, order="F")


def stored_values(data: NDArray[Any], like: Volume) -> NDArray[Any]:
    """Return real units in the voxel type and scale of ``like``: rounded and clipped where that is an integer type."""
    dtype: np.dtype[Any] = np.dtype(like.dtype)
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    elif dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    unscaled = (like.slope, like.intercept) == (1.0, 0.0)
    if data.dtype == dtype and unscaled:
        return data
    # float32 rounds to the same whole numbers, and holds the ends of a type of 16 bits.
    exact = unscaled and data.dtype == np.float32 and dtype.kind != "f" and dtype.itemsize <= 2
    values = data if exact else (data.astype(np.float64) - like.intercept) / like.slope
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded = np.rint(values)
    if dtype.itemsize < 8:
        return np.clip(rounded, limits.min, limits.max, out=rounded).astype(dtype)
    # The ends of a 64-bit type are no float64: set them by hand.
    stored = np.clip(rounded, limits.min, limits.max).astype(dtype)
    stored[rounded >= limits.max] = limits.max
    stored[rounded <= limits.min] = limits.min
    return stored


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file whole; of a full disk say how many bytes it had no room for."""
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"no room for the {len(content)} bytes of {path.name}"
            raise InputFault(path.parent, "DISK_FULL", reason, "free space or choose another folder") from error
        raise
