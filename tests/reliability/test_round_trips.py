"""Properties: any orientation, spacing, type and size goes to the grid and back, and through a file and back."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from medgan.config import PreprocessConfig  # noqa: E402
from medgan.data.nifti import read_nifti, write_nifti  # noqa: E402
from medgan.data.preprocess import Preprocessing  # noqa: E402
from medgan.data.volume import Volume  # noqa: E402

# Few examples in every test run; thousands with --hypothesis-profile=long.
QUICK = settings(deadline=None, max_examples=30 if settings().max_examples <= 100 else settings().max_examples)
TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8")
orientations = st.sampled_from([a + b + c for a in "RL" for b in "AP" for c in "SI"]).flatmap(
    lambda codes: st.permutations(codes).map("".join)
)
spacings = st.tuples(*[st.floats(0.1, 10)] * 3)
sizes = st.tuples(*[st.integers(3, 40)] * 3)
grids = st.tuples(*[st.sampled_from([16, 24, 40])] * 3)


def affine_of(codes: str, spacing: tuple[float, float, float]) -> np.ndarray:
    orientation = nibabel.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(orientation):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:, 3] = [-7.5, 3.25, 11, 1]
    return affine


@QUICK
@given(orientations, spacings, st.tuples(*[st.integers(1, 200)] * 3), grids, st.sampled_from(["crop", "resize"]))
def test_the_map_to_the_grid_is_inverted_exactly(codes, spacing, size, shape, fit):
    preprocessing = Preprocessing(PreprocessConfig(shape=shape, fit=fit, spacing=(1.5, 1.0, 2.0)))
    matrix = preprocessing.grid_map(size, affine_of(codes, spacing))
    assert abs(np.linalg.det(matrix[:3, :3])) > 0
    assert (np.count_nonzero(matrix[:3, :3], axis=0) == 1).all()
    np.testing.assert_allclose(matrix @ np.linalg.inv(matrix), np.eye(4), atol=1e-9)
    centre = matrix @ [*((np.array(shape) - 1) / 2), 1]
    assert np.abs(centre[:3] - (np.array(size) - 1) / 2).max() <= 0.5 + 1e-9
    world = affine_of(codes, spacing) @ matrix  # grid axes run along R, A, S
    assert (np.diag(world)[:3] > 0).all()


@QUICK
@given(orientations, sizes, st.integers(0, 2**32 - 1))
def test_a_grid_at_the_own_spacing_gives_intensities_back(codes, size, seed):
    data = np.random.default_rng(seed).integers(-1000, 3000, (1, *size)).astype(np.int16)
    config = PreprocessConfig(shape=(40, 40, 40), intensity={"kind": "window", "window": (-1000, 3000)})
    affine = affine_of(codes, (1, 1, 1))
    grid = Preprocessing(config).image_to_grid(data, affine)[0].numpy()
    matrix = np.linalg.inv(Preprocessing(config).grid_map(size, affine))
    places = np.rint(matrix[:3, :3] @ np.indices(size).reshape(3, -1) + matrix[:3, 3:]).astype(int)
    back = grid[tuple(places)].reshape(size) * 4000 - 1000
    assert np.abs(back - data[0]).max() < 0.5  # within the dtype's step


@QUICK
@given(orientations, spacings, sizes, st.sampled_from(TYPES), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_volume_survives_its_file(tmp_path_factory, codes, spacing, size, kind, channels, seed):
    dtype, rng = np.dtype(kind), np.random.default_rng(seed)
    shape = (channels, *size)
    if dtype.kind == "f":
        data = rng.normal(0, 1000, shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        data = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    like = Volume(data, affine_of(codes, spacing), Path("source"), dtype)
    path = tmp_path_factory.mktemp("trip") / ("a.nii" if seed % 2 else "a.nii.gz")
    write_nifti(path, data, like)
    found = read_nifti(path, channels=channels)
    np.testing.assert_array_equal(found.data, data)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.affine, like.affine, rtol=1e-6)
