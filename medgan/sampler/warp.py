"""Coarse fields at a volume's own voxels, and the one warp that applies them.

The map from the network's grid to a volume's voxels permutes, flips and scales axes. So a coarse field is brought to
the voxels one axis at a time, by a small matrix product each, which costs a fraction of sampling it at arbitrary
positions; the affine of a deformation is folded into the same products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.data.preprocess import Scale
from medgan.models.fields import Shape

# Positions and gathered values of this many voxels are held at a time, whatever the volume's size.
SLAB_VOXELS = 500_000  # their positions fit into a processor's cache


@dataclass(frozen=True, eq=False)
class SourceVoxels:
    """The voxels of a volume as seen from the network's grid.

    Attributes:
        size: ``(X, Y, Z)`` of the volume.
        matrix: ``(4, 4)`` grid voxel to source voxel: permutation, flips, scales, offset.
        shape: voxels of the network's grid.
        device: where fields are brought to.
    """

    size: Shape
    matrix: NDArray[np.float64]
    shape: Shape
    device: torch.device

    @cached_property
    def grid_axes(self) -> list[int]:
        """For each source axis, the grid axis along it."""
        return [int(np.abs(self.matrix[axis, :3]).argmax()) for axis in range(3)]

    def slabs(self) -> list[tuple[int, int]]:
        """Return ranges along the first axis that hold at most ``SLAB_VOXELS`` voxels (or one plane)."""
        length = self.size[0]
        step = max(1, SLAB_VOXELS // math.prod(self.size[1:]))
        return [(start, min(start + step, length)) for start in range(0, length, step)]

    def along(self, axis: int) -> Tensor:
        """Return the grid coordinate of every voxel along a source axis, ``(n,)`` float64."""
        return _coordinates(self.size[axis], *self._line(axis))

    def weights(self, axis: int, count: int) -> Tensor:
        """Return ``(n, count)`` linear weights of a field's ``count`` samples at the voxels along a source axis.

        The samples span the grid edge to edge; beyond the first and last the field is constant.
        """
        return _weights(self.size[axis], *self._line(axis), count, self.shape[self.grid_axes[axis]], self.device)

    def _line(self, axis: int) -> tuple[float, float]:
        """Return the voxel of the grid's first sample along a source axis, and voxels from one sample to the next."""
        return float(self.matrix[axis, 3]), float(self.matrix[axis, self.grid_axes[axis]])

    def bring(self, field: Tensor, start: int, stop: int, ramps: list[Tensor] | None = None) -> Tensor:
        """Bring ``(C, d, h, w)`` along grid axes to the voxels ``start:stop``: ``(C, n, Y, Z)``.

        Args:
            field: samples that span the grid.
            start, stop: range along the first source axis.
            ramps: for each source axis ``(C, n)`` values to add, constant along the other two.
        """
        coarse = field.permute(0, *(1 + axis for axis in self.grid_axes))
        x, y, z = (self.weights(axis, coarse.shape[axis + 1]) for axis in range(3))
        h = torch.einsum("xd,cdhw->cxhw", x[start:stop], coarse)
        if ramps is not None:
            h = h + ramps[0][:, start:stop, None, None]
        h = torch.einsum("yh,cxhw->cxyw", y, h)
        if ramps is not None:
            h = h + ramps[1][:, None, :, None]
        # Plane by plane: a product of all planes at once is split among threads in ways that change its last bits.
        planes = h.reshape(-1, *h.shape[2:])
        last = z.T.expand(len(planes), -1, -1)
        if ramps is None:
            brought = torch.bmm(planes, last)
        else:
            ramp = ramps[2].repeat_interleave(h.shape[1], dim=0)
            brought = torch.baddbmm(ramp[:, None], planes, last)
        return brought.view(*h.shape[:3], -1)

    def sampling_grid(self, displacement: Tensor, affine: Tensor, start: int, stop: int) -> Tensor:
        """Return φ at the voxels ``start:stop`` as ``grid_sample`` wants it, ``(1, n, Y, Z, 3)`` in −1..1.

        Args:
            displacement: ``(1, 3, d, h, w)`` in grid voxels, components and axes along the grid's.
            affine: ``(1, 4, 4)`` about the grid's centre, applied after the displacement.
            start, stop: range along the first source axis.
        """
        matrix = torch.from_numpy(self.matrix)
        size = torch.tensor(self.size, dtype=torch.float64)
        after = affine[0].detach().double().cpu()
        centre = (torch.tensor(self.shape, dtype=torch.float64) - 1) / 2
        # n = scale (M (A (g + u − c) + t + c) + m) + 1 / size − 1, in the order of grid_sample: last axis first
        scale = torch.diag(2 / size)
        linear = scale @ matrix[:3, :3] @ after[:3, :3]
        constant = scale @ (matrix[:3, :3] @ (after[:3, 3] + centre) + matrix[:3, 3]) + 1 / size - 1
        linear, constant = linear.flip(0), (constant - linear @ centre).flip(0)
        ramps = [linear[:, self.grid_axes[axis], None] * self.along(axis) for axis in range(3)]
        ramps[2] = ramps[2] + constant[:, None]
        mixed = torch.einsum("oc,cdhw->odhw", linear.to(displacement), displacement[0])
        found = self.bring(mixed, start, stop, [ramp.to(mixed) for ramp in ramps])
        return found.movedim(0, -1)[None]


def _coordinates(size: int, first: float, step: float) -> Tensor:
    return (torch.arange(size, dtype=torch.float64) - first) / step


# Image, label map and the next sibling of a source want the same ones.
@lru_cache(maxsize=32)
def _weights(size: int, first: float, step: float, count: int, samples: int, device: torch.device) -> Tensor:
    ratio = count / samples
    position = (_coordinates(size, first, step) * ratio + (ratio - 1) / 2).clamp(0, count - 1)
    nodes = torch.arange(count, dtype=torch.float64)
    weights = (1 - (position[:, None] - nodes).abs()).clamp(min=0)
    return weights.to(torch.float32).to(device)


def to_unit(scale: Scale, data: Tensor) -> Tensor:
    """Map float ``data`` to the network's range as :meth:`Scale.to_unit` does, in one buffer."""
    return (data - scale.low).div_(scale.span).clamp_(0, 1)


def to_dtype(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast; into an integer type rounded and clipped to its range."""
    if data.dtype == dtype:
        return data
    if dtype == torch.bool:
        return data > 0.5
    if dtype.is_floating_point:
        return data.to(dtype)
    bounds = torch.iinfo(dtype)
    return data.round().clamp(bounds.min, bounds.max).to(dtype)
