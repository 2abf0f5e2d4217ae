from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from generated import files, rows, sidecars

from medgan.checkpoint import file_digest
from medgan.data.cohort import load_image, load_label, read_cohort
from medgan.errors import InputFault
from medgan.generate.batch import generate
from medgan.generate.reproduce import reproduce
from medgan.sampler import Sampler, View


@pytest.fixture(scope="module")
def made(seen_checkpoint: Path, cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("synthetic")
    generate(seen_checkpoint, cohort_folder, output, count=14, seed=3)
    return output


def test_every_volume_lies_there_with_its_sidecar(made: Path) -> None:
    manifest = rows(made)
    assert len(manifest) == 14
    for row in manifest:
        sidecar = json.loads((made / row["image"].replace(".nii.gz", ".json")).read_text())
        assert sidecar["synthetic"] is True
        assert "not anonymous" in sidecar["statement"]
        assert sidecar["source"]["case_id"] == row["source_case"]
        assert sidecar["quality"]["fold_share"] == 0
        assert sidecar["quality"]["correlation_with_source"] < 0.999


def test_a_source_is_read_and_seen_once_however_many_siblings_it_has(
    seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    view = Sampler.view

    def counted(sampler: Sampler, volume: torch.Tensor, *arguments: Any) -> View:
        seen.append(volume)
        return view(sampler, volume, *arguments)

    monkeypatch.setattr(Sampler, "view", counted)
    generate(seen_checkpoint, cohort_folder, tmp_path / "out", count=18, seed=3)
    assert len(rows(tmp_path / "out")) == 18
    assert len(seen) == 6


@pytest.mark.parametrize("level", [0, 2, 3])
def test_the_sidecar_tells_the_bytes_on_the_disk_whatever_the_level(
    seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path, level: int
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path / "out", count=2, seed=3, level=level)
    sidecars = list((tmp_path / "out" / "images").glob("*.json"))
    assert len(sidecars) == 2
    for path in sidecars:
        for entry in json.loads(path.read_text())["files"].values():
            contents = [(tmp_path / "out" / name).read_bytes() for name in entry["paths"]]
            assert [len(content) for content in contents] == entry["bytes"]
            raws = [gzip.decompress(content) for content in contents]
            assert [hashlib.sha256(raw).hexdigest() for raw in raws] == entry["sha256"]


def test_only_cases_the_generator_has_seen_are_sources(made: Path) -> None:
    assert {row["source_case"] for row in rows(made)} == {f"case{i:02d}" for i in range(6)}


def test_geometry_and_dtype_are_the_sources_and_the_mask_is_moved(made: Path, cohort_folder: Path) -> None:
    for row in rows(made):
        image = nibabel.load(made / row["image"])
        source = nibabel.load(cohort_folder / "images" / f"{row['source_case']}.nii.gz")
        assert np.array_equal(image.affine, source.affine)
        assert image.shape == source.shape
        assert image.get_data_dtype() == source.get_data_dtype()
        assert (np.asarray(image.dataobj) != np.asarray(source.dataobj)).mean() > 0.5
        if row["label"]:
            mask = nibabel.load(made / row["label"])
            original = nibabel.load(cohort_folder / "labels" / f"{row['source_case']}.nii.gz")
            assert mask.get_data_dtype() == np.uint8
            assert (np.asarray(mask.dataobj) != np.asarray(original.dataobj)).any()
            inside = np.asarray(image.dataobj)[np.asarray(mask.dataobj) == 1]
            assert np.median(inside) > 600


def test_a_case_without_label_gives_siblings_without(made: Path) -> None:
    unlabelled = [row for row in rows(made) if row["source_case"] == "case00"]
    assert unlabelled
    assert all(row["label"] == "" and row["size"] == "" for row in unlabelled)


def test_the_output_is_itself_a_cohort(made: Path) -> None:
    cohort = read_cohort(made, class_key="size", classes=("small", "large"), labels={1: "ball"})
    assert len(cohort.cases) == 14
    for case in cohort.cases[:4]:
        load_label(case, load_image(case), cohort.label_names)


def test_a_volume_does_not_depend_on_what_else_is_made(
    made: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=3, seed=3, sources="all", class_name="large")
    shared = [p.name for p in (tmp_path / "images").glob("*.nii.gz") if (made / "images" / p.name).exists()]
    assert shared
    for name in shared:
        assert file_digest(tmp_path / "images" / name) == file_digest(made / "images" / name)


def test_another_seed_gives_other_volumes(
    made: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=6, seed=4)
    name = "case03_sibling0000.nii.gz"
    assert file_digest(tmp_path / "images" / name) != file_digest(made / "images" / name)


def test_an_interrupted_call_goes_on_and_makes_nothing_twice(
    made: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "half")
    kept, lost = "case01_sibling0000", "case04_sibling0001"
    (tmp_path / "half" / "images" / f"{lost}.json").unlink()
    before = (tmp_path / "half" / "images" / f"{kept}.nii.gz").stat().st_mtime_ns
    generate(seen_checkpoint, cohort_folder, tmp_path / "half", count=14, seed=3)
    assert (tmp_path / "half" / "images" / f"{kept}.nii.gz").stat().st_mtime_ns == before
    assert rows(tmp_path / "half") == rows(made)
    assert file_digest(tmp_path / "half" / "images" / f"{lost}.nii.gz") == file_digest(
        made / "images" / f"{lost}.nii.gz"
    )


def test_siblings_made_otherwise_are_not_mixed_in(made: Path, seen_checkpoint: Path, cohort_folder: Path) -> None:
    with pytest.raises(InputFault, match="OTHER_OUTPUT"):
        generate(seen_checkpoint, cohort_folder, made, count=14, seed=3, strength=0.5)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"count": 3}, "--count 7, now 3"),
        ({"class_name": "large"}, r"--class \[\], now \['large'\]"),
        ({"real_share": 0.2}, "--real-share 0.3, now 0.2"),
    ],
)
def test_no_volume_is_left_that_the_new_manifest_would_not_have(
    then: dict[str, Any], said: str, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    first: dict[str, Any] = {"count": 7, "seed": 3, "real_share": 0.3}
    generate(seen_checkpoint, cohort_folder, tmp_path, **first)
    before = files(tmp_path)
    with pytest.raises(InputFault, match=rf"OTHER_OUTPUT.*{said}"):
        generate(seen_checkpoint, cohort_folder, tmp_path, **{**first, **then})
    assert files(tmp_path) == before


def test_a_class_that_no_case_is_of_is_refused_with_those_there_are(
    seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputFault, match=r"--class: UNKNOWN_CLASS: .*'benign', choose of large, small"):
        generate(seen_checkpoint, cohort_folder, tmp_path / "out", count=1, class_name=["small", "benign"])


def test_more_may_be_asked_for_later(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    for count in (4, 7, 7):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=count, seed=3, real_share=0.3, format_name="nnunet")
    assert len(sidecars(tmp_path)) == 7
    (tmp_path / "generation.json").write_text(
        json.dumps({k: v for k, v in json.loads((tmp_path / "generation.json").read_text()).items() if k != "asked"})
    )  # as earlier versions left it
    with pytest.raises(InputFault, match=r"OTHER_OUTPUT.*\(fewer, or of other sources"):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=4, seed=3, real_share=0.3, format_name="nnunet")


