"""The anatomy of the phantoms: a template of the human brain, and a population of deformations of it.

The template is described, with its notice, in :mod:`medgan.data.phantom`. The deformations are diffeomorphisms: the
flow of a weighted sum of a few anatomical modes that all patients share, some correlated, plus a small field of the
patient's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Shape = tuple[int, int, int]

FIELD_OF_VIEW_MM = 204.0  # holds the largest head of the population; 4.25 mm voxels at 48 along an axis
CONTROL_SPACING_MM = 6.0  # the deformations are smooth far beyond this
SQUARINGS = 6
MODES = (
    "ventricles",
    "ventricle asymmetry",
    "elongation",
    "torque",
    "crown height",
    "frontal width",
    "temporal lobes",
    "cerebellum",
)


@dataclass(frozen=True)
class Template:
    """The template's maps, smoothed to the output's voxel size; affine: voxel to RAS mm."""

    t1: Array
    grey: Array
    white: Array
    affine: Array
    centre: Array  # mm, middle of the brain's bounding box
    tissue: tuple[float, float, float]  # typical T1 value of CSF, grey and white matter

    def sample(self, points: Array) -> tuple[Array, Array, Array]:
        """T1, grey and white matter at ``points`` ``(3, ...)`` in mm."""
        index = _to_index(points, self.affine)
        t1, grey, white = (
            ndimage.map_coordinates(m, index, order=1, mode="constant") for m in (self.t1, self.grey, self.white)
        )
        return t1, grey, white


class Modes:
    """The population's shared modes of variation: velocity fields in mm on a control grid, each about 1 SD."""

    def __init__(self, template: Template) -> None:
        count = int(np.ceil((FIELD_OF_VIEW_MM + 40.0) / CONTROL_SPACING_MM))
        self.shape: Shape = (count, count, count)
        self.centre = template.centre
        self.affine = np.diag([CONTROL_SPACING_MM] * 3 + [1.0])
        self.affine[:3, 3] = template.centre - CONTROL_SPACING_MM * (count - 1) / 2
        points = grid(self.shape, self.affine)
        x, y, z = points - template.centre[:, None, None, None]
        none = np.zeros(self.shape)
        ventricles = _toward(_deep_csf(template, points))
        fields = {
            # A velocity points to where the template is sampled: toward the ventricles makes them larger.
            "ventricles": 4.0 * ventricles,
            "ventricle asymmetry": 2.0 * ventricles * np.tanh(x / 12),
            "elongation": np.stack([0.035 * x, -0.035 * y, 0.01 * z]),
            "torque": np.stack([0.012 * y, -3.0 * np.tanh(x / 25), none]),
            "crown height": np.stack([none, 0.02 * y, -0.07 * np.maximum(z + 10, 0)]),
            "frontal width": np.stack([-0.05 * x * np.tanh(y / 50), none, none]),
            "temporal lobes": _swelling(points, (-46, -10, -24)) + _swelling(points, (46, -10, -24)),
            "cerebellum": _swelling(points, (0, -62, -36)),
        }
        self.fields = np.stack([fields[name] for name in MODES])  # (modes, 3, X, Y, Z)

    def to_template(self, points: Array, rng: np.random.Generator) -> Array:
        """Where a new patient's ``points`` ``(3, ...)`` mm lie in the template, mm."""
        own = np.stack([smooth_noise(self.shape, 3.0, rng) for _ in range(3)])
        velocity = np.tensordot(_draw_weights(rng), self.fields, axes=1) + 1.2 * own
        displacement = self._integrate(velocity)

        pose = np.eye(3) + 0.03 * rng.standard_normal((3, 3)).clip(-2, 2)
        pose *= 1.05 + 0.03 * np.clip(rng.standard_normal(), -2, 2)  # the template is larger than a typical brain
        shift = 2.0 * rng.standard_normal((3, 1, 1, 1)).clip(-2, 2)
        centre = self.centre[:, None, None, None]
        placed = np.tensordot(pose, points - centre, axes=1) + centre + shift
        return placed + self._interpolate(displacement, _to_index(placed, self.affine))

    def _integrate(self, velocity: Array) -> Array:
        """Displacement in mm of the flow at time 1, by scaling and squaring (Arsigny et al. 2006)."""
        displacement: Array = velocity / 2**SQUARINGS
        identity = np.indices(self.shape, dtype=np.float64)
        for _ in range(SQUARINGS):
            displacement = displacement + self._interpolate(displacement, identity + displacement / CONTROL_SPACING_MM)
        return displacement

    @staticmethod
    def _interpolate(field: Array, index: Array) -> Array:
        return np.stack([ndimage.map_coordinates(part, index, order=1, mode="nearest") for part in field])


