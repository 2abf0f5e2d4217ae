"""From a recipe to voxels: the sibling of a volume and its label maps, in the dtypes they came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.models.labels import MODE
from medgan.sampler.recipe import Recipe

EXACT_IN_FLOAT32 = 2**24
COUNTED = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)  # label maps of these stay as they are


@dataclass(frozen=True, eq=False)
class Part:
    """One volume of a sample, and what is done to it.

    Attributes:
        volume: ``(C, X, Y, Z)`` on the voxels the recipe was made for.
        mode: ``"bilinear"`` (trilinear), ``"nearest"``, or ``"label"``: the label with the largest interpolated share.
        appearance: whether its appearance changes too (an image) or only its shape (a label map).
    """

    volume: Tensor
    mode: str
    appearance: bool


@torch.no_grad()
def render(recipe: Recipe, volume: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Return the sibling of ``(C, X, Y, Z)``: appearance, then deformation, in the dtype it came in."""
    return render_parts(recipe, [Part(volume, mode, appearance=True)], padding)[0]


@torch.no_grad()
def render_label(recipe: Recipe, label: Tensor, mode: str = "label", padding: str = "border") -> Tensor:
    """Return the label map under the same deformation, in the dtype it came in."""
    return render_parts(recipe, [Part(label, mode, appearance=False)], padding)[0]


def render_pair(
    recipe: Recipe, image: Tensor, label: Tensor | None, mode: str = "bilinear"
) -> tuple[Tensor, Tensor | None]:
    """Return the sibling of an image and, where there is one, of its label map, as :func:`render_parts` does."""
    parts = [Part(image, mode, appearance=True)]
    if label is not None:
        parts.append(Part(label, MODE, appearance=False))
    made = render_parts(recipe, parts)
    return made[0], None if label is None else made[1]


@torch.no_grad()
def render_parts(recipe: Recipe, parts: Sequence[Part], padding: str = "border") -> list[Tensor]:
    """Return image and label maps of one sample under one deformation, whose positions are found once.

    Args:
        recipe: of the sample's image.
        parts: on the same voxels and device.
        padding: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
    """
    if recipe.is_identity:
        return [part.volume.clone() for part in parts]
    volumes = []
    for part in parts:
        data = part.volume if part.mode == MODE and part.volume.dtype in COUNTED else to_floating(part.volume)
        volumes.append((recipe.change_appearance(data) if part.appearance else data, part.mode))
    return recipe.warp_each(volumes, padding, [part.volume.dtype for part in parts])


def to_floating(volume: Tensor) -> Tensor:
    """Return float32; float64 where integers are too large to be exact in float32 (instance numbers)."""
    if volume.dtype in (torch.int32, torch.int64, torch.uint32) and volume.numel():
        low, high = torch.aminmax(volume.to(torch.int64))
        if max(-int(low), int(high)) > EXACT_IN_FLOAT32:
            return volume.to(torch.float64)
    return volume.to(torch.float32)


def channel_first(volume: Any) -> Tensor:
    """Return a volume as ``(C, X, Y, Z)``, a 3-D one with a channel axis added.

    Raises:
        ValueError: it has neither 3 nor 4 axes.
    """
    if hasattr(volume, "as_tensor"):
        volume = volume.as_tensor()
    tensor = volume if isinstance(volume, Tensor) else torch.from_numpy(_torch_compatible(np.asarray(volume)))
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4:
        raise ValueError(f"a volume has 3 axes, or 4 with channels first, got shape {tuple(tensor.shape)}")
    return tensor


def like(result: Tensor, source: Any) -> Any:
    """Return ``result`` in the type and number of axes of ``source``."""
    if source.ndim == 3:
        result = result[0]
    if isinstance(source, np.ndarray):
        return result.cpu().numpy().astype(source.dtype, copy=False)
    if hasattr(source, "as_tensor"):
        from monai.utils import convert_to_dst_type

        return convert_to_dst_type(result, source)[0]
    return result


def _torch_compatible(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    return array.astype(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array
