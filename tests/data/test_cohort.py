from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgan.config import DataConfig
from medgan.data.cohort import Case, load_image, load_label, open_cohort, read_cohort
from medgan.errors import InputFault

RNG = np.random.default_rng(3)


def _image(path: Path, shape: tuple[int, ...] = (5, 4, 3), affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = RNG.integers(0, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def _label(path: Path, values: tuple[int, ...] = (0, 1, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.resize(np.array(values, np.uint8), (5, 4, 3)), np.eye(4)), path)
    return path


def _manifest(folder: Path, *lines: str, header: str = "case_id,patient_id,image,label,grade,split") -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in "abc":
        _image(tmp_path / "images" / f"{name}.nii.gz")
        _label(tmp_path / "labels" / f"{name}.nii.gz")
    return tmp_path


def _fault(path: Path, code: str, *words: str, **options: object) -> None:
    with pytest.raises(InputFault) as caught:
        read_cohort(path, **options)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_manifest_gives_cases_with_paths_from_its_own_folder(files):
    path = _manifest(
        files,
        "a,p1,images/a.nii.gz,labels/a.nii.gz,high,train",
        "b,p1,images/b.nii.gz,,,training",
        "c,p2,images/c.nii.gz,,low,val",
    )
    cohort = read_cohort(path, class_key="grade")
    assert cohort.cases == (
        Case("a", "p1", (files / "images/a.nii.gz",), files / "labels/a.nii.gz", "high", "training"),
        Case("b", "p1", (files / "images/b.nii.gz",), None, None, "training"),
        Case("c", "p2", (files / "images/c.nii.gz",), None, "low", "validation"),
    )
    assert cohort.class_names == ("high", "low")
    assert read_cohort(files, class_key="grade").cases == cohort.cases


@pytest.mark.parametrize(
    ("written", "meant"),
    [("train", "training"), ("Val", "validation"), ("valid", "validation"), ("TEST", "test"), ("", None)],
)
def test_the_usual_names_of_splits_are_understood(files, written, meant):
    path = _manifest(files, f"a,p,images/a.nii.gz,,,{written}")
    assert read_cohort(path).cases[0].split == meant


def test_only_case_id_and_image_are_needed_and_a_byte_order_mark_or_blank_line_does_no_harm(files):
    path = files / "cases.csv"
    path.write_text("\ufeffcase_id,image\n\na, images/a.nii.gz\n\n", encoding="utf-8")
    assert read_cohort(path).cases == (Case("a", "a", (files / "images/a.nii.gz",)),)


def test_a_frame_and_a_series_are_columns(files):
    (files / "m.csv").write_text("case_id,image,frame,series\na,images/a.nii.gz,2,\nb,images/b.nii.gz,,1.2.3\n")
    cases = read_cohort(files / "m.csv").cases
    assert [(case.frame, case.series) for case in cases] == [(2, None), (None, "1.2.3")]
    (files / "m.csv").write_text("case_id,image,frame\na,images/a.nii.gz,first\n")
    with pytest.raises(InputFault, match="MANIFEST: row 2: the frame 'first' is no number"):
        read_cohort(files / "m.csv")


def test_without_a_class_key_there_are_no_classes(files):
    cohort = read_cohort(_manifest(files, "a,p,images/a.nii.gz,,high,"))
    assert cohort.class_names == ()
    assert cohort.cases[0].class_name is None


def test_cases_of_other_classes_count_as_without_class_and_that_is_logged(files, caplog):
    path = _manifest(files, *(f"{n},{n},images/{n}.nii.gz,,{g}," for n, g in zip("abc", ["x", "y", "z"], strict=True)))
    with caplog.at_level(logging.INFO):
        cohort = read_cohort(path, class_key="grade", classes=("z", "x"))
    assert cohort.class_names == ("z", "x")
    assert [case.class_name for case in cohort.cases] == ["x", None, "z"]
    assert "1 cases count as without class" in caplog.text


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (["a,p,images/a.nii.gz,,,", "a,q,images/b.nii.gz,,,"], "DUPLICATE_CASE", ["'a'"]),
        (["a,p,images/a.nii.gz,,,train", "b,p,images/b.nii.gz,,,test"], "PATIENT_IN_TWO_SPLITS", ["p"]),
        (["a,p,images/a.nii.gz,,,", "b,p,images/no.nii.gz,,,"], "MISSING_FILE", ["row 3", "images/no.nii.gz"]),
        (["a,p,images/a.nii.gz,labels/no.nii.gz,,"], "MISSING_FILE", ["row 2", "labels/no.nii.gz"]),
        (["a,p,images/a\\0.nii.gz,,,"], "MISSING_FILE", ["row 2"]),
        (["a,p,images/a.nii.gz,,,someday"], "MANIFEST", ["row 2", "'someday'"]),
        ([",p,images/a.nii.gz,,,"], "MANIFEST", ["row 2", "case_id"]),
        (["a,p,,,,"], "MANIFEST", ["row 2", "image"]),
        (["a,p,images/a.nii.gz,,,,,"], "MANIFEST", ["row 2", "8 cells"]),
        (["a,p,images/a.nii.gz;images/b.nii.gz,,,", "c,p,images/c.nii.gz,,,"], "CHANNELS", ["1 with 1", "1 with 2"]),
        ([], "EMPTY_COHORT", []),
    ],
)
def test_a_faulty_manifest_is_refused_with_row_and_value(files, lines, code, words):
    _fault(_manifest(files, *lines), code, *words)


