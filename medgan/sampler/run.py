"""The sampler: a checkpoint that predicts recipes and makes siblings of them."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.checkpoint import RECORD, Checkpoint, load_checkpoint
from medgan.data.preprocess import Scale, resample_to_grid
from medgan.errors import InputFault
from medgan.models.fields import Fields, Shape, without_folds
from medgan.models.generator import Generator
from medgan.sampler.recipe import Parameters, Recipe
from medgan.sampler.render import Part, channel_first, like, render_parts
from medgan.sampler.warp import to_unit
from medgan.seeding import torch_generator
from medgan.tracking import is_model_uri, resolve_model_uri

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, eq=False)
class Sibling:
    """A synthetic volume.

    Attributes:
        volume: shape, dtype and type (NumPy or torch) of the source.
        label: label map under the same deformation, or ``None``.
        parameters: what was drawn.
        jacobian_min: smallest Jacobian determinant of the deformation.
        fold_share: share of folded voxels; 0.
    """

    volume: Any
    label: Any
    parameters: Parameters
    jacobian_min: float
    fold_share: float


class Sampler:
    """Runs one generator.

    Args:
        checkpoint: loaded and verified.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.generator = checkpoint.generator
        self.preprocessing = checkpoint.preprocessing
        self._copies: dict[torch.device, Generator] = {torch.device("cpu"): self.generator}

    def generator_on(self, device: torch.device) -> Generator:
        """Return the network on ``device``: one copy a device, so CPU workers and a CUDA batch do not fight over it."""
        if device not in self._copies:
            self._copies[device] = copy.deepcopy(self.generator).to(device)
        return self._copies[device]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes the generator was trained with."""
        return self.checkpoint.origin.class_names

    def class_index(self, class_name: str | int | None) -> int:
        """Return the index of a class given by name or index; ``None`` is "unknown".

        Raises:
            InputFault: no such class.
        """
        if class_name is None:
            return len(self.class_names)
        if isinstance(class_name, str) and class_name in self.class_names:
            return self.class_names.index(class_name)
        if not isinstance(class_name, str) and 0 <= int(class_name) < len(self.class_names):
            return int(class_name)
        known = ", ".join(self.class_names) or "none"
        raise InputFault(
            self.checkpoint.folder, "UNKNOWN_CLASS", f"no class {class_name!r}", f"the generator knows: {known}"
        )

    def draw(self, seed: int, index: int = 0, strength: float = 1.0, class_name: str | int | None = None) -> Parameters:
        """Bind seed, index, strength and class to this checkpoint."""
        number = self.class_index(class_name)
        name = self.class_names[number] if number < len(self.class_names) else None
        return Parameters(int(seed), int(index), float(strength), name, self.checkpoint.digest)

    @torch.no_grad()
    def recipe(
        self,
        volume: Tensor,
        parameters: Parameters,
        affine: NDArray[np.float64] | None = None,
        input_range: tuple[float, float] | None = None,
        precision: Precision = "float32",
    ) -> Recipe:
        """Predict the sibling's fields for ``volume``.

        Args:
            volume: ``(C, X, Y, Z)``, on the device to work on.
            parameters: from :meth:`draw`.
            affine: voxel to RAS mm; ``None`` for a volume in RAS order at the spacing of training.
            input_range: values of ``volume`` that 0 and 1 of the network's range stand for, where a pipeline has
                rescaled it already, e.g. ``(0, 1)`` after ``ScaleIntensityRange``. ``None``: the checkpoint's own
                rule (a window in HU, or percentiles of the volume).
            precision: of the network; all else is float32.

        Raises:
            InputFault: another number of channels than the generator was trained with.
        """
        channels = self.checkpoint.origin.channels
        if volume.shape[0] != channels:
            reason = f"the volume has {volume.shape[0]} channels, the generator {channels}"
            raise InputFault(self.checkpoint.folder, "CHANNELS", reason, "give volumes like those of training")
        shape = self.preprocessing.config.shape
        matrix = self.preprocessing.grid_map(tuple(volume.shape[1:]), affine)
        scale = self.scale(volume, input_range)
        data, crop_matrix = _crop_to_grid(volume, matrix, shape)
        unit = resample_to_grid(to_unit(scale, data.to(torch.float32)), crop_matrix, shape)
        z = torch.randn(
            1, self.generator.config.latent, generator=torch_generator(parameters.seed, "noise", parameters.index)
        )
        index = torch.tensor([self.class_index(parameters.class_name)], device=volume.device)
        with torch.autocast(volume.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            fields: Fields = self.generator_on(volume.device)(unit[None], z.to(volume.device), index)
        fields, displacement = without_folds(fields.scaled(parameters.strength), shape)
        return Recipe(fields, displacement, matrix, scale, shape, parameters, _grid_spacing(matrix, affine))

    def scale(self, volume: Tensor, input_range: tuple[float, float] | None = None) -> Scale:
        """Return the intensity scale of ``(C, X, Y, Z)``; see :meth:`recipe`."""
        data = volume.to(torch.float32)
        return self.preprocessing.scale(data) if input_range is None else _fixed_scale(data, input_range)

    @torch.no_grad()
    def sample(
        self,
        volume: Any,
        label: Any = None,
        *,
        n: int = 1,
        seed: int = 0,
        strength: float = 1.0,
        class_name: str | int | None = None,
        affine: NDArray[np.float64] | None = None,
        input_range: tuple[float, float] | None = None,
    ) -> list[Sibling]:
        """Make ``n`` siblings of one volume.

        Args:
            volume: ``(C, X, Y, Z)`` or ``(X, Y, Z)``; NumPy array, tensor or MetaTensor, in real units.
            label: label map on the same voxels, with or without a channel axis, or ``None``.
            n: how many; sibling ``i`` does not depend on ``n``.
            seed: seed of the noise.
            strength: 0 is the identity, exactly; 1 what was learned.
            class_name: the source's class, where the generator has classes.
            affine: voxel to RAS mm; taken from a MetaTensor when not given (see :func:`known_affine`).
            input_range: see :meth:`recipe`.
        """
        if affine is None:
            affine = known_affine(volume)
        tensor = channel_first(volume)
        label_tensor = None if label is None else channel_first(label)
        if label_tensor is not None and label_tensor.shape[1:] != tensor.shape[1:]:
            raise ValueError(
                f"label {tuple(label_tensor.shape)} and volume {tuple(tensor.shape)} differ in their voxels"
            )
        siblings = []
        for index in range(n):
            parameters = self.draw(seed, index, strength, class_name)
            recipe = self.recipe(tensor, parameters, affine, input_range)
            parts = [Part(tensor, "bilinear", appearance=True)]
            if label_tensor is not None:
                parts.append(Part(label_tensor, "label", appearance=False))
            made = render_parts(recipe, parts)
            siblings.append(
                Sibling(
                    like(made[0], volume),
                    None if label is None else like(made[1], label),
                    parameters,
                    recipe.jacobian_min,
                    recipe.fold_share,
                )
            )
        return siblings


def known_affine(volume: Any) -> NDArray[np.float64] | None:
    """Return the affine of a MetaTensor; ``None`` where there is none or it is MONAI's default, the identity."""
    if not hasattr(volume, "affine"):
        return None
    affine = np.asarray(torch.as_tensor(volume.affine).cpu(), dtype=np.float64)
    return None if np.array_equal(affine, np.eye(4)) else affine


