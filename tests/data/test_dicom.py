from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    generate_uid,
)

from medgan.data.dicom import is_dicom_folder, read_dicom_series
from medgan.data.dicom_headers import patient_digest, series_modality
from medgan.errors import InputFault

RNG = np.random.default_rng(2)
ROWS, COLUMNS, SLICES = 36, 33, 7
SECRET = "Doe^Jane"


class Series:
    """A series being made: change its slices, then write it."""

    def __init__(self, orientation=(1.0, 0, 0, 0, 1, 0), step=2.5, slices=SLICES) -> None:
        self.pixels = RNG.integers(-100, 2000, (slices, ROWS, COLUMNS)).astype(np.int16)
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        normal = np.cross(row, column)
        uid = generate_uid()
        self.slices = [
            self._slice(i, uid, orientation, np.array([-20.0, 30, 5]) + i * step * normal) for i in range(slices)
        ]

    def _slice(self, index, uid, orientation, position) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription, ds.Modality = uid, "3", "THORAX", "CT"
        ds.PatientName, ds.PatientID, ds.InstanceNumber = SECRET, "ID-4711", str(index + 1)
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in orientation]
        ds.ImagePositionPatient = [f"{v:.10g}" for v in position]
        ds.PixelSpacing, ds.SliceThickness = ["0.8", "0.5"], "2.5"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        ds.PixelData = self.pixels[index].tobytes()
        return ds

    def write(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        order = RNG.permutation(len(self.slices))
        for name, index in enumerate(order):
            self.slices[index].save_as(folder / f"{name:03d}.dcm", enforce_file_format=True)
        return folder


@pytest.fixture
def series() -> Series:
    return Series()


def _fault(folder: Path, code: str, *words: str, **options: str) -> None:
    with pytest.raises(InputFault) as caught:
        read_dicom_series(folder, **options)
    line = str(caught.value)
    assert caught.value.code == code
    assert "\n" not in line
    assert SECRET not in line
    assert "4711" not in line
    for word in words:
        assert word in line


def test_voxels_are_rescaled_and_ordered_along_the_normal(series, tmp_path):
    volume = read_dicom_series(series.write(tmp_path / "s"))
    assert volume.data.shape == (1, COLUMNS, ROWS, SLICES)
    assert np.array_equal(volume.data[0], series.pixels.transpose(2, 1, 0) - 1024)
    assert (volume.dtype, volume.slope, volume.intercept) == (np.int16, 1, -1024)


def test_the_affine_is_ras_from_column_row_slice(series, tmp_path):
    volume = read_dicom_series(series.write(tmp_path / "s"))
    expected = np.array([[-0.5, 0, 0, 20], [0, -0.8, 0, -30], [0, 0, 2.5, 5], [0, 0, 0, 1]])
    assert np.allclose(volume.affine, expected)


def test_an_oblique_stack_lies_where_its_slices_say(tmp_path):
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    series = Series((*row, *column), step=3)
    volume = read_dicom_series(series.write(tmp_path / "s"))
    for index, part in enumerate(series.slices):
        lps = np.array(part.ImagePositionPatient, float) + 2 * 0.5 * row + 4 * 0.8 * column
        assert np.allclose(volume.affine @ [2, 4, index, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)


def test_slope_and_intercept_are_applied_slice_by_slice(series, tmp_path, caplog):
    for index, part in enumerate(series.slices):
        part.RescaleSlope, part.RescaleIntercept = str(1 + index / 10), str(index)
    with caplog.at_level(logging.INFO):
        volume = read_dicom_series(series.write(tmp_path / "s"))
    for index in range(SLICES):
        expected = series.pixels[index].T * (1 + index / 10) + index
        assert np.allclose(volume.data[0, :, :, index], expected, rtol=1e-6)
    assert (volume.dtype, volume.slope, volume.intercept) == (np.float32, 1, 0)
    assert "differ between slices" in caplog.text


@pytest.mark.parametrize("slope", ["nan", "1e400", "inf", "0"])
def test_a_slope_that_is_no_scale_is_refused(series, tmp_path, slope):
    folder = series.write(tmp_path / "s")
    path = folder / "003.dcm"
    content = path.read_bytes()
    # pydicom refuses to write such a value: put it into the bytes, over "1 ".
    before = b"\x28\x00\x53\x10DS\x02\x001 "
    assert before in content
    text = slope.encode().ljust(len(slope) + len(slope) % 2)
    path.write_bytes(content.replace(before, before[:6] + len(text).to_bytes(2, "little") + text))
    _fault(folder, "SCALE", "RescaleSlope")


def test_a_missing_slice_is_named_by_its_place(series, tmp_path):
    del series.slices[2]
    _fault(series.write(tmp_path / "s"), "MISSING_SLICE", "1 slice is missing", "10.00 mm", "2.5 mm apart")


def test_several_missing_slices_are_counted_even_if_no_gap_is_the_true_one(series, tmp_path):
    series.slices = [series.slices[index] for index in (0, 2, 5)]
    _fault(series.write(tmp_path / "s"), "MISSING_SLICE", "3 slices are missing", "2.5 mm apart")


def test_a_slice_given_twice_is_refused(series, tmp_path):
    folder = series.write(tmp_path / "s")
    (folder / "copy.dcm").write_bytes((folder / "003.dcm").read_bytes())
    _fault(folder, "DUPLICATE_SLICE", "lie where others lie already, 1 too many")


def test_a_stack_repeated_in_time_is_four_dimensional(tmp_path):
    first, second = Series(), Series()
    for part in second.slices:
        part.SeriesInstanceUID = first.slices[0].SeriesInstanceUID
    first.slices += second.slices
    _fault(first.write(tmp_path / "s"), "FOUR_DIMENSIONAL", "2 slices at each of 7 positions")


def test_varying_spacing_is_refused_with_its_range(series, tmp_path):
    series.slices[-1].ImagePositionPatient[2] = "20.7"
    _fault(series.write(tmp_path / "s"), "SLICE_SPACING", "2.5 to 3.2 mm apart")


def test_a_tilted_gantry_is_refused_with_its_angle(series, tmp_path):
    for index, part in enumerate(series.slices):
        part.ImagePositionPatient[1] = f"{30 + index * 2.5 * np.tan(np.radians(12)):.6f}"
    _fault(series.write(tmp_path / "s"), "GANTRY_TILT", "12.00 degrees")


def test_a_tilt_that_only_the_header_states_is_refused(series, tmp_path):
    for part in series.slices:
        part.GantryDetectorTilt = "-15"
    _fault(series.write(tmp_path / "s"), "GANTRY_TILT", "15.00 degrees")


def test_slices_shifted_in_their_plane_are_refused(series, tmp_path):
    series.slices[3].ImagePositionPatient[0] = "-15"
    _fault(series.write(tmp_path / "s"), "SLICE_MISMATCH", "5 mm")


def test_positions_written_with_few_decimals_are_no_fault(tmp_path):
    series = Series(step=1.33333)
    for part in series.slices:
        part.ImagePositionPatient = [f"{float(v):.3f}" for v in part.ImagePositionPatient]
    assert read_dicom_series(series.write(tmp_path / "s")).spacing[2] == pytest.approx(1.33333, abs=1e-3)


def test_several_series_are_listed_and_one_can_be_chosen(series, tmp_path):
    other = Series()
    for part in other.slices:
        part.SeriesDescription, part.SeriesNumber = "LUNG", "4"
    folder = series.write(tmp_path / "s")
    for index, part in enumerate(other.slices):
        part.save_as(folder / f"other{index}.dcm", enforce_file_format=True)
    uids = series.slices[0].SeriesInstanceUID, other.slices[0].SeriesInstanceUID
    _fault(folder, "SEVERAL_SERIES", *uids, "THORAX", "LUNG", "number 4")
    assert np.array_equal(read_dicom_series(folder, uids[1]).data[0], other.pixels.transpose(2, 1, 0) - 1024)
    _fault(folder, "UNKNOWN_SERIES", "1.2.3", series="1.2.3")


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices_are_refused_with_the_minimum(tmp_path, count):
    _fault(Series(slices=count).write(tmp_path / "s"), "TOO_FEW_SLICES", f"{count} slice", "at least 3")


def test_colours_and_inverted_greys_are_refused(series, tmp_path):
    for part in series.slices:
        part.PhotometricInterpretation = "MONOCHROME1"
    _fault(series.write(tmp_path / "s"), "PHOTOMETRIC", "MONOCHROME1")
    for part in series.slices:
        part.PhotometricInterpretation = "PALETTE COLOR"
    _fault(series.write(tmp_path / "s"), "RGB", "PALETTE COLOR")


def test_a_compression_nobody_decodes_is_named_with_the_package(series, tmp_path):
    for part in series.slices:
        part.file_meta.TransferSyntaxUID = HTJ2KLossless
        part.PixelData = encapsulate([b"\xff\x4f\xff\x51"])
        part["PixelData"].VR = "OB"
    _fault(series.write(tmp_path / "s"), "NO_DECODER", "High-Throughput JPEG 2000", "pylibjpeg")
    for part in series.slices:
        part.file_meta.TransferSyntaxUID = UID("1.2.3.4.5")
    folder = tmp_path / "t"
    folder.mkdir()
    for index, part in enumerate(series.slices):
        part.save_as(folder / f"{index}.dcm", implicit_vr=False, little_endian=True, enforce_file_format=True)
    _fault(folder, "NO_DECODER", "1.2.3.4.5")


def test_damaged_compressed_pixels_are_refused(series, tmp_path):
    for part in series.slices:
        part.file_meta.TransferSyntaxUID = JPEG2000Lossless
        part.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(50)])
        part["PixelData"].VR = "OB"
    _fault(series.write(tmp_path / "s"), "CORRUPT")


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
@pytest.mark.parametrize("scale", [("1", "-1024"), ("0.37", "12.5")])
def test_compressed_slices_give_the_same_values_as_plain_ones(series, tmp_path, compressor, scale):
    import SimpleITK as sitk  # noqa: N813

    for part in series.slices:
        part.RescaleSlope, part.RescaleIntercept = scale
    plain = read_dicom_series(series.write(tmp_path / "plain"))
    folder = tmp_path / "compressed"
    folder.mkdir()
    for index, part in enumerate(series.slices):
        carrier = folder / f"{index}.dcm"
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(carrier))
        writer.Execute(sitk.GetImageFromArray(series.pixels[index]))
        made = pydicom.dcmread(carrier)
        assert made.file_meta.TransferSyntaxUID.is_compressed
        part.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
        part.PixelData = made.PixelData
        part["PixelData"].VR = "OB"
        part.save_as(carrier, enforce_file_format=True)
    volume = read_dicom_series(folder)
    assert np.array_equal(volume.data, plain.data)
    assert volume.dtype == plain.dtype


