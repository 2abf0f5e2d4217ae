"""A sibling of one frame, or of one series of several, is made again from that very one."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from series import make_slices, write_slices

SHAPE = (18, 19, 20)


def manifest(folder: Path, column: str, rows: list[tuple[str, str, object]]) -> Path:
    lines = [f"case_id,image,{column}", *(f"{case},{image},{which}" for case, image, which in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 900, (*SHAPE, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([2.0, 2, 2.5, 1])), folder / "scan.nii.gz")
    return manifest(folder, "frame", [("second", "scan.nii.gz", 1)])


@pytest.fixture
def two_series(tmp_path: Path) -> tuple[Path, list[str]]:
    folder = tmp_path / "series"
    first, second = make_slices(0, count=18), make_slices(1, count=18)
    write_slices(folder / "scan", [*first, *second])
    uids = [slices[0].SeriesInstanceUID for slices in (first, second)]
    return manifest(folder, "series", [("later", "scan", uids[1])]), uids


def generate(medgan, checkpoint: Path, cohort: Path, out: Path) -> Path:
    ended = medgan("generate", checkpoint, "--data", cohort, "--output", out, "--count", 1, "--sources", "all")
    assert ended.code == 0, ended.err
    return next((out / "images").glob("*.json"))


def reproduced(medgan, sidecar: Path, out: Path) -> str:
    ended = medgan("reproduce", sidecar, "--output", out)
    return ended.out if ended.code == 0 else ended.err


def test_a_frame_is_found_again(frames, checkpoint_folder, tmp_path, medgan):
    sidecar = generate(medgan, checkpoint_folder, frames, tmp_path / "made")
    assert json.loads(sidecar.read_text())["source"]["frame"] == 1
    assert "identical to the recorded volume" in reproduced(medgan, sidecar, tmp_path / "again.nii.gz")


def test_a_series_is_found_again_though_its_uid_is_not_written(two_series, checkpoint_folder, tmp_path, medgan):
    cohort, uids = two_series
    sidecar = generate(medgan, checkpoint_folder, cohort, tmp_path / "made")
    assert not any(uid in sidecar.read_text() for uid in uids)
    assert "identical to the recorded volume" in reproduced(medgan, sidecar, tmp_path / "again.nii.gz")
    # Which of the two it is does matter.
    record = json.loads(sidecar.read_text())
    for other, message in (
        (None, "SEVERAL_SERIES"),
        ("0" * 64, "UNKNOWN_SERIES: none of its 2 series is the recorded one"),
    ):
        record["source"]["series_sha256"] = other
        sidecar.write_text(json.dumps(record))
        assert message in reproduced(medgan, sidecar, tmp_path / "other.nii.gz")
    assert not (tmp_path / "other.nii.gz").exists()


def test_siblings_of_another_frame_are_not_taken_for_done(frames, checkpoint_folder, tmp_path, medgan):
    made = ("generate", checkpoint_folder, "--data", frames, "--output", tmp_path / "made", "--sources", "all")
    assert medgan(*made, "--count", 1).code == 0
    manifest(frames, "frame", [("second", "scan.nii.gz", 2)])
    medgan(*made, "--count", 1).require_fault("OTHER_OUTPUT")
