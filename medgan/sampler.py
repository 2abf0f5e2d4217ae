"""The one way to run a generator: (volume, condition, seed) → sibling volume, label map, parameters.

A sibling is a function of (checkpoint, volume, class, strength, seed, index) alone: volumes go through the network one
by one, so it is the same whatever else is made before, after or beside it.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.checkpoint import RECORD, Checkpoint, load_checkpoint
from medgan.data.preprocess import Scale, resample_to_grid
from medgan.errors import InputFault
from medgan.models.deformation import corner_jacobians, sample_at, voxel_grid
from medgan.models.fields import (
    Fields,
    Shape,
    appearance_change,
    deform,
    deform_inverse,
    without_folds,
)
from medgan.models.generator import Generator
from medgan.seeding import torch_generator
from medgan.tracking import is_model_uri, resolve_model_uri

# Positions and gathered values of this many voxels are held at a time, whatever the volume's size.
SLAB_VOXELS = 4_000_000


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
        return self._resample(volume, mode, padding, inverse=False)

    def unwarp(self, volume: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
        """Undo :meth:`warp` by φ⁻¹, the deformation of −v."""
        return self._resample(volume, mode, padding, inverse=True)

    def change_appearance(self, volume: Tensor) -> Tensor:
        """Apply the appearance to ``(C, X, Y, Z)`` float in real units, values beyond the window shifted along."""
        if self.is_identity:
            return volume
        parts = []
        for start, stop in self._slabs(volume):
            part = volume[:, start:stop]
            positions = self._grid_positions(volume, start, stop)
            change = appearance_change(self.fields, self.scale.to_unit(part)[None], positions, self.shape)[0]
            parts.append(part + change * self.scale.span)
        return torch.cat(parts, dim=1)

    def displacement_at_source(self, like: Tensor) -> Tensor:
        """Return φ(q) − q at every source voxel, ``(3, X, Y, Z)`` in source voxels."""
        parts = []
        for start, stop in self._slabs(like):
            grid = voxel_grid((stop - start, *like.shape[2:]), like)
            grid[:, 0] += start
            parts.append((self._source_positions(like, start, stop, inverse=False) - grid)[0])
        return torch.cat(parts, dim=1)

    def _resample(self, volume: Tensor, mode: str, padding: str, *, inverse: bool) -> Tensor:
        if self.is_identity:
            return volume
        parts = [
            sample_at(volume[None], self._source_positions(volume, start, stop, inverse=inverse), mode, padding)[0]
            for start, stop in self._slabs(volume)
        ]
        return torch.cat(parts, dim=1)

    def _slabs(self, volume: Tensor) -> list[tuple[int, int]]:
        length = volume.shape[1]
        step = max(1, SLAB_VOXELS // math.prod(volume.shape[2:]))
        return [(start, min(start + step, length)) for start in range(0, length, step)]

    def _grid_positions(self, volume: Tensor, start: int, stop: int) -> Tensor:
        """Return grid positions of the source voxels ``start:stop`` along the first axis, ``(1, 3, n, Y, Z)``."""
        positions = voxel_grid((stop - start, *volume.shape[2:]), self.displacement.to(volume.device))
        positions[:, 0] += start
        return _transform(np.linalg.inv(self.matrix).astype(np.float64), positions)

    def _source_positions(self, volume: Tensor, start: int, stop: int, *, inverse: bool) -> Tensor:
        positions = self._grid_positions(volume, start, stop)
        if inverse:
            moved = deform_inverse(self.fields, positions, self.shape)
        else:
            moved = deform(self.fields, self.displacement, positions, self.shape)
        return _transform(self.matrix, moved)


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
    ) -> Recipe:
        """Predict the sibling's fields for ``volume``.

        Args:
            volume: ``(C, X, Y, Z)``, on the device to work on.
            parameters: from :meth:`draw`.
            affine: voxel to RAS mm; ``None`` for a volume in RAS order at the spacing of training.
            input_range: values of ``volume`` that 0 and 1 of the network's range stand for, where a pipeline has
                rescaled it already, e.g. ``(0, 1)`` after ``ScaleIntensityRange``. ``None``: the checkpoint's own
                rule (a window in HU, or percentiles of the volume).

        Raises:
            InputFault: another number of channels than the generator was trained with.
        """
        channels = self.checkpoint.origin.channels
        if volume.shape[0] != channels:
            reason = f"the volume has {volume.shape[0]} channels, the generator {channels}"
            raise InputFault(self.checkpoint.folder, "CHANNELS", reason, "give volumes like those of training")
        data = volume.to(torch.float32)
        shape = self.preprocessing.config.shape
        matrix = self.preprocessing.grid_map(tuple(volume.shape[1:]), affine)
        scale = self.preprocessing.scale(data) if input_range is None else _fixed_scale(data, input_range)
        unit = resample_to_grid(scale.to_unit(data), matrix, shape)
        z = torch.randn(
            1, self.generator.config.latent, generator=torch_generator(parameters.seed, "noise", parameters.index)
        )
        index = torch.tensor([self.class_index(parameters.class_name)], device=volume.device)
        fields: Fields = self.generator_on(volume.device)(unit[None], z.to(volume.device), index)
        fields, displacement = without_folds(fields.scaled(parameters.strength), shape)
        return Recipe(fields, displacement, matrix, scale, shape, parameters, _grid_spacing(matrix, affine))

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
        tensor = _channel_first(volume)
        label_tensor = None if label is None else _channel_first(label)
        if label_tensor is not None and label_tensor.shape[1:] != tensor.shape[1:]:
            raise ValueError(
                f"label {tuple(label_tensor.shape)} and volume {tuple(tensor.shape)} differ in their voxels"
            )
        siblings = []
        for index in range(n):
            parameters = self.draw(seed, index, strength, class_name)
            recipe = self.recipe(tensor, parameters, affine, input_range)
            siblings.append(
                Sibling(
                    _like(render(recipe, tensor), volume),
                    None if label_tensor is None else _like(render_label(recipe, label_tensor), label),
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


@torch.no_grad()
def render(recipe: Recipe, volume: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Return the sibling of ``(C, X, Y, Z)``: appearance, then deformation, in the dtype it came in."""
    if recipe.is_identity:
        return volume.clone()
    data = volume.to(torch.float32)
    return to_dtype(recipe.warp(recipe.change_appearance(data), mode, padding), volume.dtype)


