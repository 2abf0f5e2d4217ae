"""What a transform leaves in ``applied_operations``: enough to make the sibling again, and to undo it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgan.models.fields import Fields, without_folds
from medgan.sampler import Parameters, Recipe, Sampler, known_affine


def to_record(parameters: Parameters, recipe: Recipe | None, mode: str, precision: str, shape: Any) -> dict[str, Any]:
    """Return the record of a volume, of the same form whether it was replaced (``recipe``) or not.

    Beside the drawn parameters, from which the sibling can be made again of its source, stand the velocity's control
    points in half precision, one for 64 voxels of the network's grid: an inverse meets the sibling alone, and what the
    generator said of the source cannot be learned from that.
    """
    if recipe is None:
        velocity = np.zeros((3, *(n // 4 for n in shape)), np.float16)
        generators = np.zeros((4, 4), np.float32)
    else:
        velocity = recipe.fields.velocity[0].cpu().numpy().astype(np.float16)
        generators = recipe.fields.generators[0].cpu().numpy()
    return {**parameters.to_json(), "mode": mode, "precision": precision, "velocity": velocity, "affine": generators}


def to_parameters(record: Mapping[str, Any]) -> Parameters:
    """Read the drawn parameters of a record."""
    name = record["class_name"]
    return Parameters(
        int(record["seed"]),
        int(record["index"]),
        float(record["strength"]),
        None if name is None else str(name),
        str(record["checkpoint"]),
    )


@torch.no_grad()
def to_recipe(record: Mapping[str, Any], sampler: Sampler, data: Tensor) -> Recipe:
    """Bind the recorded shape to ``data`` ``(C, X, Y, Z)``, the sibling or a prediction on its voxels."""
    velocity = torch.as_tensor(record["velocity"]).to(data.device, torch.float32)[None]
    generators = torch.as_tensor(record["affine"]).to(data.device, torch.float32)[None]
    nothing = torch.zeros_like(velocity[:, :1])
    preprocessing = sampler.preprocessing
    shape = preprocessing.config.shape
    fields, displacement = without_folds(Fields(velocity, generators, nothing, nothing), shape)
    matrix = preprocessing.grid_map(tuple(data.shape[1:]), known_affine(data))
    scale = sampler.scale(data, (0.0, 1.0))  # appearance is not undone
    return Recipe(fields, displacement, matrix, scale, shape, to_parameters(record))


def rescaled(recipe: Recipe, sampler: Sampler, volume: Tensor, input_range: tuple[float, float] | None) -> Recipe:
    """Return a kept recipe for a volume of the same voxels whose intensities may have been changed meanwhile."""
    return replace(recipe, scale=sampler.scale(volume, input_range))