def test_a_nul_byte_in_a_manifest_is_a_fault(files):
    path = files / "cases.csv"
    path.write_bytes(b"case_id,image\na,images/a\0.nii.gz\n")
    with pytest.raises(InputFault) as caught:
        read_cohort(path)
    assert "\0" not in str(caught.value)


def test_a_table_without_the_needed_columns_is_refused(files):
    _fault(_manifest(files, "a,b", header="name,file"), "MANIFEST", "case_id or image", "name, file")
    (files / "manifest.csv").write_bytes(b"\xff\xfe\x00\x01")
    _fault(files / "manifest.csv", "MANIFEST", "CSV")


def test_an_unknown_class_column_is_refused_with_the_columns(files):
    path = _manifest(files, "a,p,images/a.nii.gz,,high,")
    _fault(path, "UNKNOWN_CLASS_KEY", "'colour'", "grade", class_key="colour")
    _fault(path, "UNKNOWN_CLASS", "low", "high", class_key="grade", classes=("low",))
    _fault(files / "images", "UNKNOWN_CLASS_KEY", "CSV manifest", class_key="grade")


def test_channels_in_several_files_are_stacked(files):
    path = _manifest(files, "a,p,images/a.nii.gz;images/b.nii.gz,labels/a.nii.gz,,")
    cohort = read_cohort(path)
    image = load_image(cohort.cases[0])
    assert cohort.channels == 2
    assert image.data.shape == (2, 5, 4, 3)
    assert np.array_equal(image.data[1], nib.load(files / "images/b.nii.gz").get_fdata())


def test_channels_on_different_grids_are_refused(files):
    _image(files / "images/b.nii.gz", affine=np.diag([1.0, 1, 2, 1]))
    case = read_cohort(_manifest(files, "a,p,images/a.nii.gz;images/b.nii.gz,,,")).cases[0]
    with pytest.raises(InputFault, match=r"GEOMETRY_MISMATCH.* 2 mm"):
        load_image(case)


def _dataset(folder: Path, **changes: object) -> Path:
    tree = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "head", "2": "tail"},
        "training": [{"image": f"./images/{n}.nii.gz", "label": f"./labels/{n}.nii.gz"} for n in "ab"],
        "test": ["./images/c.nii.gz", "./images/gone.nii.gz"],
    }
    path = folder / "dataset.json"
    path.write_text(json.dumps(tree | changes))
    return path


