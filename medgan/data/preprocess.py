"""From a volume of any size to the network's grid, and the map between the two.

The source volume itself is never resampled for output: the generator's fields are predicted on the grid and applied
at the source's own voxels (see :mod:`medgan.sampler`). So what a checkpoint must record is this specification, and
its inverse back to the source's geometry and intensity is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medgan.config import IntensityConfig, PreprocessConfig

# Percentiles of a strided subset of this many voxels differ from the volume's own by less than its noise.
PERCENTILE_VOXELS = 65_536


@dataclass(frozen=True)
class Scale:
    """The affine map between a volume's values and the network's range, per channel: ``value = low + range * unit``.

    Attributes:
        low: ``(C, 1, 1, 1)`` value that becomes 0.
        span: ``(C, 1, 1, 1)`` positive difference between the values that become 1 and 0.
    """

    low: Tensor
    span: Tensor

    def to_unit(self, data: Tensor) -> Tensor:
        """Map values to the network's range, clipped to 0..1."""
        return (data - self.low).div_(self.span).clamp_(0, 1)  # a volume of 512³ has no room for temporaries


class Preprocessing:
    """The specification of the grid and of the intensities that a generator was trained with.

    Args:
        config: grid shape and spacing, crop or resize, intensity range.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config

    def grid_map(self, spatial_shape: tuple[int, ...], affine: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the ``(4, 4)`` matrix from grid voxel to source voxel.

        Grid axes run along R, A, S; source axes are permuted and flipped to the nearest of these. The map has no
        rotation, so an oblique volume stays oblique.

        Args:
            spatial_shape: voxels of the source along its three axes.
            affine: source voxel to RAS mm; ``None`` for a volume already in RAS order at the grid's spacing.
        """
        axes, signs, spacing = _orientation(affine)
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for grid_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
            grid_size, size = self.config.shape[grid_axis], spatial_shape[axis]
            if self.config.fit == "resize":
                step = size / grid_size
            elif self.config.spacing is None or spacing is None:
                step = 1.0
            else:
                step = self.config.spacing[grid_axis] / spacing[axis]
            if abs(step - 1) < 1e-3:
                # Whole-voxel offsets: a grid at the source's own spacing is a crop, without interpolation.
                start = float((size - grid_size) // 2)
                step = 1.0
            else:
                start = (size - 1) / 2 - (grid_size - 1) / 2 * step
            matrix[axis, grid_axis] = sign * step
            matrix[axis, 3] = start if sign > 0 else size - 1 - start
        return matrix

    def scale(self, data: Tensor) -> Scale:
        """Measure (robust) or look up (window, unit) the intensity scale of a ``(C, X, Y, Z)`` volume in real units."""
        return intensity_scale(data, self.config.intensity)

    def image_to_grid(self, data: NDArray[np.generic] | Tensor, affine: NDArray[np.float64] | None) -> Tensor:
        """Return ``(C, *shape)`` float32 in 0..1; outside the volume 0.

        Args:
            data: ``(C, X, Y, Z)`` in real units.
            affine: see :meth:`grid_map`.
        """
        tensor = torch.as_tensor(data).to(torch.float32)
        matrix = self.grid_map(tuple(tensor.shape[1:]), affine)
        unit = self.scale(tensor).to_unit(tensor)
        del tensor  # averaging lays a volume in Fortran order out anew: a third copy, with this one
        return resample_to_grid(unit, matrix, self.config.shape)

    def label_to_grid(self, data: NDArray[np.generic] | Tensor, affine: NDArray[np.float64] | None) -> Tensor:
        """Return ``(1, *shape)`` uint8, nearest neighbour; outside the volume 0."""
        tensor = torch.as_tensor(np.asarray(data).astype(np.float32))
        matrix = self.grid_map(tuple(tensor.shape[1:]), affine)
        return resample_to_grid(tensor, matrix, self.config.shape, mode="nearest").to(torch.uint8)


def intensity_scale(data: Tensor, intensity: IntensityConfig) -> Scale:
    """Return the :class:`Scale` of ``(C, X, Y, Z)``. A constant channel gets span 1, so nothing divides by 0."""
    channels = data.shape[0]
    if intensity.kind == "robust":
        flat = data.reshape(channels, -1)
        values = flat[:, :: max(1, flat.shape[1] // PERCENTILE_VOXELS)]
        # NumPy selects, where torch sorts: a sixth of the time.
        ranks = np.quantile(values.numpy(force=True), [intensity.lower / 100, intensity.upper / 100], axis=1)
        low, high = torch.from_numpy(ranks).to(values)
    else:
        bounds = intensity.window if intensity.kind == "window" else (0.0, 1.0)
        low, high = (torch.full((channels,), b, dtype=data.dtype, device=data.device) for b in bounds)
    span = high - low
    span = torch.where(span > 0, span, torch.ones_like(span))
    return Scale(low.reshape(-1, 1, 1, 1), span.reshape(-1, 1, 1, 1))


def resample_to_grid(
    volume: Tensor, matrix: NDArray[np.float64], shape: tuple[int, int, int], mode: str = "bilinear"
) -> Tensor:
    """Sample ``(C, X, Y, Z)`` at ``matrix @ grid voxel``; zero outside. Averages first where the grid is coarser.

    Args:
        volume: float tensor.
        matrix: ``(4, 4)`` grid voxel to source voxel.
        shape: the grid's voxels.
        mode: ``"bilinear"`` (trilinear) or ``"nearest"``.
    """
    if mode == "bilinear":
        volume, matrix = _average_down(volume, matrix)
    size = torch.tensor(volume.shape[1:], dtype=torch.float64)
    # torch's affine_grid wants, on both sides, coordinates from -1 to 1 in the order of x = last axis.
    to_voxel = _from_normalised(torch.tensor(shape, dtype=torch.float64))
    to_normalised = torch.linalg.inv(_from_normalised(size))
    theta = to_normalised @ torch.from_numpy(matrix) @ to_voxel
    theta = theta[:3, :].to(volume)
    theta = torch.cat([theta[:, :3].flip(0, 1), theta[:, 3:].flip(0)], dim=1)
    grid = F.affine_grid(theta[None], [1, 1, *shape], align_corners=False)
    return F.grid_sample(volume[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _from_normalised(size: Tensor) -> Tensor:
    """Return the (4, 4) map from -1..1 (edge to edge) to voxel index, axes in array order."""
    matrix = torch.diag(torch.cat([size / 2, torch.ones(1, dtype=torch.float64)]))
    matrix[:3, 3] = (size - 1) / 2
    return matrix


def _average_down(volume: Tensor, matrix: NDArray[np.float64]) -> tuple[Tensor, NDArray[np.float64]]:
    """Average blocks of voxels along axes that the grid samples at less than half the resolution (no aliasing)."""
    factors = [max(1, int(np.abs(matrix[axis, :3]).max())) for axis in range(3)]
    factors = [min(f, n) for f, n in zip(factors, volume.shape[1:], strict=True)]
    if max(factors) == 1:
        return volume, matrix
    averaged = F.avg_pool3d(volume[None], factors, ceil_mode=True, count_include_pad=False)[0]
    scaled = matrix.copy()
    for axis, factor in enumerate(factors):
        scaled[axis] /= factor
        scaled[axis, 3] -= (factor - 1) / (2 * factor)
    return averaged, scaled


def _orientation(affine: NDArray[np.float64] | None) -> tuple[list[int], list[int], list[float] | None]:
    """Return, for each of R, A, S, the source axis nearest to it and its sign; and the source's spacing."""
    if affine is None:
        return [0, 1, 2], [1, 1, 1], None
    orientation = nibabel.orientations.io_orientation(affine)
    axes = [int(np.flatnonzero(orientation[:, 0] == ras)[0]) for ras in range(3)]
    signs = [int(orientation[axis, 1]) for axis in axes]
    spacing = [float(v) for v in np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))]
    return axes, signs, spacing
