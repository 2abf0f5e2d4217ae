from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgan.data.nifti import nifti_stem, read_nifti, stored_values, write_nifti
from medgan.data.volume import Volume
from medgan.errors import InputFault

RNG = np.random.default_rng(1)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-0.7, 0.7, 2.5]), [10.0, -20.0, 30.5]
)


def _save(path: Path, data: np.ndarray, scale: tuple[float, float] | None = None, kind=nib.Nifti1Image) -> Path:
    image = kind(data, OBLIQUE, dtype=data.dtype)
    if scale is not None:
        image.header.set_slope_inter(*scale)
    nib.save(image, path)
    return path


def test_voxels_and_affine_are_those_nibabel_reads(tmp_path):
    data = RNG.integers(-1000, 2000, (7, 6, 5)).astype(np.int16)
    path = _save(tmp_path / "a.nii.gz", data)
    volume = read_nifti(path)
    assert volume.data.shape == (1, 7, 6, 5)
    assert volume.data.dtype == np.int16
    assert np.array_equal(volume.data[0], data)
    assert np.array_equal(volume.affine, nib.load(path).affine)
    assert volume.spacing == pytest.approx((0.7, 0.7, 2.5), abs=1e-5)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_and_byte_order_is_read(tmp_path, dtype, order):
    data = RNG.integers(0, 100, (5, 4, 3)).astype(dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(dtype))
    nib.save(nib.Nifti1Image(data, np.eye(4), header, dtype=np.dtype(dtype)), tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.data.dtype == np.dtype(dtype)
    assert np.array_equal(volume.data[0], data)


def test_nifti_2_is_read(tmp_path):
    data = RNG.normal(size=(7, 6, 5)).astype(np.float32)
    assert np.array_equal(read_nifti(_save(tmp_path / "a.nii.gz", data, kind=nib.Nifti2Image)).data[0], data)


def test_the_rescale_is_applied_and_kept(tmp_path):
    stored = RNG.integers(0, 4000, (5, 5, 5)).astype(np.int16)
    path = _save(tmp_path / "a.nii.gz", stored, (0.5, -1024))
    volume = read_nifti(path)
    assert np.allclose(volume.data[0], stored * 0.5 - 1024)
    assert (volume.dtype, volume.slope, volume.intercept) == (np.int16, 0.5, -1024)


def test_channels_come_first(tmp_path):
    data = RNG.integers(0, 9, (5, 4, 3, 2)).astype(np.uint8)
    volume = read_nifti(_save(tmp_path / "a.nii.gz", data), channels=2)
    assert volume.data.shape == (2, 5, 4, 3)
    assert np.array_equal(volume.data[1], data[..., 1])


@pytest.mark.parametrize(
    ("shape", "channels", "code"), [((5, 4, 3, 2), 3, "FOUR_DIMENSIONAL"), ((5, 4, 3), 2, "CHANNELS")]
)
def test_another_number_of_channels_is_refused(tmp_path, shape, channels, code):
    with pytest.raises(InputFault, match=code):
        read_nifti(_save(tmp_path / "a.nii.gz", np.ones(shape, np.uint8)), channels=channels)


def test_a_label_map_comes_as_uint8_from_any_type(tmp_path):
    data = RNG.integers(0, 3, (5, 4, 3)).astype(np.float32)
    volume = read_nifti(_save(tmp_path / "a.nii.gz", data), role="label")
    assert volume.data.dtype == np.uint8
    assert np.array_equal(volume.data[0], data)
    with pytest.raises(InputFault, match="UNDECLARED_LABELS"):
        read_nifti(_save(tmp_path / "b.nii.gz", data + 0.25), role="label")


def test_metres_become_millimetres(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz").spacing == pytest.approx((1, 1, 2))


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
def test_what_is_written_is_read_again_in_the_same_geometry_type_and_scale(tmp_path, name):
    stored = RNG.integers(-2000, 2000, (6, 5, 4)).astype(np.int16)
    source = read_nifti(_save(tmp_path / "a.nii.gz", stored, (0.25, -10)))
    write_nifti(tmp_path / name, source.data, source)
    again = read_nifti(tmp_path / name)
    header = nib.load(tmp_path / name).header
    assert np.array_equal(again.data, source.data)
    assert np.array_equal(again.affine, source.affine)
    assert (again.dtype, again.slope, again.intercept) == (np.int16, 0.25, -10)
    assert header.get_xyzt_units()[0] == "mm"
    assert int(header["qform_code"]) == int(header["sform_code"]) == 1
    assert np.allclose(nib.load(tmp_path / name).get_qform(), source.affine, atol=1e-4)


def test_values_are_rounded_and_clipped_into_an_integer_type(tmp_path):
    like = Volume(np.zeros((1, 3, 3, 3)), np.eye(4), Path("x"), np.dtype(np.uint8))
    data = np.zeros((1, 3, 3, 3))
    data[0, 0, 0] = -5, 1.6, 1000
    write_nifti(tmp_path / "a.nii", data, like)
    assert read_nifti(tmp_path / "a.nii").data[0, 0, 0].tolist() == [0, 2, 255]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_single_precision_is_rounded_and_clipped_as_double_is(dtype):
    halves = np.arange(-70000, 70000, dtype=np.float32) / 2
    values = np.concatenate([halves, RNG.normal(0, 1e5, 5000).astype(np.float32), [-1e30, 1e30]], dtype=np.float32)
    like = Volume(np.zeros((1, values.size, 1, 1)), np.eye(4), Path("a.nii"), np.dtype(dtype), 1.0, 0.0)
    limits = np.iinfo(dtype)
    expected = np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)
    given = values.reshape(1, -1, 1, 1)
    kept = given.copy()
    assert np.array_equal(stored_values(given, like).ravel(), expected)
    assert np.array_equal(given, kept)  # what was given is not written on


def test_several_channels_become_the_fourth_axis(tmp_path):
    data = RNG.normal(size=(2, 4, 4, 4)).astype(np.float32)
    like = Volume(data, np.eye(4), Path("x"), np.dtype(np.float32))
    write_nifti(tmp_path / "a.nii.gz", data, like)
    assert nib.load(tmp_path / "a.nii.gz").shape == (4, 4, 4, 2)
    assert np.array_equal(read_nifti(tmp_path / "a.nii.gz", channels=2).data, data)


def test_the_same_voxels_give_the_same_bytes(tmp_path):
    data = RNG.normal(size=(1, 4, 4, 4)).astype(np.float32)
    like = Volume(data, OBLIQUE, Path("x"), np.dtype(np.float32))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, data, like)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("data", [np.ones((3, 3, 3)), np.ones((1, 3, 3, 4)), np.full((1, 3, 3, 3), np.nan)])
