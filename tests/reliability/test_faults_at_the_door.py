"""Faults 1 to 23: damaged or unusable volumes, by ``medgan check`` (the gate all commands share)."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless
from series import make_slices, write_slices

from medgan.config import PreprocessConfig
from medgan.data.preprocess import Preprocessing

RNG = np.random.default_rng(3)
SHAPE = (12, 10, 8)
AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2.0, 0, -15], [0, 0, 2.5, 7], [0, 0, 0, 1]])
Make = Callable[[Path], Path]


def save(folder: Path, data: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    path = folder / "scan.nii.gz"
    data = RNG.integers(-1000, 1000, SHAPE).astype(np.int16) if data is None else data
    nibabel.save(nibabel.Nifti1Image(data, affine, dtype=data.dtype), path)
    return path


def header(offset: int, kind: str, *values: float) -> Make:
    """A sound file with other values in its header."""

    def make(folder: Path) -> Path:
        path = save(folder)
        raw = bytearray(gzip.decompress(path.read_bytes()))
        new = np.array(values, kind).tobytes()
        raw[offset : offset + len(new)] = new
        path.write_bytes(gzip.compress(bytes(raw)))
        return path

    return make


def truncated(folder: Path) -> Path:
    path = save(folder)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def flipped(folder: Path) -> Path:
    path = save(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return path


def bomb(folder: Path) -> Path:
    path = save(folder)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(50_000_000), 1))
    return path


def with_nan(folder: Path) -> Path:
    data = np.ones(SHAPE, np.float32)
    data[1, 2, 3:5] = np.nan
    data[0, 0, 0] = np.inf
    return save(folder, data)


def sheared(folder: Path) -> Path:
    affine = AFFINE.copy()
    affine[0, 1] = 0.3
    return save(folder, affine=affine)


def colours(folder: Path) -> Path:
    return save(folder, np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])))


NIFTI: list[tuple[int, str, str, Make]] = [
    (1, "TRUNCATED", "", truncated),
    (2, "CORRUPT", "", flipped),
    (3, "SIZE", "budget", header(40, "<i2", 3, 20000, 20000, 10000)),
    (4, "BOMB", "goes on past", bomb),
    (5, "DIMENSIONS", "0", header(40, "<i2", 3, 0, 10, 8)),
    (5, "DIMENSIONS", "-5", header(40, "<i2", 3, 12, -5, 8)),
    (6, "NOT_FINITE", "3 of 960", with_nan),
    (11, "SHEARED_AFFINE", "degrees", sheared),
    (12, "FOUR_DIMENSIONAL", "--frame", lambda folder: save(folder, np.ones((*SHAPE, 3), np.int16))),
    (13, "RGB", "colours", colours),
    (14, "SCALE", "inf", header(112, "<f4", np.inf)),
    (22, "TOO_FEW_SLICES", "at least 3", lambda folder: save(folder, np.ones((12, 10, 1), np.int16))),
]


@pytest.mark.parametrize(("row", "code", "word", "make"), NIFTI, ids=lambda v: str(v) if isinstance(v, int) else None)
def test_a_faulty_volume_is_refused_by_name(row, code, word, make, tmp_path, medgan):
    path = make(tmp_path)
    before = path.read_bytes()
    ended = medgan("check", path)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    line = ended.out.splitlines()[0]
    assert line.startswith(f"{path}: {code}: ")
    assert word in line
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def with_slope(value: str) -> Make:
    def make(folder: Path) -> Path:
        slices = make_slices()
        slices[2].RescaleSlope = "1"
        path = write_slices(folder / "series", slices)
        content = (path / "002.dcm").read_bytes()
        # RescaleSlope (0028,1053) DS of length 2: pydicom would not write what is no number.
        at = content.index(b"\x28\x00\x53\x10DS\x02\x00") + 6
        text = value.encode() + b" " * (len(value) % 2)
        (path / "002.dcm").write_bytes(content[:at] + bytes([len(text), 0]) + text + content[at + 4 :])
        return path

    return make


def without_slice(folder: Path) -> Path:
    slices = make_slices()
    del slices[3]
    return write_slices(folder / "series", slices)


def with_copy(folder: Path) -> Path:
    slices = make_slices()
    return write_slices(folder / "series", [*slices, slices[2]])


def with_position(position: Callable[[int], list[float]]) -> Make:
    def make(folder: Path) -> Path:
        slices = make_slices()
        for index, ds in enumerate(slices):
            ds.ImagePositionPatient = [f"{v:.6f}" for v in position(index)]
        return write_slices(folder / "series", slices)

    return make


def two_series(folder: Path) -> Path:
    slices = make_slices(0) + make_slices(1)
    for ds in slices[7:]:
        ds.SeriesDescription = "SECOND"
    return write_slices(folder / "series", slices)


def undecodable(folder: Path) -> Path:
    slices = make_slices()
    for ds in slices:
        ds.file_meta.TransferSyntaxUID = HTJ2KLossless
        ds.PixelData = encapsulate([b"no such codestream"])
        ds["PixelData"].VR = "OB"
    return write_slices(folder / "series", slices)


DICOM: list[tuple[int, str, tuple[str, ...], Make]] = [
    (15, "SCALE", ("RescaleSlope",), with_slope("nan")),
    (15, "SCALE", ("RescaleSlope",), with_slope("1e400")),
    (16, "MISSING_SLICE", ("1 slice is missing", "12.50 mm"), without_slice),
    (16, "DUPLICATE_SLICE", ("1 too many",), with_copy),
    (17, "SLICE_SPACING", ("mm apart",), with_position(lambda i: [-20, 30, 5 + 2.5 * i + 0.13 * i * i])),
    (18, "GANTRY_TILT", ("degrees",), with_position(lambda i: [-20, 30 + i * 0.5, 5 + 2.5 * i])),
    (19, "SEVERAL_SERIES", ("2 series", "'SECOND'", "--series"), two_series),
    (20, "NO_DECODER", ("High-Throughput JPEG 2000", "install"), undecodable),
]


@pytest.mark.parametrize(("row", "code", "words", "make"), DICOM, ids=lambda v: str(v) if isinstance(v, int) else None)
def test_a_faulty_series_is_refused_by_name(row, code, words, make, tmp_path, medgan):
    path = make(tmp_path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    ended = medgan("check", path)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    line = ended.out.splitlines()[0]
    assert f": {code}: " in line
    assert all(word in line for word in words), line
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_12_a_frame_and_19_a_series_can_be_chosen(tmp_path, medgan):
    assert medgan("check", save(tmp_path, np.ones((*SHAPE, 3), np.int16) * np.arange(3)), "--frame", 1).code == 0
    folder = two_series(tmp_path)
    uid = make_slices(5)[0].SeriesInstanceUID
    assert "UNKNOWN_SERIES" in medgan("check", folder, "--series", uid).out
    listed = medgan("check", folder).out
    chosen = next(word for word in listed.split() if word.count(".") > 3).strip("(;:")
    assert medgan("check", folder, "--series", chosen).code == 0


def test_15_slopes_that_differ_are_applied_slice_by_slice(tmp_path):
    from medgan.data.dicom import read_dicom_series

    slices = make_slices()
    plain = read_dicom_series(write_slices(tmp_path / "plain", slices)).data
    slices[3].RescaleSlope = "2"
    changed = read_dicom_series(write_slices(tmp_path / "changed", slices)).data
    np.testing.assert_array_equal(changed[..., 3], 2 * (plain[..., 3] + 1024) - 1024)
    np.testing.assert_array_equal(np.delete(changed, 3, axis=3), np.delete(plain, 3, axis=3))


def labelled(folder: Path, label: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    save(folder)
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / "label.nii.gz")
    (folder / "manifest.csv").write_text("case_id,image,label\na,scan.nii.gz,label.nii.gz\n")
    return folder / "manifest.csv"


def test_07_a_constant_image_is_reported_and_divides_by_nothing(tmp_path, medgan):
    ended = medgan("check", save(tmp_path, np.full(SHAPE, 7, np.int16)))
    assert ended.code == 0
    assert "CONSTANT: every voxel is 7" in ended.out
    grid = Preprocessing(PreprocessConfig(shape=(16, 16, 16))).image_to_grid(np.full((1, *SHAPE), 7, np.int16), AFFINE)
    assert np.isfinite(grid.numpy()).all()


def test_08_an_empty_mask_is_reported(tmp_path, medgan):
    ended = medgan("check", labelled(tmp_path, np.zeros(SHAPE, np.uint8)))
    assert ended.code == 0
    assert "EMPTY_MASK" in ended.out
    assert "remove it from the cohort to use the case without label" in ended.out


def test_09_undeclared_label_values_are_listed(tmp_path, medgan):
    label = np.zeros(SHAPE, np.uint8)
    label[2:4], label[5] = 1, 9
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    save(tmp_path / "images")
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), tmp_path / "labels" / "scan.nii.gz")
    (tmp_path / "dataset.json").write_text(
        '{"labels": {"0": "background", "1": "organ"}, "modality": {"0": "CT"}, "training": '
        '[{"image": "images/scan.nii.gz", "label": "labels/scan.nii.gz"}]}'
    )
    ended = medgan("check", tmp_path)
    assert ended.code == 2
    assert "UNDECLARED_LABELS: label values 9 are not declared" in ended.out


def test_10_a_label_elsewhere_is_refused_with_the_distance(tmp_path, medgan):
    moved = AFFINE.copy()
    moved[2, 3] += 3.5
    ended = medgan("check", labelled(tmp_path, np.ones(SHAPE, np.uint8), moved))
    assert ended.code == 2
    assert "GEOMETRY_MISMATCH: it lies up to 3.5 mm from" in ended.out


def test_14_a_slope_of_nan_or_0_means_unscaled_and_is_logged(tmp_path, medgan):
    for value in (np.nan, 0):
        ended = medgan("-vv", "check", header(112, "<f4", value)(tmp_path))
        assert ended.code == 0
        assert "the voxels are taken as stored" in ended.err


@pytest.mark.parametrize("shape", [(3, 3, 3), (17, 15, 9), (15, 16, 33), (40, 5, 16)])
def test_21_any_size_is_padded_and_cropped_back_exactly(shape):
    data = RNG.normal(size=(1, *shape)).astype(np.float32)
    config = PreprocessConfig(shape=(40, 40, 40), intensity={"kind": "window", "window": [-10, 10]})
    affine = np.diag([1.0, 1, 1, 1])
    grid = Preprocessing(config).image_to_grid(data, affine)[0].numpy()
    start = [(n - 40) // 2 for n in shape]
    inside = tuple(slice(-s, -s + n) for s, n in zip(start, shape, strict=True))
    np.testing.assert_allclose(grid[inside] * 20 - 10, data[0], atol=2e-4)
    outside = np.ones(grid.shape, bool)
    outside[inside] = False
    np.testing.assert_allclose(grid[outside], 0, atol=1e-4)  # an edge voxel by float32 rounding of its place


def test_23_a_volume_larger_than_the_memory_is_refused_with_both_figures(tmp_path, medgan, monkeypatch):
    path = save(tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    ended = medgan("check", path)
    assert ended.code == 2
    assert "SIZE: the volume needs 2272 bytes, 1000 are free" in ended.out
