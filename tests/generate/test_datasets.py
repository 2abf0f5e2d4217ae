"""Ready-to-train data sets: what nnU-Net and MONAI want to find, alone and mixed with real cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from generated import files, rows
from monai.data import load_decathlon_datalist

from medgan.data.cohort import load_image, load_label, read_cohort
from medgan.errors import InputFault
from medgan.generate.batch import generate
from medgan.generate.job import FormatName
from medgan.generate.reproduce import reproduce


def test_an_nnunet_data_set_is_what_nnunet_reads(
    seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "Dataset501_Balls"
    generate(seen_checkpoint, cohort_folder, output, count=7, format_name="nnunet", real_share=0.3)
    tree = json.loads((output / "dataset.json").read_text())
    assert tree["channel_names"] == {"0": "MRI"}
    assert tree["labels"] == {"background": 0, "ball": 1}
    assert tree["file_ending"] == ".nii.gz"
    images = sorted((output / "imagesTr").glob("*.nii.gz"))
    assert tree["numTraining"] == len(images) == 10
    for image in images:
        label = output / "labelsTr" / f"{image.name.removesuffix('_0000.nii.gz')}.nii.gz"
        one, other = nibabel.load(image), nibabel.load(label)
        assert one.shape == other.shape
        assert np.array_equal(one.affine, other.affine)
        assert set(np.unique(other.dataobj)) <= {0, 1}
    # case00 has no label map, which nnU-Net cannot train on.
    assert not any("case00" in image.name for image in images)
    assert [row["synthetic"] for row in rows(output)] == ["yes"] * 7 + ["no"] * 3
    assert len(read_cohort(output).cases) == 10
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    checks = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity", reason="nnU-Net is absent")
    checks.verify_dataset_integrity(str(output), 1)


def test_a_decathlon_is_what_monai_reads(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=6, format_name="decathlon", real_share=0.25)
    entries = load_decathlon_datalist(tmp_path / "dataset.json")
    assert len(entries) == 8
    assert [entry["synthetic"] for entry in entries] == ["yes"] * 6 + ["no"] * 2
    for entry in entries:
        assert nibabel.load(entry["image"]).shape == nibabel.load(entry.get("label", entry["image"])).shape
    cohort = read_cohort(tmp_path, class_key="size", classes=("small", "large"))
    assert dict(cohort.label_names) == {1: "ball"}
    assert {case.patient_id for case in cohort.cases} == {f"patient{i:02d}" for i in range(6)}
    assert load_label(cohort.cases[1], load_image(cohort.cases[1]), cohort.label_names) is not None


@pytest.mark.parametrize("format_name", ["nifti", "nnunet", "decathlon"])
def test_real_cases_are_links_to_the_sources(
    format_name: FormatName, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=3, format_name=format_name, real_share=0.5)
    real = [row for row in rows(tmp_path) if row["synthetic"] == "no"]
    assert len(real) == 3
    for row in real:
        image = tmp_path / row["image"]
        assert image.is_symlink()
        assert image.resolve() == (cohort_folder / "images" / f"{row['source_case']}.nii.gz").resolve()
        assert not row["label"] or (tmp_path / row["label"]).is_symlink()


def test_a_real_case_of_another_kind_of_file_is_converted(
    make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    lines = ["case_id,image,label"]
    for i in (1, 2):
        for kind in ("images", "labels"):
            image = nibabel.load(cohort_folder / kind / f"case0{i}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine), tmp_path / f"{kind}{i}.nii")
        lines.append(f"c{i},images{i}.nii,labels{i}.nii")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    checkpoint = make_checkpoint(tmp_path / "generator")
    generate(checkpoint, tmp_path / "m.csv", tmp_path / "out", count=2, format_name="nnunet", real_share=0.5)
    path = tmp_path / "out" / "imagesTr" / "c1_0000.nii.gz"
    assert not path.is_symlink()
    assert np.array_equal(nibabel.load(path).dataobj, nibabel.load(tmp_path / "images1.nii").dataobj)


def test_a_ratio_that_cannot_be_kept_is_refused(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="REAL_SHARE: 50% real beside 8 siblings are 8 cases, but there are 6"):
        generate(seen_checkpoint, cohort_folder, tmp_path / "a", count=8, real_share=0.5)
    with pytest.raises(InputFault, match="REAL_SHARE"):
        generate(seen_checkpoint, cohort_folder, tmp_path / "a", count=2, real_share=0.5, format_name="dicom")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("format_name", ["nnunet", "decathlon"])
def test_two_channels_lie_as_each_tool_wants_and_can_be_made_again(
    format_name: FormatName, make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    image, label = (cohort_folder / kind / "case01.nii.gz" for kind in ("images", "labels"))
    (tmp_path / "m.csv").write_text(f"case_id,image,label\nc,{image};{image},{label}\n")
    checkpoint = make_checkpoint(tmp_path / "generator", channels=2)
    generate(checkpoint, tmp_path / "m.csv", tmp_path / "out", count=1, format_name=format_name, real_share=0.5)
    shapes = {path.name: len(nibabel.load(path).shape) for path in (tmp_path / "out" / "imagesTr").glob("*.gz")}
    if format_name == "nnunet":
        names = [f"{name}_{channel:04d}.nii.gz" for name in ("c", "c_sibling0000") for channel in (0, 1)]
        assert shapes == dict.fromkeys(names, 3)
    else:
        assert shapes == {"c.nii.gz": 4, "c_sibling0000.nii.gz": 4}
    assert read_cohort(tmp_path / "out").channels == 2
    assert reproduce(tmp_path / "out" / "imagesTr" / "c_sibling0000.json", tmp_path / "x.nii.gz")


def test_label_values_with_gaps_are_refused_for_nnunet(
    make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    entry = {kind: str(cohort_folder / f"{kind}s" / "case01.nii.gz") for kind in ("image", "label")}
    tree = {"labels": {"0": "background", "2": "two"}, "training": [entry]}
    (tmp_path / "dataset.json").write_text(json.dumps(tree))
    checkpoint = make_checkpoint(tmp_path / "generator")
    record = checkpoint / "checkpoint.json"
    record.write_text(record.read_text().replace('"1": "ball"', '"3": "ball"'))
    with pytest.raises(InputFault, match="LABEL_VALUES"):
        generate(checkpoint, tmp_path, tmp_path / "out", count=1, format_name="nnunet")


def test_another_format_is_not_written_over(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=1)
    before = files(tmp_path)
    with pytest.raises(InputFault, match=r"OTHER_OUTPUT: .*format nifti, now dicom"):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=1, format_name="dicom")
    assert files(tmp_path) == before