def load(folder: str | Path) -> Sampler:
    """Load a checkpoint, verified, ready to sample. A checkpoint unchanged on disk is loaded once a process.

    Args:
        folder: its folder, or a generator in an MLflow registry: ``models:/name@alias`` or ``models:/name/1``
            (see :func:`~medgan.tracking.resolve_model_uri`).

    Raises:
        InputFault: no such checkpoint or registered generator, or one that is damaged.
    """
    folder = resolve_model_uri(folder) if is_model_uri(folder) else Path(folder)
    record = folder / RECORD
    stamp = record.stat().st_mtime_ns if record.is_file() else 0
    return _load(folder.absolute() if stamp else folder, stamp)


@functools.lru_cache(maxsize=8)
def _load(folder: Path, stamp: int) -> Sampler:  # noqa: ARG001 - the stamp makes a rewritten checkpoint a new one
    return Sampler(load_checkpoint(folder))


def _fixed_scale(data: Tensor, input_range: tuple[float, float]) -> Scale:
    low, high = (torch.full((data.shape[0], 1, 1, 1), float(v), device=data.device) for v in input_range)
    return Scale(low, high - low)


def _crop_to_grid(volume: Tensor, matrix: NDArray[np.float64], shape: Shape) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the part of a volume that its grid samples, with a margin, and the grid's matrix into that part."""
    if np.abs(matrix[:3, :3]).max() >= 2:  # averaged first, in blocks that start at the volume's first voxel
        return volume, matrix
    cropped = matrix.copy()
    for axis in range(3):
        grid_axis = int(np.abs(matrix[axis, :3]).argmax())
        ends = sorted((matrix[axis, 3], matrix[axis, 3] + matrix[axis, grid_axis] * (shape[grid_axis] - 1)))
        size = volume.shape[axis + 1]
        start = min(max(int(np.floor(ends[0])) - 1, 0), size - 1)
        stop = max(min(int(np.ceil(ends[1])) + 2, size), start + 1)
        volume = volume.narrow(axis + 1, start, stop - start)
        cropped[axis, 3] -= start
    return volume, cropped


def _grid_spacing(matrix: NDArray[np.float64], affine: NDArray[np.float64] | None) -> tuple[float, float, float]:
    if affine is None:
        return (1.0, 1.0, 1.0)
    x, y, z = (float(v) for v in np.sqrt(((np.asarray(affine) @ matrix)[:3, :3] ** 2).sum(axis=0)))
    return x, y, z
