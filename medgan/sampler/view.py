"""A volume as the network sees it: on its grid, in its range, and how grid and volume lie to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.data.preprocess import Scale, resample_to_grid
from medgan.models.fields import Shape
from medgan.sampler.warp import to_unit


@dataclass(frozen=True, eq=False)
class View:
    """A volume on the network's grid.

    Attributes:
        unit: ``(C, *shape)`` float32, 0 to 1.
        matrix: ``(4, 4)`` grid voxel to source voxel.
        scale: the source's intensity scale.
        spacing: mm between grid voxels along R, A, S; 1 where not known.
    """

    unit: Tensor
    matrix: NDArray[np.float64]
    scale: Scale
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def shape(self) -> Shape:
        """Voxels of the grid."""
        return (self.unit.shape[1], self.unit.shape[2], self.unit.shape[3])


def view_volume(
    volume: Tensor, matrix: NDArray[np.float64], scale: Scale, shape: Shape, affine: NDArray[np.float64] | None
) -> View:
    """Lay ``(C, X, Y, Z)`` on the grid.

    Args:
        volume: in the units of ``scale``.
        matrix: ``(4, 4)`` grid voxel to source voxel.
        scale: the volume's intensity scale.
        shape: voxels of the grid.
        affine: voxel to RAS mm, or ``None``.
    """
    data, crop_matrix = _crop_to_grid(volume, matrix, shape)
    unit = resample_to_grid(to_unit(scale, data.to(torch.float32)), crop_matrix, shape)
    return View(unit, matrix, scale, _grid_spacing(matrix, affine))


def fixed_scale(data: Tensor, input_range: tuple[float, float]) -> Scale:
    """Return the scale on which the two values of ``input_range`` are 0 and 1, for every channel."""
    low, high = (torch.full((data.shape[0], 1, 1, 1), float(v), device=data.device) for v in input_range)
    return Scale(low, high - low)


def _crop_to_grid(volume: Tensor, matrix: NDArray[np.float64], shape: Shape) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the part of a volume that its grid samples, with a margin, and the grid's matrix into that part."""
    if np.abs(matrix[:3, :3]).max() >= 2:  # averaged first, in blocks that start at the volume's first voxel
        return volume, matrix
    cropped = matrix.copy()
    for axis in range(3):
        grid_axis = int(np.abs(matrix[axis, :3]).argmax())
        ends = sorted((matrix[axis, 3], matrix[axis, 3] + matrix[axis, grid_axis] * (shape[grid_axis] - 1)))
        size = volume.shape[axis + 1]
        start = min(max(int(np.floor(ends[0])) - 1, 0), size - 1)
        stop = max(min(int(np.ceil(ends[1])) + 2, size), start + 1)
        volume = volume.narrow(axis + 1, start, stop - start)
        cropped[axis, 3] -= start
    return volume, cropped


def _grid_spacing(matrix: NDArray[np.float64], affine: NDArray[np.float64] | None) -> tuple[float, float, float]:
    if affine is None:
        return (1.0, 1.0, 1.0)
    x, y, z = (float(v) for v in np.sqrt(((np.asarray(affine) @ matrix)[:3, :3] ** 2).sum(axis=0)))
    return x, y, z