def load_template(spacing: Array) -> Template:
    """Load the template and its tissue maps from nilearn's wheel, for volumes of ``spacing`` ``(3,)`` mm."""
    from nilearn import datasets

    names = ("load_mni152_template", "load_mni152_gm_template", "load_mni152_wm_template")
    images = [getattr(datasets, name)(resolution=1) for name in names]
    affine: Array = np.asarray(images[0].affine, dtype=np.float64)
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float64) for image in images)
    extent = np.argwhere(t1 > 0.1)
    middle = (extent.min(axis=0) + extent.max(axis=0)) / 2
    fluid = np.where(t1 > 0, 1 - grey - white, 0)
    csf_level, grey_level, white_level = (float(np.median(t1[m > 0.9])) for m in (fluid, grey, white))
    # The voxels of the template are 1 mm; without the filter, larger ones would alias.
    t1, grey, white = (ndimage.gaussian_filter(m, 0.35 * spacing, truncate=3.0) for m in (t1, grey, white))
    return Template(
        t1=t1,
        grey=grey,
        white=white,
        affine=affine,
        centre=affine[:3, :3] @ middle + affine[:3, 3],
        tissue=(csf_level, grey_level, white_level),
    )


def _draw_weights(rng: np.random.Generator) -> Array:
    """One patient's weights ``(modes,)``."""
    weight = dict(zip(MODES, rng.standard_normal(len(MODES)).clip(-2, 2), strict=True))
    # Ageing widens the ventricles and shrinks the temporal lobes; long heads have a low crown.
    weight["ventricles"] = 0.4 + 0.9 * weight["ventricles"]
    weight["temporal lobes"] = 0.7 * weight["temporal lobes"] - 0.6 * weight["ventricles"]
    weight["crown height"] = 0.7 * weight["crown height"] - 0.6 * weight["elongation"]
    return np.array([weight[name] for name in MODES], dtype=np.float64)


def _deep_csf(template: Template, points: Array) -> Array:
    """The lateral ventricles on a control grid: CSF far below the brain's surface."""
    t1, grey, white = template.sample(points)
    brain = ndimage.binary_fill_holes(t1 > 0.1)
    depth = ndimage.distance_transform_edt(brain) * CONTROL_SPACING_MM
    lateral = (points[2] > 4.0) & (np.abs(points[0]) > 6.0)  # not the cisterns
    return np.where(brain & lateral & (depth > 25.0), np.clip(1 - grey - white, 0, 1), 0.0)


def _toward(mass: Array) -> Array:
    """Smooth unit-bounded field that points toward ``mass``."""
    smooth = ndimage.gaussian_filter(mass, 10.0 / CONTROL_SPACING_MM)
    gradient: Array = np.array(np.gradient(smooth))
    return gradient / float(np.linalg.norm(gradient, axis=0).max())


def _swelling(points: Array, centre_mm: tuple[int, int, int], radius: float = 24.0, millimetres: float = 3.0) -> Array:
    """Field that enlarges what lies around a point: sampling is drawn to it, most of all one radius away."""
    offset = points - np.array(centre_mm, dtype=np.float64)[:, None, None, None]
    falloff: Array = np.exp(0.5 - 0.5 * (offset**2).sum(axis=0) / radius**2)
    return -millimetres / radius * offset * falloff


def smooth_noise(shape: tuple[int, ...], sigma: float | Array, rng: np.random.Generator) -> Array:
    """Gaussian field of unit variance, smooth over ``sigma`` voxels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect", truncate=3.0)
    return field / float(field.std())


def grid(shape: tuple[int, ...], affine: Array) -> Array:
    """Positions ``(3, X, Y, Z)`` of the voxels, mm."""
    indices = np.indices(shape, dtype=np.float64)
    return np.tensordot(affine[:3, :3], indices, axes=1) + affine[:3, 3][:, None, None, None]


def _to_index(points: Array, affine: Array) -> Array:
    inverse = np.linalg.inv(affine).astype(np.float64)
    shift = inverse[:3, 3].reshape(3, *[1] * (points.ndim - 1))
    return np.tensordot(inverse[:3, :3], points, axes=1) + shift