def test_a_decathlon_cohort_has_labels_but_no_split(files, caplog):
    with caplog.at_level(logging.INFO):
        cohort = read_cohort(_dataset(files))
    assert cohort.cases == (
        Case("a", "a", (files / "images/a.nii.gz",), files / "labels/a.nii.gz"),
        Case("b", "b", (files / "images/b.nii.gz",), files / "labels/b.nii.gz"),
        Case("c", "c", (files / "images/c.nii.gz",)),
    )
    assert cohort.label_names == {1: "head", 2: "tail"}
    assert cohort.modality == "mri"
    assert "1 test or validation entries have no files" in caplog.text
    assert read_cohort(files).cases == cohort.cases


def test_label_names_are_read_in_both_forms_and_can_be_given(files):
    assert read_cohort(_dataset(files, labels={"background": 0, "tail": 2})).label_names == {2: "tail"}
    assert read_cohort(files, labels={0: "none", 5: "other"}).label_names == {5: "other"}


def test_several_modalities_are_channels_of_one_file(files):
    _image(files / "images/four.nii.gz", (5, 4, 3, 2))
    cohort = read_cohort(
        _dataset(files, modality={"0": "T1", "1": "T2"}, training=[{"image": "images/four.nii.gz"}], test=[])
    )
    assert cohort.channels == 2
    assert load_image(cohort.cases[0]).data.shape == (2, 5, 4, 3)


def test_nnunet_names_its_cases_by_their_files(files):
    for name in ("x_0000", "x_0001", "y_0000", "y_0001"):
        _image(files / "imagesTr" / f"{name}.nii.gz")
    _label(files / "labelsTr" / "x.nii.gz")
    tree = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "tumour": 1},
        "file_ending": ".nii.gz",
    }
    (files / "dataset.json").write_text(json.dumps(tree))
    cohort = read_cohort(files)
    assert [(case.case_id, len(case.images), case.label is not None) for case in cohort.cases] == [
        ("x", 2, True),
        ("y", 2, False),
    ]
    assert (cohort.channels, cohort.modality) == (2, "ct")


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"training": [{"image": "images/no.nii.gz"}]}, "MISSING_FILE", "training[0]"),
        ({"training": [{"label": "labels/a.nii.gz"}]}, "DATASET_JSON", "training[0]"),
        ({"training": [{"image": 3}]}, "DATASET_JSON", "training[0]"),
        ({"training": [{"image": "images/a.nii.gz", "label": 1}]}, "DATASET_JSON", "training[0]"),
        ({"training": {}}, "DATASET_JSON", "training"),
        ({"labels": {"whole": [1, 2]}}, "DATASET_JSON", "whole"),
        ({"labels": [1]}, "DATASET_JSON", "labels"),
        ({"training": [], "test": []}, "EMPTY_COHORT", "no usable case"),
        ({"training": [{"image": "images/a\0.nii.gz"}]}, "MISSING_FILE", "training[0]"),
    ],
)
def test_a_faulty_dataset_json_is_refused_with_its_entry(files, changes, code, word):
    _fault(_dataset(files, **changes), code, word)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\x00"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    _fault(tmp_path, "DATASET_JSON")


def test_a_folder_of_images_and_labels_is_paired_by_name(files, caplog):
    (files / "labels/b.nii.gz").rename(files / "labels/z.nii.gz")
    cohort = read_cohort(files)
    assert [(case.case_id, case.label is not None) for case in cohort.cases] == [("a", True), ("b", False), ("c", True)]
    assert "1 label maps have no image, e.g. z.nii.gz" in caplog.text


def test_a_folder_of_nifti_files_and_a_single_file_are_cohorts(files):
    assert [case.case_id for case in read_cohort(files / "images").cases] == ["a", "b", "c"]
    assert [case.patient_id for case in read_cohort(files / "images/a.nii.gz").cases] == ["a"]


@pytest.mark.parametrize("name", ["missing", "missing.csv", "nul\0byte"])
def test_a_path_that_does_not_exist_is_refused(tmp_path, name):
    _fault(tmp_path / name, "MISSING_FILE")


