"""What noise does to a patient: recipes and their parts, the effects of many, and the directions that do most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes
from torch import Tensor

from medgan.data.cohort import load_image, load_label, read_cohort
from medgan.data.loaders import prepare
from medgan.evaluation.cases import part_cases
from medgan.models.deformation import voxel_grid
from medgan.models.fields import Fields, appearance_change, deform, displacement_field, without_folds
from medgan.pictures import best_slice
from medgan.sampler import Recipe, Sampler, render

Slice = NDArray[np.float32]
Slices = tuple[Slice, Slice]
Part = Literal["shape", "appearance", "neither"]
BATCH = 32
CLOSED = 4  # voxels: fissures and ventricles would hide the outline that moves


@dataclass(frozen=True, eq=False)
class Patient:
    """A volume and what a recipe of it needs.

    Attributes:
        unit: ``(C, *grid)`` on the network's grid, 0..1.
        inside: ``grid`` where there is any label.
        class_index: ``(1,)``.
        volume: ``(C, X, Y, Z)`` in its own voxels.
        label: ``(1, X, Y, Z)``.
        outer: ``(1, X, Y, Z)`` 1 within all labels' outline, gaps and holes closed.
        frame: a recipe of this volume, for its geometry and intensity.
    """

    unit: Tensor
    inside: Tensor
    class_index: Tensor
    volume: Tensor
    label: Tensor
    outer: Tensor
    frame: Recipe

    def fields(self, sampler: Sampler, z: Tensor) -> Fields:
        """Return the recipes of noise vectors ``(n, latent)``."""
        n = len(z)
        return sampler.generator(self.unit.expand(n, *self.unit.shape), z, self.class_index.expand(n))

    def slices(self, fields: Fields) -> Slices:
        """Return the picture's slice of the sibling, and of the share of its voxels that lies within the outline."""
        fields, displacement = without_folds(fields, self.frame.shape)
        recipe = replace(self.frame, fields=fields, displacement=displacement)
        return self.slice(render(recipe, self.volume)), self.slice(recipe.warp(self.outer))

    @property
    def plane_mm(self) -> tuple[float, float]:
        """Size of a voxel of the picture's slice, across and up."""
        axis, _ = best_slice(self._upright(self.volume), self._upright(self.label))
        voxels = np.abs(self.frame.matrix[:3, :3]).max(axis=0)  # of the volume in one of the grid
        across, up = (self.frame.spacing[a] / voxels[a] for a in range(3) if a != axis)
        return float(across), float(up)

    def slice(self, volume: Tensor) -> Slice:
        """Return the slice where the source's labels are largest, anterior up."""
        axis, index = best_slice(self._upright(self.volume), self._upright(self.label))
        return np.take(self._upright(volume), index, axis=axis).T

    def _upright(self, volume: Tensor) -> NDArray[np.float32]:
        """Return the first channel ``(D, H, W)`` along R, A, S."""
        turn = self.frame.matrix[:3, :3]
        order = np.abs(turn).argmax(axis=0)
        flipped = [axis for axis in range(3) if turn[order[axis], axis] < 0]
        return np.flip(volume[0].numpy().transpose(order), flipped)


def patients_of(sampler: Sampler, manifest: Path, number: int, *, seen_left_out: bool = True) -> list[Patient]:
    """Return patients with a label map; by default only those that the generator was not trained on, by their names."""
    checkpoint, origin = sampler.checkpoint, sampler.checkpoint.origin
    cohort = read_cohort(
        manifest, class_key=checkpoint.config.data.class_key, classes=sampler.class_names,
        labels=dict(origin.label_names), class_optional=True,
    )  # fmt: skip
    cases = part_cases(cohort, checkpoint).held_out if seen_left_out else cohort.cases
    patients = []
    for prepared in prepare([case for case in cases if case.label is not None][:number], cohort, sampler.preprocessing):
        image = load_image(prepared.case)
        label = load_label(prepared.case, image, cohort.label_names)
        volume = torch.from_numpy(np.ascontiguousarray(image.data, dtype=np.float32))
        whole = binary_fill_holes(binary_closing(np.pad(label.data[0] > 0, CLOSED), iterations=CLOSED))
        inner = (slice(CLOSED, -CLOSED),) * 3
        outer = torch.from_numpy(whole[inner][None].astype(np.float32))
        name = prepared.case.class_name if prepared.case.class_name in sampler.class_names else None
        frame = sampler.recipe(volume, sampler.draw(0, class_name=name), image.affine)
        index = torch.tensor([sampler.class_index(name)])
        patients.append(
            Patient(prepared.image, prepared.label[0] > 0, index, volume, torch.from_numpy(label.data), outer, frame)
        )
    return patients


