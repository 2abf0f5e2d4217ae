"""The half of a report that classes give: a cohort of classes alone, through the whole evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medgan.data.cohort import read_cohort
from medgan.data.split import content_hash
from medgan.evaluation.evaluate import evaluate

PATIENTS = {"train": 8, "test": 4}
STEPS = 60


def write_cohort(folder: Path, *, shuffled: bool) -> Path:
    """Write patients with a small or a large ball, half of each, without label maps; or with the classes shuffled."""
    lines = ["case_id,patient_id,image,size,split"]
    rng = np.random.default_rng(0)
    for split, count in PATIENTS.items():
        for i in range(count):
            radius = 4 if i % 2 == 0 else 7
            grid = np.indices((18, 18, 18)) - np.reshape(8.5 + rng.uniform(-1, 1, 3), (3, 1, 1, 1))
            image = 200 + 600 * ((grid**2).sum(axis=0) <= radius**2) + rng.normal(0, 30, (18, 18, 18))
            # Shuffled, each class has as many small balls as large ones, in training and held out.
            name = ("small", "large")[(i // 2 if shuffled else i) % 2]
            nibabel.save(
                nibabel.Nifti1Image(image.astype(np.int16), np.diag([2, 2, 2.5, 1])), folder / f"{split}{i}.nii"
            )
            lines.append(f"{split}{i},{split}{i},{split}{i}.nii,{name},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def evaluated(folder: Path, make_identity: Callable[..., Path], *, shuffled: bool) -> tuple[dict[str, Any], str]:
    """Return report and page of the identity."""
    (folder / "cohort").mkdir()
    data = write_cohort(folder / "cohort", shuffled=shuffled)
    cohort = read_cohort(data, class_key="size", classes=("small", "large"))
    seen = [
        {"case_id": case.case_id, "patient_id": case.patient_id, "content_sha256": content_hash(case)}
        for case in cohort.cases
        if case.split == "training"
    ]
    generator = make_identity(folder / "generator", seen)
    report = evaluate(generator, data, folder / "out", siblings=2, task_steps=STEPS)
    return report, (folder / "out" / "report.html").read_text()


def test_networks_that_read_the_class_find_it_in_the_siblings_of_the_identity(
    make_identity: Callable[..., Path], tmp_path: Path
) -> None:
    report, page = evaluated(tmp_path, make_identity, shuffled=False)
    (figures,) = report["preservation"]["agreement"]
    assert figures["kind"] == "classification"
    assert (figures["sources"], figures["held_out_cases"], figures["siblings_judged"]) == (8, 4, 2)
    assert [part["name"] for part in figures["parts"]] == ["small", "large"]
    assert figures["real"]["value"] == figures["siblings"]["value"] == 1
    target = report["targets"][0]
    assert target["name"] == "class_agreement"
    assert target["met"] is True
    assert target["figure"]["value"] == 0
    for words in ("Class preservation", "Agreement with the class", "2 siblings of each of 8 cases", "\u2026 small"):
        assert words in page
    assert "class least believed by an independent network" in page.lower()


def test_classes_that_no_volume_shows_leave_their_target_unmeasured(
    make_identity: Callable[..., Path], tmp_path: Path
) -> None:
    report, page = evaluated(tmp_path, make_identity, shuffled=True)
    (figures,) = report["preservation"]["agreement"]
    assert not figures["able"]
    assert (report["targets"][0]["name"], report["targets"][0]["met"]) == ("class_agreement", None)
    assert any(
        note.startswith(f"After {STEPS} steps the independent classification networks") for note in report["notes"]
    )
    assert "What they say of siblings means nothing" in page
