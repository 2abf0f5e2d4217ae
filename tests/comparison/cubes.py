"""A cohort of cubes in noise, and a study of it that takes seconds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

PATIENTS = 14


def write_cohort(folder: Path, seed: int = 0) -> Path:
    """Fourteen patients with a cube each; every second one bright; the last has no label and no class."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(PATIENTS):
        image = rng.random((16, 16, 16), dtype=np.float32) * 100
        label = np.zeros((16, 16, 16), dtype=np.uint8)
        x, y, z = rng.integers(2, 8, 3)
        cube = (slice(x, x + 6), slice(y, y + 6), slice(z, z + 6))
        image[cube] += 150 if i % 2 else 60
        label[cube] = 3
        for name, data in ((f"i{i:02}", image), (f"l{i:02}", label)):
            nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / f"{name}.nii.gz")
        annotated = i < PATIENTS - 1
        rows.append(
            {
                "case_id": f"c{i:02}",
                "patient_id": f"p{i:02}",
                "image": f"i{i:02}.nii.gz",
                "label": f"l{i:02}.nii.gz" if annotated else "",
                "kind": ("bright" if i % 2 else "dark") if annotated else "",
                "split": "test" if i < 4 else "validation" if i < 6 else "training",
            }
        )
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def study_tree(manifest: Path, data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The configuration of a study of two arms, with changes of its ``data`` and ``compare``."""
    compare = {
        "arms": ["none", "classical"],
        "steps": 4,
        "batch": 4,
        "width": 4,
        "curve_points": 2,
        "bootstrap": 200,
        "learning_rate": 0.005,
    }
    return {
        "name": "cubes",
        "data": {"root": str(manifest), "labels": {3: "cube"}, **(data or {})},
        "preprocess": {"shape": [16, 16, 16], "spacing": [1, 1, 1]},
        "model": {"width": 4, "latent": 4, "basis": 0},
        "compare": {**compare, **changes},
    }
