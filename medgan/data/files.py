"""Files as the gate meets them: there, readable, of a sane size, and named on one printable line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psutil

from medgan.errors import InputFault

MAX_BYTES = 8 * 2**30
"""Largest volume read, in bytes once decompressed."""


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
def opened_nifti(path: Path) -> Iterator[BinaryIO]:
    """Open a file whose name says NIfTI; what the disk refuses is a fault of the file."""
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
