"""What the generator says about a volume: a velocity field, an affine, and an appearance; and how it is applied.

All is predicted on coarse grids that span the network's grid edge to edge, so it can be evaluated at any position.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.models.deformation import (
    SQUARINGS,
    affine_exponential,
    apply_affine,
    corner_jacobians,
    integrate,
    sample_at,
    smooth_upsample,
    voxel_grid,
)

Shape = tuple[int, int, int]


@dataclass(eq=False)  # not frozen: Fabric rebuilds what a network returns
class Fields:
    """A sibling's recipe.

    Attributes:
        velocity: ``(B, 3, d, h, w)`` control points, in voxels of the network's grid per unit time.
        generators: ``(B, 4, 4)`` of the affine about the grid's centre, voxels.
        gain: ``(B, C, d, h, w)`` log gain at the control points.
        offset: ``(B, C, d, h, w)`` offset of the middle of the 0..1 range, in its units; it fades to 0 at both ends,
            so that background stays background, and with the configuration's bound keeps the order of grey values.
        texture: ``(B, C, 2d, 2h, 2w)`` residual in the same units, or ``None``.
    """

    velocity: Tensor
    generators: Tensor
    gain: Tensor
    offset: Tensor
    texture: Tensor | None = None

    def scaled(self, strength: float) -> Fields:
        """Return the recipe with every part scaled: 0 is the identity, 1 what was learned."""
        return Fields(
            self.velocity * strength,
            self.generators * strength,
            self.gain * strength,
            self.offset * strength,
            None if self.texture is None else self.texture * strength,
        )

    def inverse_shape(self) -> Fields:
        """Return the recipe with time reversed in velocity and affine (appearance as it is)."""
        return replace(self, velocity=-self.velocity, generators=-self.generators)


def displacement_field(fields: Fields, shape: Shape, squarings: int = SQUARINGS) -> Tensor:
    """Integrate the velocity at half the grid's resolution.

    Returns:
        ``(B, 3, D/2, H/2, W/2)``: displacement in voxels of the *network's* grid.
    """
    half = tuple(n // 2 for n in shape)
    return integrate(smooth_upsample(fields.velocity, half).float() / 2, squarings) * 2


def without_folds(fields: Fields, shape: Shape) -> tuple[Fields, Tensor]:
    """Halve each velocity until its deformation has no fold; return the recipes and their displacement fields.

    With the bounds of the configuration this is a guard that rarely acts; with it a positive Jacobian at every corner
    of the field's cells is no hope but a property of every volume that leaves the sampler.
    """
    displacement = displacement_field(fields, shape)
    while bool((folded := (corner_jacobians(displacement / 2) <= 0).flatten(1).any(dim=1)).any()):
        halves = torch.where(folded, 0.5, 1.0).to(fields.velocity)  # a row is not tamed for another's sake
        fields = replace(fields, velocity=fields.velocity * halves.reshape(-1, 1, 1, 1, 1))
        displacement = displacement_field(fields, shape)
    return fields, displacement


def centre(shape: Shape, like: Tensor) -> Tensor:
    """Return the grid's centre, voxels."""
    return (torch.tensor(shape, dtype=like.dtype, device=like.device) - 1) / 2


def evaluate(field: Tensor, positions: Tensor, shape: Shape) -> Tensor:
    """Evaluate a coarse field that spans the grid ``shape`` at grid voxel ``positions``; constant beyond the edge."""
    coarse = torch.tensor(field.shape[2:], dtype=positions.dtype, device=positions.device)
    ratio = coarse / torch.tensor(shape, dtype=positions.dtype, device=positions.device)
    ratio = ratio.reshape(1, 3, 1, 1, 1)
    return sample_at(field, positions * ratio + (ratio - 1) / 2)


def deform(fields: Fields, displacement: Tensor, positions: Tensor, shape: Shape) -> Tensor:
    """Return φ at grid voxel ``positions`` ``(B or 1, 3, d, h, w)``: the diffeomorphism, then the affine."""
    positions = positions.expand(displacement.shape[0], -1, -1, -1, -1)
    moved = positions + evaluate(displacement, positions, shape)
    return apply_affine(affine_exponential(fields.generators), moved, centre(shape, positions))


def deform_inverse(fields: Fields, positions: Tensor, shape: Shape) -> Tensor:
    """Return φ⁻¹ at ``positions``: the inverse affine, then the diffeomorphism of −v."""
    back = fields.inverse_shape()
    moved = apply_affine(affine_exponential(back.generators), positions, centre(shape, positions))
    return moved + evaluate(displacement_field(back, shape), moved, shape)


def appearance_change(fields: Fields, unit: Tensor, positions: Tensor | None, shape: Shape) -> Tensor:
    """Return ``appearance(x) − x`` for ``unit`` ``(B, C, ...)`` in 0..1.

    Args:
        unit: values in the network's range.
        positions: grid voxels of ``unit``'s voxels; ``None`` where they are the grid's own.
        shape: the grid.
    """
    half = tuple(n // 2 for n in shape)

    def at_voxels(field: Tensor) -> Tensor:
        smooth = smooth_upsample(field, half)
        if positions is None:
            return F.interpolate(smooth, size=shape, mode="trilinear", align_corners=False)
        return evaluate(smooth, positions, shape)

    gain, offset = at_voxels(fields.gain), at_voxels(fields.offset)
    texture = None if fields.texture is None else at_voxels(fields.texture)
    change = unit * torch.expm1(gain) + offset * 4 * unit * (1 - unit)
    return change if texture is None else change + texture


def apply_on_grid(fields: Fields, unit: Tensor, displacement: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Apply a recipe to volumes on the network's own grid (training).

    Args:
        fields: recipes of B volumes.
        unit: ``(B, C, D, H, W)`` in 0..1.
        displacement: of the recipes, where it is known already (:func:`without_folds`).

    Returns:
        siblings of the same shape, and the displacement ``φ(p) − p`` at every grid voxel, ``(B, 3, D, H, W)``.
    """
    shape = (unit.shape[2], unit.shape[3], unit.shape[4])
    grid = voxel_grid(shape, unit)
    if displacement is None:
        displacement = displacement_field(fields, shape)
    positions = deform(fields, displacement, grid, shape)
    changed = unit + appearance_change(fields, unit, None, shape)
    return sample_at(changed, positions), positions - grid
