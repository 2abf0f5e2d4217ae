"""A cohort of brain phantoms that any machine can build without a network: real anatomy, invented patients.

The anatomy is the ICBM 152 nonlinear symmetric T1 template, release 2009a, with its grey- and white-matter maps, as the
nilearn wheel carries them (``nilearn.datasets.load_mni152_template`` and siblings). Its notice:

    Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
    University. Free to use, copy, modify and distribute for any purpose, as long as the notice appears in all copies.

Sources: Fonov et al., NeuroImage 54 (2011) 313-327; Fonov et al., NeuroImage 47 Suppl. 1 (2009) S102.

A patient is the template under a diffeomorphism, a contrast, a bias field, a scanner's sharpness, noise and scale.
The diffeomorphism is a weighted sum of a few anatomical modes that all patients share (ventricles, head elongation,
torque, ...), some of them correlated, plus a small deformation of the patient's own: a population with a structure that
a generator can learn and that a random smooth deformation does not have.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgan.atomic import atomic_file
from medgan.data.anatomy import FIELD_OF_VIEW_MM, Array, Modes, Shape, Template, grid, load_template, smooth_noise
from medgan.data.nifti import write_nifti
from medgan.data.volume import Volume
from medgan.progress import track
from medgan.seeding import numpy_generator

LABELS = {1: "grey matter", 2: "white matter", 3: "lesion"}
CLASSES = ("lesion", "no lesion")
ORIGIN = """\
Brain phantoms written by medgan (build_phantom_cohort, seed {seed}, {patients} patients).

The anatomy is the ICBM 152 nonlinear symmetric template, release 2009a, as distributed with nilearn (modified here):

  Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
  University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
  without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
  University make no representations about the suitability of this software for any purpose. It is provided "as is"
  without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
  loss, or injury to subjects or patients resulting from the use or misuse of this software package.

  VS Fonov, AC Evans, K Botteron, CR Almli, RC McKinstry, DL Collins and the Brain Development Cooperative Group:
  Unbiased average age-appropriate atlases for pediatric studies. NeuroImage 54 (2011) 313-327.
  VS Fonov, AC Evans, RC McKinstry, CR Almli and DL Collins: Unbiased nonlinear average age-appropriate brain templates
  from birth to adulthood. NeuroImage 47 Supplement 1 (2009) S102.

Label values: {labels}. Classes (column diagnosis): {classes}.