@torch.no_grad()
def render_label(recipe: Recipe, label: Tensor, mode: str = "nearest", padding: str = "border") -> Tensor:
    """Return the label map under the same deformation, in the dtype it came in."""
    if recipe.is_identity:
        return label.clone()
    return to_dtype(recipe.warp(label.to(torch.float32), mode, padding), label.dtype)


def to_dtype(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast; into an integer type rounded and clipped to its range."""
    if dtype == torch.bool:
        return data > 0.5
    if dtype.is_floating_point:
        return data.to(dtype)
    bounds = torch.iinfo(dtype)
    return data.round().clamp(bounds.min, bounds.max).to(dtype)


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


def _grid_spacing(matrix: NDArray[np.float64], affine: NDArray[np.float64] | None) -> tuple[float, float, float]:
    if affine is None:
        return (1.0, 1.0, 1.0)
    x, y, z = (float(v) for v in np.sqrt(((np.asarray(affine) @ matrix)[:3, :3] ** 2).sum(axis=0)))
    return x, y, z


def _transform(matrix: NDArray[np.float64], positions: Tensor) -> Tensor:
    """Apply a ``(4, 4)`` matrix that permutes and scales axes to ``(B, 3, ...)`` positions."""
    rows = []
    for row in range(3):
        column = int(np.abs(matrix[row, :3]).argmax())
        rows.append(positions[:, column] * float(matrix[row, column]) + float(matrix[row, 3]))
    return torch.stack(rows, dim=1)


def _channel_first(volume: Any) -> Tensor:
    if hasattr(volume, "as_tensor"):
        volume = volume.as_tensor()
    tensor = volume if isinstance(volume, Tensor) else torch.from_numpy(_torch_compatible(np.asarray(volume)))
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4:
        raise ValueError(f"a volume has 3 axes, or 4 with channels first, got shape {tuple(tensor.shape)}")
    return tensor


def _torch_compatible(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    return array.astype(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array


def _like(result: Tensor, source: Any) -> Any:
    """Return ``result`` in the type and number of axes of ``source``."""
    if source.ndim == 3:
        result = result[0]
    if isinstance(source, np.ndarray):
        return result.cpu().numpy().astype(source.dtype, copy=False)
    if hasattr(source, "as_tensor"):
        from monai.utils import convert_to_dst_type

        return convert_to_dst_type(result, source)[0]
    return result


__all__ = ["Parameters", "Recipe", "Sampler", "Sibling", "known_affine", "load", "render", "render_label", "to_dtype"]
