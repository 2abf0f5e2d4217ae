"""A DICOM Segmentation as a label map on the voxels of the image it belongs to."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.data.dicom_headers import parsing
from medgan.data.volume import Volume
from medgan.errors import InputFault

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Voxels of the segmentation may lie this far from those of the image, as a share of a voxel.
_OFF_GRID = 0.05


def read_segmentation(path: Path, image: Volume, label_names: Mapping[int, str]) -> Volume:
    """Read a segmentation object; a segment's value is the one its description says, its name declares, or its number.

    Args:
        path: the file.
        image: whose grid it must lie on; what the object does not cover is background.
        label_names: the values declared.

    Returns:
        ``(1, X, Y, Z)`` uint8 on the image's grid.

    Raises:
        InputFault: no segmentation, segments that overlap, or another grid than the image's.
    """
    import highdicom as hd

    path = Path(path)
    with parsing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = hd.seg.segread(path)
        values = {int(item.SegmentNumber): _value(item, label_names) for item in found.SegmentSequence}
        try:
            volume = found.get_volume(combine_segments=True)
        except ValueError as error:
            reason = "its segments overlap or are no regular volume"
            raise InputFault(path, "SEGMENTATION", reason, "export a label map without overlaps") from error
        numbers, affine = np.asarray(volume.array), _LPS @ np.asarray(volume.affine)
    table = np.zeros(max(256, int(numbers.max(initial=0)) + 1), np.uint8)
    for number, value in values.items():
        table[number] = value
    data = _onto(path, table[numbers], affine, image)
    return Volume(data[None], image.affine, path, np.dtype(np.uint8))


def _value(item: Any, label_names: Mapping[int, str]) -> int:
    said = re.fullmatch(r"label value (\d{1,3})", str(item.get("SegmentDescription") or ""))
    if said and int(said[1]) < 256:
        return int(said[1])
    name = str(item.get("SegmentLabel") or "")
    return next((value for value, known in label_names.items() if known == name), int(item.SegmentNumber))


def _onto(path: Path, data: NDArray[Any], affine: NDArray[np.float64], image: Volume) -> NDArray[np.uint8]:
    """Lay ``data`` on the image's grid by turning axes and shifting whole voxels; nothing is interpolated."""
    step = np.linalg.inv(image.affine) @ affine
    axes = np.abs(step[:3, :3]).argmax(axis=0)
    signs = np.rint(step[axes, range(3)]).astype(int)
    wanted = np.zeros((3, 3))
    wanted[axes, range(3)] = signs
    start = np.rint(step[:3, 3])
    off = max(
        float(np.abs((step[:3, :3] - wanted) * np.array(data.shape)).max()), float(np.abs(step[:3, 3] - start).max())
    )
    if sorted(axes.tolist()) != [0, 1, 2] or set(np.abs(signs).tolist()) != {1} or off > _OFF_GRID:
        reason = "the segmentation does not lie on the image's voxels"
        raise InputFault(path, "GEOMETRY_MISMATCH", reason, "resample it onto the image")
    turned = data.transpose(np.argsort(axes))
    turned = np.flip(turned, tuple(int(axis) for axis, sign in zip(axes, signs, strict=True) if sign < 0))
    first = [int(start[a] - (n - 1 if s < 0 else 0)) for a, n, s in _by_axis(axes, data.shape, signs)]
    label = np.zeros(image.spatial_shape, np.uint8)
    into, of = [], []
    for axis in range(3):
        low, high = max(0, first[axis]), min(label.shape[axis], first[axis] + turned.shape[axis])
        into.append(slice(low, max(low, high)))
        of.append(slice(low - first[axis], max(low, high) - first[axis]))
    label[tuple(into)] = turned[tuple(of)]
    return label


def _by_axis(axes: NDArray[Any], shape: tuple[int, ...], signs: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Return, for each of the image's axes, (axis, length of the data along it, its direction)."""
    order = np.argsort(axes)
    return [(axis, shape[int(order[axis])], int(signs[int(order[axis])])) for axis in range(3)]
