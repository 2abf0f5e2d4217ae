"""A volume in memory, with all that is needed to write a sibling of it in the same geometry and scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Volume:
    """One image or label map.

    Attributes:
        data: ``(C, X, Y, Z)`` voxel values in real units (rescale applied), axes as stored.
        affine: ``(4, 4)`` float64, voxel index to RAS mm.
        path: the file or DICOM folder it was read from.
        dtype: the voxel type as stored (before rescale).
        slope, intercept: the stored rescale; ``data = stored * slope + intercept``.
    """

    data: NDArray[np.generic]
    affine: NDArray[np.float64]
    path: Path
    dtype: np.dtype[np.generic]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Voxels along the three axes as stored."""
        x, y, z = self.data.shape[1:]
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres along the three axes as stored."""
        x, y, z = (float(v) for v in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))
        return x, y, z
