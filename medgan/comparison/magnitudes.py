"""How large and how smooth a generator's changes are, and random fields of the same size and smoothness.

The control ``random-deformation`` asks whether it matters *what* a generator has learned, or only that volumes are
bent and shaded this much. So size is matched at every control point and smoothness by the power spectrum; all else is
left to chance: the fields are Gaussian and know nothing of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from medgan.data.preprocess import Preprocessing, Scale
from medgan.models.fields import Fields, without_folds
from medgan.sampler import Parameters, Recipe, Sampler, known_affine
from medgan.seeding import derive_seed, torch_generator

# Folding and the way from velocity to displacement are not linear, so the size is corrected a few times.
CORRECTIONS = 3
CORRECTION_DRAWS = 32


@dataclass(frozen=True, eq=False)
class FieldMagnitude:
    """Size and smoothness of a random field on a grid of control points.

    Attributes:
        rms: ``(K, d, h, w)`` root mean square of each component at each control point, in the field's units.
        power: ``(d, h, w)`` mean power spectrum (orthonormal cosine transform) of the field over its local size: how
            much of it is coarse and how much fine.
        correlation: of neighbouring control points along each axis, −1 to 1.
        bound: largest absolute value; infinite for none.
    """

    rms: Tensor
    power: Tensor
    correlation: tuple[float, float, float]
    bound: float = math.inf

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw a Gaussian field ``(1, K, d, h, w)`` of this size and spectrum."""
        unit = _cosine_inverse(torch.randn(self.rms.shape, generator=generator) * self.power.sqrt())
        return (unit * self._scale)[None].clamp(-self.bound, self.bound)

    @cached_property
    def _scale(self) -> Tensor:
        """``(K, d, h, w)`` by which to multiply a field of the spectrum, so that it has its size after the bound."""
        size = self.rms if math.isinf(self.bound) else self.bound * _before_bound(self.rms / max(self.bound, 1e-12))
        squares = self.power
        for axis, points in enumerate(self.power.shape):
            waves = torch.from_numpy(fft.idct(np.eye(points), norm="ortho", axis=0)).to(squares)
            squares = torch.tensordot(squares, waves.square(), dims=([axis], [1])).movedim(-1, axis)
        scale: Tensor = size / squares.clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        return scale


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """The sizes of a generator's fields at strength 1.

    Attributes:
        velocity: in voxels of the generator's grid.
        gain: of the log gain.
        offset: in units of the 0..1 range.
        texture: the same, or ``None`` where the generator has none.
        rotation: ``(3, 3)`` RMS of the antisymmetric part of the affine's generators, rad.
        stretch: ``(3, 3)`` RMS of their symmetric part.
        shift: ``(3,)`` RMS of their shift, voxels of the generator's grid.
        displacement: RMS length of the diffeomorphism's displacement, voxels of the generator's grid.
        preprocessing: the generator's grid.
    """

    velocity: FieldMagnitude
    gain: FieldMagnitude
    offset: FieldMagnitude
    texture: FieldMagnitude | None
    rotation: Tensor
    stretch: Tensor
    shift: Tensor
    displacement: float
    preprocessing: Preprocessing

    def draw(self, seed: int) -> Fields:
        """Draw a recipe of strength 1 on the generator's grid, a function of ``seed`` alone."""
        generator = torch_generator(seed, "matched")
        velocity, gain, offset = (part.draw(generator) for part in (self.velocity, self.gain, self.offset))
        texture = None if self.texture is None else self.texture.draw(generator)
        rotation = torch.randn(3, 3, generator=generator).triu(1) * self.rotation
        stretch = torch.randn(3, 3, generator=generator).triu() * self.stretch
        generators = torch.zeros(1, 4, 4)
        generators[0, :3, :3] = rotation - rotation.T + stretch + stretch.triu(1).T
        generators[0, :3, 3] = torch.randn(3, generator=generator) * self.shift
        return Fields(velocity, generators, gain, offset, texture)

    @torch.no_grad()
    def recipe(self, image: Tensor, seed: int, strength: float) -> Recipe:
        """Return a draw as a recipe for ``image`` ``(C, X, Y, Z)``, values in 0..1, without folds."""
        shape = self.preprocessing.config.shape
        fields, displacement = without_folds(self.draw(seed).scaled(strength), shape)
        matrix = self.preprocessing.grid_map(tuple(image.shape[1:]), known_affine(image))
        zero = torch.zeros(image.shape[0], 1, 1, 1)
        parameters = Parameters(seed, 0, strength, None, "")
        return Recipe(fields, displacement, matrix, Scale(zero, zero + 1), shape, parameters)

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the report: RMS over components and control points, smoothness along R, A, S."""
        parts = {"velocity": self.velocity, "gain": self.gain, "offset": self.offset}
        if self.texture is not None:
            parts["texture"] = self.texture
        figures: dict[str, Any] = {
            name: {"rms": _rms(part.rms), "correlation": list(part.correlation)} for name, part in parts.items()
        }
        above = torch.ones(3, 3).triu(1).bool()
        figures["rotation"] = _rms(self.rotation[above])
        figures["stretch"] = _rms(self.stretch[torch.ones(3, 3).triu().bool()])
        return {**figures, "shift": self.shift.tolist(), "displacement": self.displacement}


@torch.no_grad()
def measure_magnitudes(
    sampler: Sampler, images: Tensor, class_names: Sequence[str | None], draws: int, seed: int
) -> Magnitudes:
    """Measure a generator's fields over the training volumes.

    The velocity is corrected until the random fields displace voxels as far as the generator's, on average.

    Args:
        sampler: the generator.
        images: ``(N, C, *shape)`` in 0..1, training volumes on the study's grid.
        class_names: of each; one the generator was not trained with counts as unknown.
        draws: siblings of each volume.
        seed: of the siblings' noise.

    Raises:
        ValueError: no volume, no draw, or not a class name for each volume.
    """
    if draws < 1 or len(images) < 1 or len(images) != len(class_names):
        raise ValueError(f"got {len(images)} volumes, {len(class_names)} class names and {draws} draws")
    found: list[Fields] = []
    squares: list[float] = []
    for number, (image, name) in enumerate(zip(images, class_names, strict=True)):
        known = name if name in sampler.class_names else None
        for draw in range(draws):
            parameters = sampler.draw(derive_seed(seed, "magnitudes", number), draw, 1.0, known)
            recipe = sampler.recipe(image, parameters, None, (0.0, 1.0))
            found.append(recipe.fields)
            squares.append(_mean_square_length(recipe.displacement))
    generators = torch.cat([f.generators for f in found]).cpu()
    linear = generators[:, :3, :3]
    config = sampler.generator.config
    textures = [f.texture for f in found if f.texture is not None]
    magnitudes = Magnitudes(
        measure_field(torch.cat([f.velocity for f in found])),
        measure_field(torch.cat([f.gain for f in found]), config.max_gain),
        measure_field(torch.cat([f.offset for f in found]), config.max_offset),
        measure_field(torch.cat(textures), config.max_texture) if textures else None,
        _rms_of_draws((linear - linear.transpose(1, 2)) / 2),
        _rms_of_draws((linear + linear.transpose(1, 2)) / 2),
        _rms_of_draws(generators[:, :3, 3]),
        math.sqrt(sum(squares) / len(squares)),
        sampler.preprocessing,
    )
    return _corrected(magnitudes, seed)


def measure_field(fields: Tensor, bound: float = math.inf) -> FieldMagnitude:
    """Measure size and smoothness of draws ``(N, K, d, h, w)`` of a field."""
    fields = fields.detach().float().cpu()
    rms = _rms_of_draws(fields)
    # Smoothness is that of the field relative to its local size, else the map of sizes would count twice.
    unit = fields / rms.clamp_min(torch.finfo(torch.float32).tiny)
    correlations = []
    for axis in (2, 3, 4):
        length = unit.shape[axis]
        here, there = unit.narrow(axis, 0, length - 1), unit.narrow(axis, 1, length - 1)
        size = float((here.square() + there.square()).sum() / 2)
        correlations.append(float((here * there).sum()) / size if size > 0 else 1.0)
    spectrum = torch.from_numpy(fft.dctn(unit.numpy(), axes=(2, 3, 4), norm="ortho"))
    power = spectrum.square().mean(dim=(0, 1))
    return FieldMagnitude(rms, power, (correlations[0], correlations[1], correlations[2]), bound)


def _corrected(magnitudes: Magnitudes, seed: int) -> Magnitudes:
    """Scale the velocity until the drawn displacements have the RMS of the generator's."""
    shape = magnitudes.preprocessing.config.shape
    for _ in range(CORRECTIONS):
        squares = [
            _mean_square_length(without_folds(magnitudes.draw(derive_seed(seed, "correction", i)), shape)[1])
            for i in range(CORRECTION_DRAWS)
        ]
        drawn = math.sqrt(sum(squares) / len(squares))
        if drawn == 0:
            break
        velocity = replace(magnitudes.velocity, rms=magnitudes.velocity.rms * (magnitudes.displacement / drawn))
        magnitudes = replace(magnitudes, velocity=velocity)
    return magnitudes


def _before_bound(rms: Tensor) -> Tensor:
    """Return the standard deviation of a Gaussian that has ``rms`` once it is cut off at −1 and 1."""
    before = torch.logspace(-3, 2, 2000, dtype=torch.float64)
    at = 1 / before
    inside = torch.erf(at / math.sqrt(2))
    after = (before.square() * (inside - math.sqrt(2 / math.pi) * at * torch.exp(-at.square() / 2)) + 1 - inside).sqrt()
    found = np.interp(rms.double().numpy(), after.numpy(), before.numpy())
    # Far below the bound nothing is cut off.
    return torch.where(rms < after[0], rms, torch.from_numpy(found).to(rms))


def _cosine_inverse(spectrum: Tensor) -> Tensor:
    """Return the field of an orthonormal cosine spectrum, over the last three axes."""
    field: Tensor = torch.from_numpy(fft.idctn(spectrum.numpy(), axes=(-3, -2, -1), norm="ortho"))
    return field


def _mean_square_length(displacement: Tensor) -> float:
    return float(displacement.square().sum(dim=1).mean())


def _rms_of_draws(values: Tensor) -> Tensor:
    rms: Tensor = values.square().mean(dim=0).sqrt()
    return rms


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