Measure = Callable[[Fields, Patient], Tensor]
"""What recipes do to a patient, ``(n, m)``."""


def part_of(fields: Fields, part: Part) -> Fields:
    """Return what a recipe does to shape, to appearance, or to neither."""
    if part in ("shape", "neither"):
        fields = replace(fields, gain=fields.gain * 0, offset=fields.offset * 0, texture=None)
    if part in ("appearance", "neither"):
        fields = replace(fields, velocity=fields.velocity * 0, generators=fields.generators * 0)
    return fields


def added(one: Fields, other: Fields, none: Fields) -> Fields:
    """Return the recipe that changes what two others change of a third."""
    names = ("velocity", "generators", "gain", "offset", *(() if none.texture is None else ("texture",)))
    return Fields(*(getattr(one, name) + getattr(other, name) - getattr(none, name) for name in names))


def motion(fields: Fields, patient: Patient) -> Tensor:
    """Return the displacement of every voxel of the brain, ``(n, 3 · voxels)`` in voxels of the grid."""
    shape = patient.frame.shape
    grid = voxel_grid(shape, patient.unit)
    return (deform(fields, displacement_field(fields, shape), grid, shape) - grid)[:, :, patient.inside].flatten(1)


def shading(fields: Fields, patient: Patient) -> Tensor:
    """Return the change of grey value of every voxel of the brain, ``(n, voxels)`` of the range 0..1."""
    change = appearance_change(
        fields, patient.unit.expand(len(fields.gain), *patient.unit.shape), None, patient.frame.shape
    )
    return change[:, :, patient.inside].flatten(1)


def sum_share(sampler: Sampler, patients: Sequence[Patient], x: Tensor, y: Tensor, measure: Measure) -> float:
    """Return the share of what sums of noise vectors ``(n, latent)`` do that is the sum of what each does."""
    rest = whole = 0.0
    for patient in patients:
        none = effects(sampler, patient, 0 * x[:1], measure)
        both = effects(sampler, patient, x + y, measure) - none
        parts = effects(sampler, patient, x, measure) + effects(sampler, patient, y, measure) - 2 * none
        rest, whole = rest + float((both - parts).square().sum()), whole + float(both.square().sum())
    return 1 - rest / whole


def affine_share(moved: Tensor, patient: Patient) -> float:
    """Return the share of motion ``(n, 3 · voxels)`` that an affine map of the whole accounts for."""
    places = patient.inside.nonzero().to(moved.dtype)
    places = torch.cat([places, torch.ones(len(places), 1)], dim=1)
    wanted = moved.reshape(len(moved), 3, -1).flatten(0, 1).T
    rest = wanted - places @ torch.linalg.lstsq(places, wanted).solution
    return 1 - float(rest.square().sum() / wanted.square().sum())


def effects(sampler: Sampler, patient: Patient, z: Tensor, measure: Measure) -> Tensor:
    """Measure the recipes of noise vectors ``(n, latent)``."""
    return torch.cat([measure(patient.fields(sampler, part), patient) for part in z.split(BATCH)])


@dataclass(frozen=True, eq=False)
class Directions:
    """Orthogonal directions of noise, the one that changes most first.

    Attributes:
        vectors: ``(latent, latent)`` unit vectors, one a row.
        shares: of the linear change that each accounts for.
        linear: share of all change that a linear function of the noise accounts for.
    """

    vectors: Tensor
    shares: Tensor
    linear: float


def directions(z: Tensor, changes: Tensor) -> Directions:
    """Find the directions of noise ``(n, latent)`` along which changes ``(n, m)`` are largest: least squares, then SVD.

    With normal noise, a direction's share is its share of the variance.
    """
    z, changes = z - z.mean(dim=0), changes - changes.mean(dim=0)
    slopes = torch.linalg.lstsq(z, changes).solution
    # Slopes fitted to so few samples explain some of anything: counted on the half they were not fitted to.
    half = len(z) // 2
    found = torch.linalg.lstsq(z[:half], changes[:half]).solution
    rest = (changes[half:] - z[half:] @ found).square().sum() / changes[half:].square().sum()
    strengths, vectors = torch.linalg.eigh(slopes @ slopes.T)
    vectors = vectors.flip(1).T
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return Directions(vectors * largest.sign(), strengths.flip(0) / strengths.sum(), 1 - float(rest))
