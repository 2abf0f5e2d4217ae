from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgan.data.check import Finding, check

RNG = np.random.default_rng(4)


def _save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine, dtype=data.dtype), path)
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    rows = ["case_id,patient_id,image,label,grade"]
    for index, name in enumerate("abcd"):
        _save(tmp_path / f"images/{name}.nii.gz", RNG.integers(0, 999, (6, 5, 4 + index)).astype(np.int16))
        _save(tmp_path / f"labels/{name}.nii.gz", np.resize(np.array([0, 1], np.uint8), (6, 5, 4 + index)))
        rows.append(f"{name},p{name},images/{name}.nii.gz,labels/{name}.nii.gz,{'high' if index else 'low'}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path


def _codes(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(Path(finding.path).name, finding.code, finding.severity) for finding in findings]


def test_a_sound_cohort_gives_its_summary_alone(cohort):
    (summary,) = check(cohort, class_key="grade")
    assert (summary.code, summary.severity) == ("SUMMARY", "note")
    for words in (
        "4 cases (4 without a fault) of 4 patients",
        "4 labelled, 0 unlabelled",
        "high 3, low 1",
        "voxels 6x5x4 to 6x5x7",
        "spacing 1x1x1 mm",
        "label values 0, 1 (no names declared)",
    ):
        assert words in summary.message


def test_every_fault_is_reported_and_the_check_goes_on(cohort):
    truncated = cohort / "images/a.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    (cohort / "images/b.nii.gz").unlink()
    _save(cohort / "labels/c.nii.gz", np.ones((6, 5, 6), np.uint8), np.diag([1.0, 1, 3, 1]))
    _save(cohort / "images/d.nii.gz", np.full((6, 5, 7), np.nan, np.float32))
    findings = check(cohort)
    assert _codes(findings) == [
        ("manifest.csv", "MISSING_FILE", "error"),
        ("a.nii.gz", "TRUNCATED", "error"),
        ("c.nii.gz", "GEOMETRY_MISMATCH", "error"),
        ("d.nii.gz", "NOT_FINITE", "error"),
        (cohort.name, "SUMMARY", "note"),
    ]
    assert "3 cases (0 without a fault)" in findings[-1].message


def test_findings_are_one_line_each_and_json_able(cohort):
    (cohort / "images/b.nii.gz").write_bytes(b"")
    for finding in check(cohort):
        assert str(finding).startswith(f"{finding.path}: {finding.code}: ")
        assert "\n" not in str(finding)
        assert json.loads(json.dumps(asdict(finding))) == asdict(finding)


def test_a_constant_image_and_an_empty_mask_are_warnings(cohort):
    _save(cohort / "images/a.nii.gz", np.full((6, 5, 4), 7, np.int16))
    _save(cohort / "labels/b.nii.gz", np.zeros((6, 5, 5), np.uint8))
    findings = check(cohort)
    assert _codes(findings)[:-1] == [("a.nii.gz", "CONSTANT", "warning"), ("b.nii.gz", "EMPTY_MASK", "warning")]
    assert "every voxel is 7" in findings[0].message
    assert "4 without a fault" in findings[-1].message


@pytest.mark.parametrize(("patient", "severity"), [("pa", "warning"), ("pb", "error")])
@pytest.mark.parametrize("deep", [True, False])
def test_one_image_under_two_names_is_worse_for_two_patients(cohort, patient, severity, deep):
    shutil.copy(cohort / "images/a.nii.gz", cohort / "images/b.nii.gz")
    shutil.copy(cohort / "labels/a.nii.gz", cohort / "labels/b.nii.gz")
    text = (cohort / "manifest.csv").read_text()
    (cohort / "manifest.csv").write_text(text.replace("b,pb", f"b,{patient}"))
    findings = check(cohort, deep=deep)
    assert _codes(findings)[:-1] == [("a.nii.gz", "DUPLICATE_CONTENT", severity)]
    assert "the cases a, b have the same image content" in findings[0].message


def test_the_same_voxels_in_another_file_are_found_when_reading_deep(cohort):
    image = nib.load(cohort / "images/a.nii.gz")
    image.header["descrip"] = b"another"
    _save(cohort / "images/b.nii.gz", np.asarray(image.dataobj))
    (cohort / "images/b.nii.gz").write_bytes((cohort / "images/b.nii.gz").read_bytes() + bytes(10))
    shutil.copy(cohort / "labels/a.nii.gz", cohort / "labels/b.nii.gz")
    assert [finding.code for finding in check(cohort)] == ["DUPLICATE_CONTENT", "SUMMARY"]
    assert [finding.code for finding in check(cohort, deep=False)] == ["SUMMARY"]


def test_the_quick_check_reads_headers_only(cohort):
    damaged = cohort / "images/a.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert [finding.code for finding in check(cohort, deep=False)] == ["SUMMARY"]
    damaged.write_bytes(b"")
    findings = check(cohort, deep=False)
    assert [finding.code for finding in findings] == ["TRUNCATED", "SUMMARY"]
    assert "voxels 6x5x5 to 6x5x7" in findings[-1].message


def test_one_volume_can_be_checked(cohort):
    assert [finding.code for finding in check(cohort / "images/a.nii.gz")] == ["SUMMARY"]


@pytest.mark.parametrize(("name", "code"), [("none", "MISSING_FILE"), ("labels/none.csv", "MISSING_FILE")])
def test_what_is_not_there_is_one_error(cohort, name, code):
    assert _codes(check(cohort / name)) == [(Path(name).name, code, "error")]


def test_an_unknown_class_key_is_an_error(cohort):
    assert [finding.code for finding in check(cohort, class_key="colour")] == ["UNKNOWN_CLASS_KEY"]


@pytest.mark.realdata
def test_a_real_dicom_folder_is_checked(realdata):
    (good,) = check(realdata / "dicom" / "ct_torchio")
    assert "voxels 88x128x17" in good.message
    (fault, summary) = check(realdata / "dicom" / "multivendor" / "failing" / "gantrytilting" / "001")
    assert (fault.code, fault.severity, summary.code) == ("GANTRY_TILT", "error", "SUMMARY")


@pytest.mark.realdata
def test_the_real_cohorts_have_no_error(realdata):
    findings = check(realdata / "ct_nodules_lidc", class_key="malignancy")
    assert not [finding for finding in findings if finding.severity == "error"]
    findings = check(realdata / "hippocampus")
    assert not [finding for finding in findings if finding.severity == "error"]
    assert "200 cases (200 without a fault)" in findings[-1].message
