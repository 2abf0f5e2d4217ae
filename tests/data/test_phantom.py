from __future__ import annotations

import csv
import hashlib
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medgan.data.anatomy import Modes, grid, load_template
from medgan.data.phantom import FIELD_OF_VIEW_MM, build_phantom_cohort

SHAPE = (24, 26, 24)


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def voxels(folder: Path, relative: str) -> Any:
    return np.asarray(nib.load(folder / relative).dataobj)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_phantom_cohort(tmp_path_factory.mktemp("phantoms") / "cohort", patients=4, shape=SHAPE).parent


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(cohort: Path, tmp_path: Path) -> None:
    again = build_phantom_cohort(tmp_path / "again", patients=4, shape=SHAPE).parent
    other = build_phantom_cohort(tmp_path / "other", patients=4, shape=SHAPE, seed=1).parent
    assert digest(again) == digest(cohort)
    images = [name for name in digest(cohort) if name.startswith("images")]
    assert all(digest(other)[name] != digest(cohort)[name] for name in images)


def test_no_connection_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert build_phantom_cohort(tmp_path, patients=4, shape=(16, 16, 16)).is_file()


def test_nothing_but_the_cohort_is_left_in_the_folder(cohort: Path) -> None:
    names = {p.name for p in cohort.rglob("*") if p.is_file()}
    volumes = {f"phantom-{i:03d}.nii.gz" for i in range(1, 5)}
    assert names == volumes | {"manifest.csv", "ORIGIN.txt"}


def test_files_have_declared_types_geometry_and_scales(cohort: Path) -> None:
    maxima = []
    for row in rows_of(cohort / "manifest.csv"):
        image, label = nib.load(cohort / row["image"]), nib.load(cohort / row["label"])
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape == SHAPE
        assert np.array_equal(image.affine, label.affine)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert np.allclose(image.header.get_zooms(), FIELD_OF_VIEW_MM / np.array(SHAPE), atol=1e-5)
        maxima.append(int(np.asarray(image.dataobj).max()))
    assert min(maxima) >= 300
    assert max(maxima) <= 3000
    assert len(set(maxima)) == 4


def test_lesions_are_in_the_lesion_class_only(cohort: Path) -> None:
    for row in rows_of(cohort / "manifest.csv"):
        values = set(np.unique(voxels(cohort, row["label"])).tolist())
        assert values == ({0, 1, 2, 3} if row["diagnosis"] == "lesion" else {0, 1, 2})


def test_lesions_lie_in_white_matter_and_are_brighter_than_it(tmp_path: Path) -> None:
    folder = build_phantom_cohort(tmp_path, patients=6, shape=(40, 40, 40), seed=3).parent
    seen = 0
    for row in rows_of(folder / "manifest.csv"):
        if row["diagnosis"] != "lesion":
            continue
        label, image = voxels(folder, row["label"]), voxels(folder, row["image"])
        blobs, count = ndimage.label(label == 3)
        assert 1 <= count <= 3
        for blob in range(1, count + 1):
            border = ndimage.binary_dilation(blobs == blob) & (label != 3)
            assert (label[border] == 2).any()
        assert image[label == 3].mean() > 1.05 * image[label == 2].mean()
        seen += 1
    assert seen == 3


def test_white_matter_is_brighter_than_grey_matter(cohort: Path) -> None:
    for row in rows_of(cohort / "manifest.csv"):
        label, image = voxels(cohort, row["label"]), voxels(cohort, row["image"])
        assert image[label == 2].mean() > image[label == 1].mean() > image[label == 0].mean()


def test_brains_lie_where_the_template_does() -> None:
    # The patients' affine is the template's space: half way up, the middle of the head is between the hemispheres.
    template = load_template(np.full(3, 4.0))
    assert abs(template.centre[0]) < 3
    inside = template.sample(np.array([[0.0, 90.0], [-20.0, -20.0], [30.0, 10.0]]))[0]
    assert inside[0] > 0.3
    assert inside[1] == 0


def test_deformations_are_diffeomorphic_and_share_their_modes() -> None:
    modes = Modes(load_template(np.full(3, 6.0)))
    points = grid(modes.shape, modes.affine)
    moved = np.stack([modes.to_template(points, np.random.default_rng(seed)) for seed in range(12)])
    middle = slice(8, -8)  # mm of the head, away from the control grid's border
    for one in moved:
        gradient = np.stack([np.stack(np.gradient(axis)) for axis in one[:, middle, middle, middle]]) / 6.0
        assert np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1))).min() > 0.1
    flat = (moved - moved.mean(axis=0)).reshape(12, -1)
    power = np.linalg.svd(flat, compute_uv=False) ** 2
    assert power[:4].sum() > 0.6 * power.sum()


def test_splits_are_balanced_and_in_the_stated_shares(tmp_path: Path) -> None:
    rows = rows_of(build_phantom_cohort(tmp_path, patients=36, shape=(16, 16, 16)))
    counts = Counter((row["split"], row["diagnosis"]) for row in rows)
    for split, each in (("training", 10), ("validation", 2), ("test", 6)):
        assert counts[split, "lesion"] == counts[split, "no lesion"] == each
    assert len({row["patient_id"] for row in rows}) == 36


def test_origin_names_the_template_and_says_it_is_a_phantom(cohort: Path) -> None:
    text = " ".join((cohort / "ORIGIN.txt").read_text(encoding="utf-8").split())
    assert "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre" in text
    assert text.endswith("Results on them say nothing about any clinical task.")


def test_too_few_patients_or_voxels_are_refused_with_the_value(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 4, got 3"):
        build_phantom_cohort(tmp_path, patients=3)
    with pytest.raises(ValueError, match="at least 16, got"):
        build_phantom_cohort(tmp_path, shape=(48, 48, 8))
    assert not list(tmp_path.iterdir())
