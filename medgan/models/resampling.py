"""One interpolation of real volumes, so that they are as smooth as siblings are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.models.labels import label_map, sample_labels

BLUR_ROTATION = 0.02  # rad
BLUR_SHIFT = 0.5  # voxels


def resample_slightly(volumes: Tensor, rng: torch.Generator) -> Tensor:
    """Interpolate real volumes as the generator interpolates: a sub-voxel shift and a hint of rotation.

    Without it the blur of one interpolation would tell a sibling from a real volume.

    Args:
        volumes: ``(B, C, D, H, W)``.
        rng: CPU generator; each volume has a draw of its own.
    """
    return resample(volumes, slight_motion(volumes, rng))


def slight_motion(volumes: Tensor, rng: torch.Generator) -> Tensor:
    """Draw the motion of :func:`resample_slightly`: ``(B, 3, 4)`` for :func:`resample`."""
    size = torch.tensor(volumes.shape[2:], dtype=torch.float32)
    shift = 2 * BLUR_SHIFT / size.flip(0)
    return small_affine(len(volumes), rng, BLUR_ROTATION, 0.0, shift, torch.ones(len(volumes)))


def small_affine(
    batch: int, rng: torch.Generator, rotation: float, scale: float, shift: Tensor, chosen: Tensor
) -> Tensor:
    """Draw affines near the identity.

    Args:
        batch: how many.
        rng: CPU generator.
        rotation: standard deviation of the three angles, rad.
        scale: standard deviation of the logarithm of the three scales.
        shift: ``(3,)`` largest shift along W, H and D, as a share of half the axis.
        chosen: ``(B,)`` 1 for those to be drawn, 0 for the identity.

    Returns:
        ``(B, 3, 4)`` for ``affine_grid``.
    """
    angles = torch.randn(batch, 3, generator=rng) * rotation * chosen[:, None]
    stretch = torch.randn(batch, 3, generator=rng) * scale * chosen[:, None]
    shifts = (torch.rand(batch, 3, generator=rng) * 2 - 1) * shift * chosen[:, None]
    linear = torch.zeros(batch, 3, 3)
    for axis, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        linear[:, i, j] = angles[:, axis]
        linear[:, j, i] = -angles[:, axis]
    linear = torch.linalg.matrix_exp(linear + torch.diag_embed(stretch))
    return torch.cat([linear, shifts[:, :, None]], dim=2)


def resample(volumes: Tensor, theta: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample ``(B, C, D, H, W)`` float volumes once under ``(B, 3, 4)`` affines, the border held beyond the edge."""
    grid = F.affine_grid(theta.to(volumes), list(volumes.shape), align_corners=False)
    return F.grid_sample(volumes, grid, mode=mode, padding_mode="border", align_corners=False)


def resample_labels(label: Tensor, theta: Tensor) -> Tensor:
    """Sample a label map ``(C, D, H, W)`` once under one ``(1, 3, 4)`` affine, as :func:`resample` does an image."""
    grid = F.affine_grid(theta.float(), [1, 1, *label.shape[1:]], align_corners=False)
    return sample_labels(label_map(label), grid)
