"""A NIfTI file's bytes, verified: the header judged first, the gzip stream read to its end, its checksum compared.

Common readers accept a truncated or damaged ``.nii.gz`` and return wrong voxels. Here the header is judged from the
first bytes, before memory is spent on the rest; then every byte is read once, into the place where it stays.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from medgan.data.files import MAX_BYTES, opened_nifti, require_budget
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

_LONGEST_HEADER = 544
_PEEK = 4096
# Pieces that stay in the processor's cache on their way into the volume's memory.
_CHUNK = 2**17
_PIECE = 2**20


@dataclass(frozen=True)
class NiftiHeader:
    """What the first bytes of a NIfTI file promise.

    Attributes:
        shape: voxels along each axis.
        dtype: of the stored voxels, in the file's byte order.
        slope, intercept: the rescale; 1 and 0 where there is none.
        offset: byte of the first voxel.
        needed: bytes of the whole decompressed file.
        nibabel: the header as nibabel knows it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    slope: float
    intercept: float
    offset: int
    needed: int
    nibabel: Any


def peek_header(path: Path, max_bytes: int = MAX_BYTES) -> NiftiHeader:
    """Judge a ``.nii`` or ``.nii.gz`` by its first bytes alone.

    Raises:
        InputFault: the file is missing, is no NIfTI, or its header is impossible or beyond the size budget.
    """
    with opened_nifti(path) as file:
        return _parse_header(path, _head(_pieces(path, file, _PEEK, _PEEK)), max_bytes)


def read_gated(
    path: Path, max_bytes: int = MAX_BYTES, judge: Callable[[NiftiHeader], object] | None = None
) -> tuple[NiftiHeader, memoryview]:
    """Return the header and the whole decompressed file (header included), verified.

    Args:
        path: a ``.nii`` or ``.nii.gz`` (NIfTI-1 or NIfTI-2, in one file).
        max_bytes: the size budget, decompressed.
        judge: called with the header before any memory is spent; raises for what is not wanted.

    Raises:
        InputFault: as :func:`peek_header`; or the stream ends early, fails its checksum, or goes on after its end.
    """
    with opened_nifti(path) as file:
        pieces = _pieces(path, file, _CHUNK, _PIECE)
        head = _head(pieces)
        header = _parse_header(path, head, max_bytes)
        if judge is not None:
            judge(header)
        buffer = np.empty(header.needed, np.uint8).data  # not zeroed first, unlike a bytearray
        size = len(head)
        buffer[: min(size, header.needed)] = head[: header.needed]
        if not path.name.endswith(".gz") and size < header.needed:  # in one read
            while count := file.readinto(buffer[size:]):  # type: ignore[attr-defined]
                size += count
        while size <= header.needed and (part := next(pieces, b"")):
            fits = part[: header.needed - size]
            buffer[size : size + len(fits)] = fits
            size += len(part)
    if size < header.needed:
        reason = f"the file ends after {size} of the {header.needed} bytes its header asks for"
        raise InputFault(path, "TRUNCATED", reason, "copy or download it again")
    if size > header.needed:
        compressed = path.name.endswith(".gz")
        reason = f"the {'stream' if compressed else 'file'} goes on past the {header.needed} bytes its header asks for"
        raise InputFault(path, "BOMB" if compressed else "CORRUPT", reason, "export it again from its source")
    return header, buffer


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
    return NiftiHeader(shape, dtype, slope, intercept, int(offset), needed, header)


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
