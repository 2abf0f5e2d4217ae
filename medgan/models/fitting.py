"""Siblings fitted to a target: the deformation under which one volume comes to look like another.

The fields are those of a generator's siblings, found for one patient instead of drawn. A label map warped along is then
a guess at that patient's. What is compared are intensities relative to their neighbourhood, so that brightness and
contrast of the two volumes need not agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.models.deformation import bending, sample_at, voxel_grid
from medgan.models.fields import Fields, Shape, deform, displacement_field

WINDOW = 9  # voxels along an axis that an intensity is compared with
ROUGH_SQUARINGS = 3  # while fitting: integrating is most of the work
FLOOR = 0.03  # of the 0..1 range: below this a neighbourhood is flat and its noise is not to be amplified


@dataclass(frozen=True)
class Effort:
    """How long and how freely a sibling is bent.

    Attributes:
        coarse, fine: steps at half and at the full resolution.
        rate: of the velocity, voxels of the grid; of the affine's generators a tenth.
        bending: weight of the displacement's bending.
    """

    coarse: int = 20
    fine: int = 6
    rate: float = 0.25
    bending: float = 0.1


def standardised(unit: Tensor) -> Tensor:
    """Return intensities ``(B, C, D, H, W)`` relative to mean and spread of their neighbourhood, a little smoothed."""
    smooth = (unit + _box(unit, 3)) / 2
    mean = _box(smooth, WINDOW)
    variance = _box(smooth.square(), WINDOW) - mean.square()
    return (smooth - mean) / (variance.clamp_min(0).sqrt() + FLOOR)


def mismatch(standard: Tensor, target: Tensor, fields: Fields) -> Tensor:
    """Return the squared difference of the deformed sources to the target, ``(B, 1, D, H, W)``, mean over channels.

    Args:
        standard: ``(B, C, D, H, W)`` sources, :func:`standardised`.
        target: ``(1, C, D, H, W)``, likewise.
        fields: of the sources; their appearance does not matter.
    """
    shape = _shape_of(standard)
    moved = sample_at(standard, positions(fields, shape, voxel_grid(shape, standard)))
    return (moved - target).square().mean(dim=1, keepdim=True)


def fit_shape(standard: Tensor, target: Tensor, start: Fields, effort: Effort | None = None) -> Fields:
    """Bend siblings until they show the target.

    Args:
        standard: ``(B, C, D, H, W)`` sources, :func:`standardised`.
        target: ``(1, C, D, H, W)``, likewise.
        start: the siblings' fields to start from.
        effort: steps, rates and weights.

    Returns:
        Fields of the same form with velocity and affine fitted, and no change of appearance.
    """
    effort = effort or Effort()
    shape = _shape_of(standard)
    velocity = start.velocity.detach().clone().requires_grad_()
    change = torch.zeros_like(start.generators).requires_grad_()
    keep = torch.ones_like(start.generators)
    keep[:, 3] = 0  # the last row of an affine's generators is 0
    reach = torch.ones_like(keep)
    reach[:, :3, 3] = max(shape) / 2  # a shift counts in voxels, a rotation moves the faces by so many
    optimiser = torch.optim.Adam(
        [{"params": [velocity], "lr": effort.rate}, {"params": [change], "lr": effort.rate / 10}],
        eps=1e-6,  # where there is nothing to gain, rounding must not make whole steps
    )

    def fitted() -> Fields:
        return replace(start, velocity=velocity, generators=start.generators.detach() + change * keep * reach)

    stages = ((2, effort.coarse), (1, effort.fine))
    with torch.enable_grad():
        for factor, steps in stages:
            grid = voxel_grid(tuple(n // factor for n in shape), standard) * factor + (factor - 1) / 2
            sources, wanted = standard, target
            if factor > 1:
                sources, wanted = _box(standard, 3), sample_at(_box(target, 3), grid)
            for _ in range(steps):
                optimiser.zero_grad()
                fields = fitted()
                displacement = displacement_field(fields, shape, ROUGH_SQUARINGS)
                moved = sample_at(sources, deform(fields, displacement, grid, shape))
                loss = (moved - wanted).square().mean(dim=(1, 2, 3, 4)).sum()
                loss = loss + effort.bending * bending(displacement) * len(standard)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    last = fitted()
    nothing = torch.zeros_like(start.gain)
    return Fields(last.velocity.detach(), last.generators.detach(), nothing, torch.zeros_like(start.offset))


def identity(count: int, shape: Shape, channels: int = 1) -> Fields:
    """Return the fields of ``count`` siblings that are their source."""
    control = tuple(n // 4 for n in shape)
    nothing = torch.zeros(count, channels, *control)
    return Fields(torch.zeros(count, 3, *control), torch.zeros(count, 4, 4), nothing, nothing)


def positions(fields: Fields, shape: Shape, grid: Tensor) -> Tensor:
    """Return φ at positions ``grid`` ``(1, 3, d, h, w)`` of the network's grid."""
    return deform(fields, displacement_field(fields, shape), grid, shape)


def _box(volume: Tensor, size: int) -> Tensor:
    """Return the mean over ``size``³ voxels, the border held beyond the edge."""
    half = size // 2
    padded = F.pad(volume, (half,) * 6, mode="replicate")
    for axis in range(3):  # one axis at a time: 3 · size products instead of size³
        kernel = [1, 1, 1]
        kernel[axis] = size
        padded = F.avg_pool3d(padded, kernel, stride=1)
    return padded


def _shape_of(volume: Tensor) -> Shape:
    return volume.shape[2], volume.shape[3], volume.shape[4]