def test_an_empty_folder_and_a_strange_file_are_no_cohort(tmp_path):
    _fault(tmp_path, "EMPTY_COHORT", "CSV manifest")
    (tmp_path / "a.txt").write_text("hello")
    _fault(tmp_path / "a.txt", "NO_COHORT")


def test_faults_of_single_cases_can_be_collected_instead(files):
    path = _manifest(files, "a,p,images/a.nii.gz,,,", "b,p,images/no.nii.gz,,,", "a,p,images/c.nii.gz,,,")
    faults: list[InputFault] = []
    cohort = read_cohort(path, report=faults.append)
    assert [case.case_id for case in cohort.cases] == ["a"]
    assert [fault.code for fault in faults] == ["MISSING_FILE", "DUPLICATE_CASE"]


def test_a_label_is_held_against_its_image_and_the_declared_values(files):
    case = read_cohort(_dataset(files)).cases[0]
    image = load_image(case)
    label = load_label(case, image, {1: "head", 2: "tail"})
    assert label.data.dtype == np.uint8
    assert label.data.shape == image.data.shape
    with pytest.raises(InputFault, match=r"a.nii.gz: UNDECLARED_LABELS: label values 2 "):
        load_label(case, image, {1: "head"})
    assert load_label(Case("a", "a", case.images), image, {}) is None


def test_open_cohort_finds_label_values_nobody_declared(files):
    _manifest(files, "a,p,images/a.nii.gz,labels/a.nii.gz,high,", "b,q,images/b.nii.gz,,low,")
    cohort = open_cohort(DataConfig(root=files, class_key="grade", classes=("low", "high")))
    assert cohort.label_names == {1: "label 1", 2: "label 2"}
    assert cohort.class_names == ("low", "high")
    assert open_cohort(DataConfig(root=files, labels={1: "x", 2: "y"})).label_names == {1: "x", 2: "y"}


def test_a_download_needs_a_known_task(tmp_path):
    with pytest.raises(InputFault, match=r"DOWNLOAD: .*'Task99' is not a task, choose one of Task01"):
        open_cohort(DataConfig(root=tmp_path, download=True, decathlon_task="Task99"))


def test_what_was_downloaded_before_is_not_fetched_again(files):
    _dataset(files)
    cohort = open_cohort(DataConfig(root=files.parent, download=True, decathlon_task=files.name))
    assert len(cohort.cases) == 3


@pytest.mark.realdata
def test_the_real_cohorts_are_read(realdata):
    hippocampus = read_cohort(realdata / "hippocampus")
    assert len(hippocampus.cases) == 200
    assert hippocampus.label_names == {1: "Anterior", 2: "Posterior"}
    nodules = read_cohort(realdata / "ct_nodules_lidc", class_key="malignancy", classes=("benign", "malignant"))
    assert Counter(case.class_name for case in nodules.cases) == {"benign": 21, "malignant": 49, None: 31}
    adrenal = read_cohort(realdata / "adrenal_mnist3d", class_key="class")
    assert Counter(case.split for case in adrenal.cases) == {"training": 1188, "validation": 98}
    assert adrenal.class_names == ("hyperplasia", "normal")
    for cohort in (hippocampus, nodules, adrenal):
        case = cohort.cases[7]
        image = load_image(case)
        assert image.data.shape[0] == 1
        label = load_label(case, image, cohort.label_names)
        assert (label is None) == (cohort is adrenal)


@pytest.mark.realdata
def test_a_real_dicom_folder_is_one_case_or_one_a_subfolder(realdata):
    single = read_cohort(realdata / "dicom" / "ct_torchio")
    assert [case.case_id for case in single.cases] == ["ct_torchio"]
    assert single.modality == "ct"
    several = read_cohort(realdata / "dicom" / "multivendor" / "failing" / "gantrytilting")
    assert [case.case_id for case in several.cases] == ["001"]
    assert load_image(single.cases[0]).spatial_shape == (88, 128, 17)
