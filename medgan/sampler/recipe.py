"""What was drawn for a sibling, and its fields bound to one volume: how to warp, shade and undo."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.data.preprocess import Scale
from medgan.models.deformation import (
    affine_exponential,
    corner_jacobians,
    sample_at,
    sample_grid,
    smooth_upsample,
    to_grid,
    to_voxels,
    voxel_grid,
)
from medgan.models.fields import Fields, Shape, deform, deform_inverse
from medgan.models.labels import MODE, label_map, sample_labels
from medgan.sampler.warp import SourceVoxels, to_dtype, to_unit

MAX_LABELS = 64  # a volume of more values is no label map
INVERSE_STEPS = 4


@dataclass(frozen=True)
class Parameters:
    """What was drawn for a sibling; enough, with checkpoint and source, to make it again.

    Attributes:
        seed: seed of the noise.
        index: number of the sibling under that seed.
        strength: 0 is the identity, 1 what was learned.
        class_name: intended class, ``None`` for unknown.
        checkpoint: digest of the checkpoint.
    """

    seed: int
    index: int
    strength: float
    class_name: str | None
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON-serialisable values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Recipe:
    """A sibling's fields, bound to the geometry and intensity of one volume.

    Attributes:
        fields: predicted on the network's grid, scaled by the strength, free of folds.
        displacement: integrated velocity, ``(1, 3, D/2, H/2, W/2)`` in grid voxels.
        matrix: ``(4, 4)`` grid voxel to source voxel.
        scale: the source's intensity scale.
        shape: the network's grid.
        parameters: what was drawn.
        spacing: mm between grid voxels along R, A, S; 1 where not known.
    """

    fields: Fields
    displacement: Tensor
    matrix: NDArray[np.float64]
    scale: Scale
    shape: Shape
    parameters: Parameters
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def is_identity(self) -> bool:
        """Whether strength is 0: then nothing is computed and nothing changes, exactly."""
        return self.parameters.strength == 0

    @functools.cached_property
    def jacobian(self) -> Tensor:
        """Jacobian determinants of the diffeomorphism at the corners of its grid's cells, ``(8, d, h, w)``."""
        return corner_jacobians(self.displacement / 2)[0]

    @property
    def jacobian_min(self) -> float:
        """Smallest Jacobian determinant; positive means that no voxel is folded over another."""
        return float(self.jacobian.min())

    @property
    def fold_share(self) -> float:
        """Share of voxels with a Jacobian determinant ≤ 0."""
        return float((self.jacobian <= 0).float().mean())

    def warp(self, volume: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
        """Deform ``(C, X, Y, Z)`` float, whose voxels are those the recipe was made for."""
        return self.warp_each([(volume, mode)], padding)[0]

    def warp_each(
        self,
        volumes: Sequence[tuple[Tensor, str]],
        padding: str = "border",
        dtypes: Sequence[torch.dtype] | None = None,
    ) -> list[Tensor]:
        """Deform several volumes on the same voxels, finding the positions once.

        Args:
            volumes: ``(C, X, Y, Z)`` each, and its interpolation: ``"bilinear"``, ``"nearest"`` (both float) or
                ``"label"`` (any number type).
            padding: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
            dtypes: of the results, integers rounded and clipped; by default those of ``volumes``.
        """
        if self.is_identity:
            return [volume for volume, _ in volumes]
        voxels = self._voxels(volumes[0][0])
        affine = affine_exponential(self.fields.generators)
        dtypes = [volume.dtype for volume, _ in volumes] if dtypes is None else dtypes
        warped = [v.new_empty(v.shape, dtype=dtype) for (v, _), dtype in zip(volumes, dtypes, strict=True)]
        maps = [label_map(volume, padding) if mode == MODE else None for volume, mode in volumes]
        for start, stop in voxels.slabs():
            grid = voxels.sampling_grid(self.displacement, affine, start, stop)
            for out, (volume, mode), labels in zip(warped, volumes, maps, strict=True):
                part = out[:, start:stop]
                if labels is None:
                    part[:] = to_dtype(sample_grid(volume, grid, mode, padding), out.dtype)
                else:
                    sample_labels(labels, grid, part)
        return warped

    def unwarp(self, volume: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
        """Undo :meth:`warp` by φ⁻¹: the deformation of −v, then made exact for φ as it is interpolated.

        A label map, that is a volume of few values under ``"nearest"``, is taken back voxel by voxel where that is
        possible: each of its voxels votes for the source voxel that :meth:`warp` took it from, and φ⁻¹ serves those
        that got no vote. Nearest neighbours alone, there and back, would fray every border by half a voxel.
        """
        if self.is_identity:
            return volume
        back = self._pull_back(volume, mode, padding)
        values = torch.unique(volume) if mode == "nearest" else volume[:0]
        if 0 < len(values) <= MAX_LABELS:
            self._return_votes(volume, values, back)
        return back

    def _pull_back(self, volume: Tensor, mode: str, padding: str) -> Tensor:
        voxels = self._voxels(volume)
        back = torch.empty_like(volume, memory_format=torch.contiguous_format)
        labels = label_map(volume, padding) if mode == MODE else None
        for start, stop in voxels.slabs():
            found = transform_axes(self.matrix, self._preimage(self._grid_positions(volume, start, stop)))
            if labels is None:
                back[:, start:stop] = sample_at(volume[None], found, mode, padding)[0]
            else:
                sample_labels(labels, to_grid(found, volume.shape[1:]), back[:, start:stop])
        return back

    def _preimage(self, positions: Tensor) -> Tensor:
        """Return q with φ(q) = p for grid positions p ``(1, 3, ...)``: from −v, then by fixed-point steps that help."""
        guess = found = deform_inverse(self.fields, positions, self.shape)
        least = torch.full_like(positions[:, :1], torch.inf)
        for _ in range(INVERSE_STEPS):
            error = deform(self.fields, self.displacement, guess, self.shape) - positions
            distance = error.square().sum(dim=1, keepdim=True)
            found = torch.where(distance < least, guess, found)
            least = torch.minimum(distance, least)
            guess = guess - error
        return found

    def _return_votes(self, volume: Tensor, values: Tensor, back: Tensor) -> None:
        """Overwrite ``back`` ``(C, X, Y, Z)`` where voxels of ``volume`` vote for the voxels they were taken from."""
        size = torch.tensor(volume.shape[1:], device=volume.device).reshape(3, 1, 1, 1)
        taken = (
            (self.displacement_at_source(volume) + voxel_grid(volume.shape[1:], self.displacement)[0]).round().long()
        )
        inside = ((taken >= 0) & (taken < size)).all(dim=0)
        target = ((taken[0] * size[1] + taken[1]) * size[2] + taken[2])[inside]
        for channel, returned in zip(volume, back, strict=True):
            flat, voters = returned.view(-1), channel[inside]
            most = torch.zeros(flat.shape, device=volume.device)
            for value in values:
                votes = torch.zeros_like(most).index_add_(0, target, (voters == value).to(most.dtype))
                more = votes > most
                flat[more] = value
                most = torch.maximum(most, votes)

    def change_appearance(self, volume: Tensor) -> Tensor:
        """Apply the appearance to ``(C, X, Y, Z)`` float in real units, values beyond the window shifted along."""
        if self.is_identity:
            return volume
        changed = torch.empty_like(volume, memory_format=torch.contiguous_format)
        voxels = self._voxels(volume)
        half = tuple(n // 2 for n in self.shape)
        both = smooth_upsample(torch.cat([self.fields.gain, self.fields.offset], dim=1), half)[0]
        texture = None if self.fields.texture is None else smooth_upsample(self.fields.texture, half)[0]
        for start, stop in voxels.slabs():
            part = volume[:, start:stop]
            unit = to_unit(self.scale, part)
            gain, offset = voxels.bring(both, start, stop).chunk(2)
            # unit (e^gain − 1) + 4 offset unit (1 − unit) + texture, as in training; beside a unit of up to 1 the
            # digits that expm1 would save are none, and it takes twice exp's time.
            change = torch.exp(gain).sub_(1).addcmul_(offset, 1 - unit, value=4).mul_(unit)
            if texture is not None:
                change += voxels.bring(texture, start, stop)
            torch.addcmul(part, change, self.scale.span, out=changed[:, start:stop])
        return changed

    def displacement_at_source(self, like: Tensor) -> Tensor:
        """Return φ(q) − q at every source voxel, ``(3, X, Y, Z)`` in source voxels."""
        voxels = self._voxels(like)
        affine = affine_exponential(self.fields.generators)
        parts = []
        for start, stop in voxels.slabs():
            grid = voxels.sampling_grid(self.displacement, affine, start, stop)
            moved = to_voxels(grid[0], voxels.size)
            still = voxel_grid((stop - start, *voxels.size[1:]), moved)[0]
            still[0] += start
            parts.append(moved - still)
        return torch.cat(parts, dim=1)

    def _voxels(self, volume: Tensor) -> SourceVoxels:
        size = (volume.shape[1], volume.shape[2], volume.shape[3])
        return SourceVoxels(size, self.matrix, self.shape, volume.device)

    def _grid_positions(self, volume: Tensor, start: int, stop: int) -> Tensor:
        """Return grid positions of the source voxels ``start:stop`` along the first axis, ``(1, 3, n, Y, Z)``."""
        positions = voxel_grid((stop - start, *volume.shape[2:]), self.displacement.to(volume.device))
        positions[:, 0] += start
        return transform_axes(np.linalg.inv(self.matrix).astype(np.float64), positions)


def transform_axes(matrix: NDArray[np.float64], positions: Tensor) -> Tensor:
    """Apply a ``(4, 4)`` matrix that permutes and scales axes to ``(B, 3, ...)`` positions."""
    rows = []
    for row in range(3):
        column = int(np.abs(matrix[row, :3]).argmax())
        rows.append(positions[:, column] * float(matrix[row, column]) + float(matrix[row, 3]))
    return torch.stack(rows, dim=1)
