"""A picture of what a transform did to one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medgan.models.deformation import jacobian_determinant
from medgan.pictures import deformation_figure
from medgan.sampler import Recipe, render, render_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@torch.no_grad()
def explain_figure(recipe: Recipe, image: Tensor, label: Tensor | None = None) -> Figure:
    """Draw original, sibling, difference, deformed grid, Jacobian determinant and appearance field.

    Args:
        recipe: bound to ``image``.
        image: ``(C, X, Y, Z)``; its first channel is shown.
        label: ``(C, X, Y, Z)`` on the same voxels; outlines of its first channel are drawn on both.
    """
    source = torch.as_tensor(image).detach().cpu()
    data = source.as_tensor() if hasattr(source, "as_tensor") else source
    mask = None if label is None else torch.as_tensor(label).detach().cpu()[:1]
    mask = mask.as_tensor() if mask is not None and hasattr(mask, "as_tensor") else mask
    displacement = recipe.displacement_at_source(data)
    values = data.to(torch.float32)
    change = (recipe.change_appearance(values) - values) / recipe.scale.span
    spacing = tuple(float(v) for v in image.pixdim) if hasattr(image, "pixdim") else None
    return deformation_figure(
        data[0].numpy(),
        render(recipe, data)[0].numpy(),
        displacement.numpy(),
        jacobian_determinant(displacement[None])[0].numpy(),
        label=None if mask is None else mask[0].numpy(),
        sibling_label=None if mask is None else render_label(recipe, mask)[0].numpy(),
        spacing=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
        appearance=change[0].numpy(),
    )