def test_voxels_that_do_not_fit_are_not_written(tmp_path, data):
    like = Volume(np.ones((1, 3, 3, 3)), np.eye(4), Path("x"), np.dtype(np.float32))
    with pytest.raises(ValueError, match="data must be"):
        write_nifti(tmp_path / "a.nii", data, like)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_and_names_folder_and_bytes(tmp_path, monkeypatch):
    like = Volume(np.ones((1, 3, 3, 3), np.float32), np.eye(4), Path("x"), np.dtype(np.float32))
    write_nifti(tmp_path / "a.nii", like.data, like)
    before = (tmp_path / "a.nii").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputFault, match=f"{tmp_path}: DISK_FULL: no room for the 460 bytes"):
        write_nifti(tmp_path / "a.nii", like.data * 2, like)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]
    assert (tmp_path / "a.nii").read_bytes() == before


@pytest.mark.parametrize(("name", "stem"), [("a.b.nii.gz", "a.b"), ("a.nii", "a")])
def test_the_stem_is_the_name_without_both_suffixes(name, stem):
    assert nifti_stem(Path(name)) == stem


@pytest.mark.realdata
def test_real_volumes_are_read_as_nibabel_reads_them(realdata):
    files = [
        *sorted((realdata / "brain_ixi_2mm").rglob("*.nii.gz"))[::5],
        *(realdata / "ct_totalsegmentator").glob("*.nii.gz"),
    ]
    assert files
    for file in files:
        volume, truth = read_nifti(file), nib.load(file)
        assert np.allclose(volume.data[0], np.asarray(truth.dataobj), rtol=1e-6)
        assert np.allclose(volume.affine, truth.affine)


@pytest.mark.realdata
def test_a_real_volume_survives_being_written(realdata, tmp_path):
    for file in [
        next((realdata / "hippocampus" / "imagesTr").glob("*.nii.gz")),
        next((realdata / "brain_ixi_2mm").rglob("*T1_ds.nii.gz")),
    ]:
        source = read_nifti(file)
        write_nifti(tmp_path / "a.nii.gz", source.data, source)
        again = read_nifti(tmp_path / "a.nii.gz")
        assert np.array_equal(again.data, source.data)
        assert np.array_equal(again.affine, source.affine)
        assert again.dtype == source.dtype
