"""A synthetic volume carries its origin: what stands in the JSON file beside it."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgan.checkpoint import Checkpoint, library_versions
from medgan.data.cohort import Case
from medgan.data.split import content_hash
from medgan.data.volume import Volume
from medgan.models.deformation import voxel_grid
from medgan.models.fields import deform
from medgan.sampler import Recipe

STATEMENT = (
    "This volume is synthetic: a transformed scan of one patient, made by medgan. Treat it as that patient's data; it "
    "is not anonymous. It is meant for training models, not for diagnosis."
)
QUALITY_VOXELS = 200_000  # correlation and displacement are measured on a strided subset of about this many


def build_sidecar(
    recipe: Recipe,
    case: Case,
    source_image: NDArray[Any],
    image: NDArray[Any],
    source_label: Volume | None,
    label: NDArray[Any] | None,
    *,
    cohort: Path,
    checkpoint: Checkpoint,
    files: Mapping[str, Sequence[Path]],
    folder: Path,
) -> dict[str, Any]:
    """Return the sidecar. Paths are relative: to the sidecar for source and checkpoint, to ``folder`` for the files."""
    beside = folder / "images"
    written = {
        kind: {"paths": [p.relative_to(folder).as_posix() for p in paths], "sha256": [voxels_digest(p) for p in paths]}
        for kind, paths in files.items()
        if paths
    }
    return {
        "statement": STATEMENT,
        "synthetic": True,
        "source": {
            "case_id": case.case_id,
            "cohort": _relative(cohort, beside),
            "images": [_relative(path, beside) for path in case.images],
            "channels": case.channels,
            "content_sha256": content_hash(case),
        },
        "class": case.class_name,
        "checkpoint": {"path": _relative(checkpoint.folder, beside), "sha256": checkpoint.digest},
        "parameters": recipe.parameters.to_json(),
        "quality": quality(recipe, source_image, image)
        | {"label_volume_ratio": label_volume_ratio(source_label, label)},
        "versions": library_versions(),
        "files": written,
    }


def quality(recipe: Recipe, source: NDArray[Any], image: NDArray[Any]) -> dict[str, float]:
    """Return what can be said of one volume by itself; ``correlation_with_source`` (Pearson) is 1 for a copy."""
    step = max(1, image[0].size // QUALITY_VOXELS)
    a, b = (v.reshape(-1)[::step].astype(np.float64) for v in (source, image))
    constant = a.std() == 0 or b.std() == 0
    return {
        "jacobian_min": recipe.jacobian_min,
        "fold_share": recipe.fold_share,
        "displacement_mm": displacement_mm(recipe),
        "correlation_with_source": 1.0 if constant else float(np.corrcoef(a, b)[0, 1]),
    }


def label_volume_ratio(source: Volume | None, label: NDArray[Any] | None) -> dict[str, float]:
    """Return, for each label value of the source, the sibling's number of voxels over the source's."""
    if source is None or label is None:
        return {}
    values, counts = np.unique(source.data, return_counts=True)
    return {
        str(int(value)): float((label == value).sum() / count)
        for value, count in zip(values, counts, strict=True)
        if value != 0
    }


def displacement_mm(recipe: Recipe) -> float:
    """Return the root mean square of φ(p) − p over the network's grid, in mm (voxels where the spacing is unknown)."""
    grid = voxel_grid(recipe.displacement.shape[2:], recipe.displacement) * 2 + 0.5
    moved = deform(recipe.fields, recipe.displacement, grid, recipe.shape) - grid
    spacing = torch.tensor(recipe.spacing, dtype=moved.dtype).reshape(1, 3, 1, 1, 1)
    return float((moved * spacing).square().sum(dim=1).mean().sqrt())


def voxels_digest(path: Path) -> str:
    """Return the SHA-256 of a NIfTI file's uncompressed bytes (compression may differ, voxels may not)."""
    content = path.read_bytes()
    return hashlib.sha256(gzip.decompress(content) if path.suffix == ".gz" else content).hexdigest()


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