@pytest.mark.parametrize("kept", [0, 100, 300, 700, -20, -1])
def test_a_truncated_slice_is_never_passed_over(series, tmp_path, kept):
    folder = series.write(tmp_path / "s")
    # The last slice: without it, the rest would be an even stack.
    path = next(p for p in folder.iterdir() if pydicom.dcmread(p).InstanceNumber == SLICES)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputFault) as caught:
        read_dicom_series(folder)
    assert caught.value.code in {"TRUNCATED", "CORRUPT", "NO_GEOMETRY"}
    assert caught.value.path == str(path)


def test_a_slice_without_position_is_refused(series, tmp_path):
    del series.slices[2].ImagePositionPatient
    _fault(series.write(tmp_path / "s"), "NO_GEOMETRY")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PixelSpacing", ["0.8", "0.6"]), ("ImageOrientationPatient", ["0", "1", "0", "1", "0", "0"])],
)
def test_a_slice_unlike_the_others_is_refused(series, tmp_path, name, value):
    setattr(series.slices[2], name, value)
    _fault(series.write(tmp_path / "s"), "SLICE_MISMATCH")


def test_other_files_and_objects_without_slices_are_passed_over(series, tmp_path):
    folder = series.write(tmp_path / "s")
    (folder / "notes.txt").write_text("hello")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    report, segmentation = Series(slices=1).slices[0], Series(slices=1).slices[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.33")
    report.Modality = "SR"
    del report.Rows, report.Columns, report.PixelData
    segmentation.SOPClassUID = segmentation.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.66.4")
    segmentation.Modality = "SEG"
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    segmentation.save_as(folder / "seg.dcm", enforce_file_format=True)
    assert read_dicom_series(folder).spatial_shape == (COLUMNS, ROWS, SLICES)


def test_a_folder_without_slices_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    _fault(tmp_path, "NO_DICOM")
    _fault(tmp_path / "none", "MISSING_FILE")
    assert not is_dicom_folder(tmp_path)
    assert not is_dicom_folder(tmp_path / "none")


def _enhanced(series: Series) -> Dataset:
    ds = series.slices[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared, frames = Dataset(), []
    measures, plane, scale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ["0.8", "0.5"], "2.5"
    plane.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    scale.RescaleSlope, scale.RescaleIntercept = "2", "-5"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [scale]
    for part in series.slices:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = list(part.ImagePositionPatient)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames[::-1]
    ds.NumberOfFrames, ds.PixelData = SLICES, series.pixels[::-1].tobytes()
    for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)
    return ds


def test_an_enhanced_multi_frame_object_is_a_series(series, tmp_path):
    _enhanced(series).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    volume = read_dicom_series(tmp_path)
    assert np.array_equal(volume.data[0], series.pixels.transpose(2, 1, 0) * 2.0 - 5)
    assert np.allclose(volume.affine[:3, 3], [20, -30, 5])
    assert volume.spacing == pytest.approx((0.5, 0.8, 2.5))


def test_frames_without_positions_are_refused(series, tmp_path):
    ds = _enhanced(series)
    del ds.PerFrameFunctionalGroupsSequence
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    _fault(tmp_path, "MULTI_FRAME")


def test_a_patient_is_known_by_a_hash_alone(series, tmp_path):
    folder = series.write(tmp_path / "s")
    assert patient_digest(folder) == patient_digest(Series().write(tmp_path / "t"))
    assert len(patient_digest(folder)) == 12
    assert "4711" not in patient_digest(folder)
    for part in series.slices:
        part.PatientID = ""
    assert patient_digest(series.write(tmp_path / "u")) == "u"


def test_the_modality_is_that_of_the_slices(series, tmp_path):
    assert series_modality(series.write(tmp_path / "s")) == "ct"


GENERIC = [
    "anatomical/001",
    "anatomical/001_implicit",
    "anatomical/002_non_isotropic",
    "compressed/001",
    "compressed_rle/001",
    "compressed_jpeg/001",
    "compressed_jpegls/001",
    "compressed_j2k/001",
]


@pytest.mark.realdata
@pytest.mark.parametrize("name", GENERIC)
def test_a_real_series_agrees_with_its_ground_truth(realdata, name):
    folder = realdata / "dicom" / "multivendor" / "generic" / name
    volume = read_dicom_series(folder)
    truth = nib.as_closest_canonical(nib.load(f"{folder}_ground_truth.nii.gz"))
    own = nib.as_closest_canonical(nib.Nifti1Image(volume.data[0], volume.affine))
    assert np.allclose(own.affine, truth.affine, atol=1e-4)
    assert np.allclose(np.asarray(own.dataobj), np.asarray(truth.dataobj), rtol=1e-5)


@pytest.mark.realdata
def test_a_real_series_of_17_slices_agrees_with_simpleitk(realdata):
    import SimpleITK as sitk  # noqa: N813

    folder = realdata / "dicom" / "ct_torchio"
    volume = read_dicom_series(folder)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    assert np.array_equal(volume.data[0], sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    corner = image.TransformIndexToPhysicalPoint((5, 7, 11))
    assert np.allclose(volume.affine @ [5, 7, 11, 1], [-corner[0], -corner[1], corner[2], 1], atol=1e-3)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("multivendor/failing/gantrytilting/001", "GANTRY_TILT", "14.00 degrees"),
        ("multivendor/failing/sliceincrement/001", "MISSING_SLICE", "5 mm apart"),
        ("multivendor/failing/slicecount/001", "TOO_FEW_SLICES", "2 slices"),
        ("multivendor/generic/rgb/001", "RGB", "RGB"),
        # Twelve slices out of 73 positions: the gaps are multiples of 3 mm.
        ("ct_chest", "MISSING_SLICE", "61 slices are missing"),
    ],
)
def test_a_real_series_that_is_no_volume_is_refused_with_its_reason(realdata, name, code, word):
    with pytest.raises(InputFault) as caught:
        read_dicom_series(realdata / "dicom" / name)
    assert caught.value.code == code
    assert word in str(caught.value)
