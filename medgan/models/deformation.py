"""Smooth invertible deformations: velocity field and affine, and the warp that applies them.

Coordinates are voxel indices of the grid named, components in array order (D, H, W). A deformation is a map φ from
output voxel to input position, ``output(p) = input(φ(p))``: first the diffeomorphism, then the affine.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

SQUARINGS = 6  # 2**6 Euler steps: velocities of a few voxels move less than a tenth of a voxel in each


def voxel_grid(shape: tuple[int, ...] | torch.Size, like: Tensor) -> Tensor:
    """Return ``(1, 3, D, H, W)`` voxel indices."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample_at(volume: Tensor, positions: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Sample ``(B, C, D, H, W)`` at voxel ``positions`` ``(B, 3, d, h, w)``.

    Args:
        volume: what to sample; float.
        positions: voxel indices of ``volume``, array order.
        mode: ``"bilinear"`` (trilinear) or ``"nearest"``.
        padding: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
    """
    grid = to_grid(positions, volume.shape[2:])
    sampled: Tensor = F.grid_sample(volume, grid.to(volume.dtype), mode=mode, padding_mode=padding, align_corners=False)
    return sampled


def to_grid(positions: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Return voxel indices ``(B, 3, d, h, w)`` as ``grid_sample`` takes them, ``(B, d, h, w, 3)`` in −1..1."""
    size = torch.tensor(shape, dtype=positions.dtype, device=positions.device)
    scale = (2.0 / size).reshape(1, 3, 1, 1, 1)
    return (positions * scale + (scale / 2 - 1)).flip(1).movedim(1, -1)


def to_voxels(grid: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Return what ``grid_sample`` takes, ``(..., 3)`` in −1..1, as voxel indices ``(3, ...)``."""
    size = torch.tensor(shape, dtype=grid.dtype, device=grid.device).reshape(3, *(1,) * (grid.ndim - 1))
    positions: Tensor = ((grid.movedim(-1, 0).flip(0) + 1) * size - 1) / 2
    return positions


def sample_grid(volume: Tensor, grid: Tensor, mode: str, padding: str) -> Tensor:
    """Sample ``(C, X, Y, Z)`` float at ``(1, n, Y, Z, 3)`` as ``grid_sample`` does: ``(C, n, Y, Z)``.

    On the CPU ``grid_sample`` runs one thread a batch entry; the positions are laid out as a batch of as many parts.
    """
    grid = grid.to(volume.dtype)
    parts = torch.get_num_threads() if volume.device.type == "cpu" else 1
    if parts == 1 or grid.shape[1] % parts:
        return F.grid_sample(volume[None], grid, mode=mode, padding_mode=padding, align_corners=False)[0]
    batch = grid[0].reshape(parts, grid.shape[1] // parts, *grid.shape[2:])
    same = volume[None].expand(parts, -1, -1, -1, -1)
    sampled = F.grid_sample(same, batch, mode=mode, padding_mode=padding, align_corners=False)
    return sampled.movedim(0, 1).flatten(1, 2)


def smooth_upsample(field: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring a control field to ``shape``: linear, then box-filtered once, like a quadratic B-spline: no kinks."""
    field = F.interpolate(field, size=shape, mode="trilinear", align_corners=False)
    smooth: Tensor = F.avg_pool3d(F.pad(field, (1,) * 6, mode="replicate"), 3, stride=1)
    return smooth


def integrate(velocity: Tensor, squarings: int = SQUARINGS) -> Tensor:
    """Integrate a stationary velocity field by scaling and squaring (Arsigny et al. 2006).

    Args:
        velocity: ``(B, 3, D, H, W)`` in voxels of its own grid per unit time.
        squarings: number of doublings.

    Returns:
        displacement ``u`` of the same shape: ``exp(v)(p) = p + u(p)``. ``integrate(-v)`` is its inverse.
    """
    grid = voxel_grid(velocity.shape[2:], velocity)
    displacement: Tensor = velocity / 2**squarings
    for _ in range(squarings):
        displacement = displacement + sample_at(displacement, grid + displacement)
    return displacement


def affine_exponential(generators: Tensor) -> Tensor:
    """Return ``exp`` of ``(B, 4, 4)`` generators (last row zero): invertible, orientation kept."""
    matrix: Tensor = torch.linalg.matrix_exp(generators.float())
    return matrix


def apply_affine(matrix: Tensor, positions: Tensor, centre: Tensor) -> Tensor:
    """Apply ``(B, 4, 4)`` about ``centre`` (``(3,)``) to positions ``(B, 3, d, h, w)``."""
    shape = positions.shape
    centred = positions.reshape(shape[0], 3, -1) - centre.reshape(1, 3, 1)
    if centred.shape[0] != matrix.shape[0]:
        centred = centred.expand(matrix.shape[0], -1, -1)
    moved = matrix[:, :3, :3] @ centred + matrix[:, :3, 3:]
    return (moved + centre.reshape(1, 3, 1)).reshape(-1, *shape[1:])


def corner_jacobians(displacement: Tensor) -> Tensor:
    """Return the Jacobian determinants at the eight corners of every cell, ``(B, 8, D-1, H-1, W-1)``.

    Between voxels a displacement is interpolated linearly along each axis; in a cell, its Jacobian is made of the
    differences along the cell's edges. Stricter than central differences, which look past the voxel itself.
    """
    along = _plus_identity([torch.diff(displacement, dim=dim) for dim in (2, 3, 4)])

    def edge(axis: int, corner: tuple[int, ...]) -> Tensor:
        part = along[axis]
        for other in range(3):
            if other != axis:
                part = part.narrow(other + 2, corner[other], displacement.shape[other + 2] - 1)
        return part

    corners = itertools.product((0, 1), repeat=3)
    return torch.stack([_determinant([edge(axis, corner) for axis in range(3)]) for corner in corners], dim=1)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Return the Jacobian determinant of ``p + u(p)``, ``(B, D, H, W)``, by central differences.

    Positive everywhere: no fold, topology kept. The share of values ≤ 0 is the fold share.
    """
    return _determinant(_plus_identity(list(torch.gradient(displacement, dim=(2, 3, 4)))))


def _plus_identity(columns: list[Tensor]) -> list[Tensor]:
    """Make derivatives of ``u(p)`` along each axis, ``(B, 3, ...)`` each, those of ``p + u(p)``, in place."""
    for axis, column in enumerate(columns):
        column[:, axis] += 1
    return columns


def _determinant(columns: list[Tensor]) -> Tensor:
    """Return the determinants ``(B, ...)`` of matrices given by their columns, ``(B, 3, ...)`` each.

    torch's own goes through LU, one small matrix at a time; stacked into matrices they would be copied first.
    """
    (a, d, g), (b, e, h), (c, f, i) = (column.unbind(1) for column in columns)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def bending(displacement: Tensor) -> Tensor:
    """Return the mean squared second difference along each axis: 0 for an affine map."""
    terms = [torch.diff(displacement, n=2, dim=dim).square().mean() for dim in (2, 3, 4)]
    return torch.stack(terms).sum()


def roughness(field: Tensor) -> Tensor:
    """Return the mean squared first difference along each axis: 0 for a constant field."""
    terms = [torch.diff(field, dim=dim).square().mean() for dim in (2, 3, 4)]
    return torch.stack(terms).sum()