These are phantoms, not patient data. No image here was acquired from a person: each is the average template of 152
adults under an invented deformation, contrast, bias field and noise, and the lesions are invented. Results on them
say nothing about any clinical task.
"""


def build_phantom_cohort(
    folder: Path,
    *,
    patients: int = 36,
    shape: Shape = (48, 48, 48),
    seed: int = 0,
    description: str = "building phantoms",
) -> Path:
    """Write a cohort of brain phantoms with label maps and two balanced classes.

    ``images/`` holds int16 volumes whose scales differ as scanners' do, ``labels/`` uint8 maps (see ``LABELS``),
    ``manifest.csv`` the columns ``case_id, patient_id, image, label, diagnosis, split`` (about 5:1:3 training,
    validation and test patients, half of each with lesions), ``ORIGIN.txt`` what they are made of. RAS axes, affine in
    mm. The same arguments give the same bytes. The manifest is written last: where it exists, the cohort is complete.

    Args:
        folder: where to write; made if absent.
        patients: how many, one volume each; at least 4.
        shape: voxels along R, A, S; the field of view is 204 mm along each.
        seed: of everything random.
        description: text of the progress bar.

    Returns:
        The path of ``manifest.csv``.

    Raises:
        ValueError: ``patients`` or ``shape`` is too small.
    """
    if patients < 4:
        raise ValueError(f"patients must be at least 4, got {patients}")
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"shape must be three numbers of at least 16, got {shape}")
    folder = Path(folder)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.csv"
    manifest.unlink(missing_ok=True)
    spacing = FIELD_OF_VIEW_MM / np.array(shape, dtype=np.float64)
    template = load_template(spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = template.centre - spacing * (np.array(shape) - 1) / 2
    modes = Modes(template)

    rows: list[tuple[str, ...]] = []
    for patient, diagnosis, split in track(_roster(patients, seed), description):
        rng = numpy_generator(seed, "phantom", patient)
        image, label = _draw_patient(template, modes, shape, affine, lesion=diagnosis == "lesion", rng=rng)
        for name, data in (("images", image), ("labels", label)):
            path = folder / name / f"{patient}.nii.gz"
            write_nifti(path, data[None], like=Volume(data[None], affine, path, data.dtype))
        rows.append((patient, patient, f"images/{patient}.nii.gz", f"labels/{patient}.nii.gz", diagnosis, split))

    named = ", ".join(f"{value} {name}" for value, name in LABELS.items())
    origin = ORIGIN.format(seed=seed, patients=patients, labels=named, classes=", ".join(CLASSES))
    _write_text(folder / "ORIGIN.txt", origin)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case_id", "patient_id", "image", "label", "diagnosis", "split"))
    writer.writerows(rows)
    _write_text(manifest, text.getvalue())
    return manifest


def _roster(patients: int, seed: int) -> list[tuple[str, str, str]]:
    """(patient, diagnosis, split): pairs of one patient of each class, so that every split is balanced."""
    pairs = patients // 2
    test = max(1, round(pairs / 3))
    validation = max(int(pairs >= 3), round(pairs / 9))
    splits = ["test"] * test + ["validation"] * validation
    splits += ["training"] * (pairs - len(splits))
    places = [(diagnosis, split) for split in splits for diagnosis in CLASSES]
    if patients % 2:
        places.append((CLASSES[1], "training"))
    order = numpy_generator(seed, "phantom roster").permutation(patients)
    return [(f"phantom-{i + 1:03d}", *places[place]) for i, place in enumerate(order)]


def _draw_patient(
    template: Template, modes: Modes, shape: Shape, affine: Array, *, lesion: bool, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    spacing = np.diag(affine)[:3]
    t1, grey, white = template.sample(modes.to_template(grid(shape, affine), rng))
    brain = t1 > 0.5 * template.tissue[0]
    other = np.clip(1 - grey - white, 0, 1)
    label = np.where(brain, np.argmax([other, grey, white], axis=0), 0).astype(np.uint8)

    csf = rng.uniform(0.12, 0.3)
    white_level = rng.uniform(0.78, 0.95)
    grey_level = csf + (white_level - csf) * rng.uniform(0.6, 0.8)
    levels = (0.0, csf, grey_level, white_level, 1.1 * white_level)
    image = np.interp(t1, (0.0, *template.tissue, 1.0), levels)
    if lesion:
        mask, profile = _draw_lesions(label == 2, affine, rng)
        image = image + profile * white_level * rng.uniform(0.22, 0.42)
        label[mask] = 3
    image *= 1 + 0.02 * smooth_noise(shape, 8.0 / spacing, rng)  # tissue is not uniform
    image *= np.exp(rng.uniform(0.05, 0.16) * smooth_noise(shape, 45.0 / spacing, rng))  # coil sensitivity
    image = ndimage.gaussian_filter(image, rng.uniform(0.0, 0.45))
    noise = rng.uniform(0.012, 0.035) * rng.standard_normal((2, *shape))
    image = np.hypot(image + noise[0], noise[1]) * brain  # Rician, as a magnitude image's noise is
    maximum = np.exp(rng.uniform(np.log(300.0), np.log(3000.0)))
    return np.rint(image * (maximum / image.max())).astype(np.int16), label


def _draw_lesions(white: NDArray[np.bool_], affine: Array, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Array]:
    """One to three blobs in cerebral white matter: their mask, and a profile that falls from 1 to 0 at the border."""
    spacing = np.diag(affine)[:3]
    points = grid(white.shape, affine)
    depth = ndimage.distance_transform_edt(white, sampling=spacing) * (points[2] > -15.0)  # above the brain stem
    candidates = np.argwhere(depth >= np.quantile(depth[depth > 0], 0.6))
    profile = np.zeros(white.shape)
    mask = np.zeros(white.shape, dtype=bool)
    border = 0.3 * spacing.mean()
    for _ in range(rng.integers(1, 4)):
        voxel = tuple(rng.choice(candidates))
        centre = points[(slice(None), *voxel)]
        radius = rng.uniform(7.0, 13.0) * (1 + 0.3 * smooth_noise(white.shape, 6.0 / spacing, rng))
        distance = np.linalg.norm(points - centre[:, None, None, None], axis=0)
        blob = 1 / (1 + np.exp(np.clip((distance - radius) / border, -30, 30)))
        blob[voxel] = 1.0
        pieces, _count = ndimage.label((blob > 0.5) & white)
        inside = pieces == pieces[voxel]
        profile = np.maximum(profile, blob * ndimage.binary_dilation(inside))
        mask |= inside
    return mask, profile


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())