def test_summary_and_contact_sheet(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text())
    assert summary["count"] == 14
    assert summary["by_class"] == {"unknown": 3, "large": 7, "small": 4}
    assert summary["quality"]["fold_share"]["max"] == 0
    assert (made / "contact_sheet.png").stat().st_size > 5000


def test_one_volume_made_again_is_the_same_bit_for_bit(made: Path, tmp_path: Path) -> None:
    assert reproduce(made / "images" / "case03_sibling0001.json", tmp_path / "again.nii.gz")
    original = nibabel.load(made / "images" / "case03_sibling0001.nii.gz")
    again = nibabel.load(tmp_path / "again.nii.gz")
    assert np.array_equal(np.asarray(original.dataobj), np.asarray(again.dataobj))


def test_a_sidecar_of_another_volume_is_noticed(made: Path, tmp_path: Path) -> None:
    sidecar = json.loads((made / "images" / "case03_sibling0001.json").read_text())
    sidecar["parameters"]["index"] = 0
    path = made / "images" / "changed.json"
    path.write_text(json.dumps(sidecar))
    assert not reproduce(path, tmp_path / "again.nii.gz")
    path.unlink()


def two_channels(cohort_folder: Path, folder: Path, *, one_file: bool) -> Path:
    """A cohort of three cases with two channels, in two files each or in one 4-D file."""
    entries, lines = [], ["case_id,image"]
    for i in range(3):
        image = nibabel.load(cohort_folder / "images" / f"case{i:02d}.nii.gz")
        data = np.asarray(image.dataobj)
        if one_file:
            stacked = np.stack([data, data // 2], axis=-1)
            nibabel.save(nibabel.Nifti1Image(stacked, image.affine), folder / f"c{i}.nii.gz")
            entries.append({"image": f"c{i}.nii.gz"})
        else:
            for name, part in (("a", data), ("b", data // 2)):
                nibabel.save(nibabel.Nifti1Image(part, image.affine), folder / f"c{i}{name}.nii.gz")
            lines.append(f"c{i},c{i}a.nii.gz;c{i}b.nii.gz")
    if one_file:
        tree = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background"}, "training": entries}
        (folder / "dataset.json").write_text(json.dumps(tree))
    else:
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("one_file", [True, False])
def test_several_channels_make_a_cohort_of_several_channels(
    one_file: bool, make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "generator", channels=2)
    (tmp_path / "cohort").mkdir()
    data = two_channels(cohort_folder, tmp_path / "cohort", one_file=one_file)
    output = tmp_path / "out"
    generate(checkpoint, data, output, count=3)
    cohort = read_cohort(output)
    assert cohort.channels == 2
    assert load_image(cohort.cases[0]).data.shape[0] == 2
    sidecar = output / "images" / f"{cohort.cases[0].case_id}.json"
    assert reproduce(sidecar, tmp_path / "again" / "x.nii.gz")
    assert nibabel.load(tmp_path / "again" / "x.nii.gz").shape[3] == 2


@pytest.mark.parametrize("case_id", ["../../evil", "site1/p", ".hidden", "a\\b"])
def test_a_case_id_that_leads_elsewhere_is_refused(
    case_id: str, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    image = cohort_folder / "images" / "case01.nii.gz"
    (tmp_path / "m.csv").write_text(f"case_id,image\n{case_id},{image}\n")
    with pytest.raises(InputFault, match="BAD_CASE_ID"):
        generate(seen_checkpoint, tmp_path / "m.csv", tmp_path / "out", count=1)
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]


def test_nothing_is_written_among_the_sources_or_over_something_else(
    seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    before = (cohort_folder / "manifest.csv").read_bytes()
    with pytest.raises(InputFault, match="OUTPUT_IN_USE"):
        generate(seen_checkpoint, cohort_folder, cohort_folder, count=1)
    assert (cohort_folder / "manifest.csv").read_bytes() == before
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InputFault, match="OUTPUT_IN_USE"):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=1)
    with pytest.raises(InputFault, match="NOT_A_FOLDER"):
        generate(seen_checkpoint, cohort_folder, tmp_path / "thesis.docx", count=1)


def test_a_cohort_without_the_class_column_counts_as_without_class(
    seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder / "images", tmp_path / "out", count=2, sources="all")
    assert {row["size"] for row in rows(tmp_path / "out")} == {""}


def test_a_changed_source_is_noticed(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort_folder, tmp_path / "cohort")
    generate(seen_checkpoint, tmp_path / "cohort", tmp_path / "out", count=6)
    shutil.copy(cohort_folder / "images" / "case09.nii.gz", tmp_path / "cohort" / "images" / "case03.nii.gz")
    with pytest.raises(InputFault, match="OTHER_SOURCE"):
        reproduce(tmp_path / "out" / "images" / "case03_sibling0000.json", tmp_path / "again.nii.gz")
    with pytest.raises(InputFault, match="OTHER_OUTPUT"):
        generate(seen_checkpoint, tmp_path / "cohort", tmp_path / "out", count=12, sources="all")


def test_strength_zero_copies_the_voxels(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=1, strength=0)
    row = rows(tmp_path)[0]
    source = nibabel.load(cohort_folder / "images" / f"{row['source_case']}.nii.gz")
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / row["image"]).dataobj), np.asarray(source.dataobj))


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", r"\(without 'parameters'\)"), ("[]", "JSON of another form"), ("no json", r"not a sidecar \(no JSON\),")],
)
def test_what_is_no_sidecar_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputFault, match=f"SIDECAR: .*{said}"):
        reproduce(tmp_path / "x.json", tmp_path / "x.nii.gz")
