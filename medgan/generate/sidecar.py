"""A synthetic volume carries its origin: what stands in the JSON file beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgan.checkpoint import Checkpoint, library_versions
from medgan.data.case import Case
from medgan.data.dicom_headers import series_digest
from medgan.data.volume import Volume
from medgan.generate.formats.base import Piece, content_size
from medgan.generate.making import LeftOut, Made
from medgan.generate.source import Source
from medgan.generate.store import Content
from medgan.models.deformation import voxel_grid
from medgan.models.fields import deform
from medgan.sampler import Recipe

STATEMENT = (
    "This volume is synthetic: a transformed scan of one patient, made by medgan. Treat it as that patient's data; it "
    "is not anonymous. It is meant for training models, not for diagnosis."
)


@dataclass(frozen=True)
class Place:
    """Where things lie, for paths that still lead there when output, cohort and checkpoint are moved together.

    Attributes:
        beside: the folder of the sidecars; ``None`` where it is not on this machine: then paths are absolute.
        cohort: of the sources.
        modality: of the sources, where it is known.
        checkpoint: of the generator.
        checkpoint_uri: its name in a model registry, if it came from one.
        format_name: how the volumes are written.
    """

    beside: Path | None
    cohort: Path
    modality: str | None
    checkpoint: Checkpoint
    checkpoint_uri: str | None
    format_name: str

    def relative(self, path: Path) -> str:
        """Return a path relative to the sidecars."""
        if self.beside is None:
            return path.resolve().as_posix()
        return Path(os.path.relpath(path.resolve(), self.beside.resolve())).as_posix()


QUALITY_VOXELS = 200_000  # correlation is measured on every n-th voxel along each axis, at most so many a channel


def build_sidecar(made: Made, quality_of: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return the sidecar of a sibling, but for its ``files``.

    Args:
        made: the sibling.
        quality_of: what :func:`measure` returned for it.
        place: of output, cohort and checkpoint.
    """
    return {
        "statement": STATEMENT,
        "synthetic": True,
        **_origin(made.source, place),
        "parameters": made.recipe.parameters.to_json(),
        "attempt": made.attempt,
        "rejected": [rejection.to_json() for rejection in made.rejected],
        "quality": dict(quality_of),
        "versions": library_versions(),
    }


def files_entry(pieces: Sequence[Piece], contents: Sequence[Content]) -> dict[str, list[Any]]:
    """Return what a sidecar says of the files of an image or a label map, which are written as ``contents``."""
    return {
        "paths": [piece.path for piece in pieces],
        "sha256": [piece.digest for piece in pieces],
        "bytes": [content_size(content) for content in contents],
    }


def build_left_out(left_out: LeftOut, place: Place) -> dict[str, Any]:
    """Return the record of an order that nothing came of, but for its ``files``, of which there are none."""
    return {
        **_origin(left_out.source, place),
        "parameters": left_out.parameters.to_json(),
        "rejected": [rejection.to_json() for rejection in left_out.rejected],
        "versions": library_versions(),
    }


def _origin(source: Source, place: Place) -> dict[str, Any]:
    case = source.case
    return {
        "format": place.format_name,
        "source": {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "cohort": place.relative(place.cohort),
            "images": [place.relative(path) for path in case.images],
            "label": None if case.label is None else place.relative(case.label),
            "label_names": {str(value): name for value, name in source.label_names.items()},
            "channels": case.channels,
            **part_of_source(case),
            "modality": place.modality,
            "content_sha256": source.content,
        },
        "class": case.class_name,
        "checkpoint": {
            "path": place.relative(place.checkpoint.folder),
            "uri": place.checkpoint_uri,
            "sha256": place.checkpoint.digest,
        },
    }


def part_of_source(case: Case) -> dict[str, Any]:
    """Return which frame or series of its files a case is; the series by a hash, as no header's UID is written."""
    return {"frame": case.frame, "series_sha256": None if case.series is None else series_digest(case.series)}


def measure(made: Made) -> dict[str, Any]:
    """Return the quality of a sibling: its score, that of its image and, for each label value, the ratio of volumes."""
    ratio = label_volume_ratio(made.source.label, made.label)
    of_image = quality(made.recipe, made.source.image.data, made.image)
    return {"score": made.quality, **of_image, "label_volume_ratio": ratio}


def quality(recipe: Recipe, source: NDArray[Any], image: NDArray[Any]) -> dict[str, float]:
    """Return what can be said of one volume by itself; ``correlation_with_source`` (Pearson) is 1 for a copy."""
    n = math.ceil((image[0].size / QUALITY_VOXELS) ** (1 / 3))
    a, b = (v[:, ::n, ::n, ::n].astype(np.float64).reshape(-1) for v in (source, image))
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
    # The gate lets no label above 255 pass, and counting is far quicker than sorting.
    before, after = (np.bincount(data.astype(np.uint8).ravel("K"), minlength=256) for data in (source.data, label))
    return {str(value): float(after[value] / before[value]) for value in np.flatnonzero(before) if value != 0}


def displacement_mm(recipe: Recipe) -> float:
    """Return the root mean square of φ(p) − p over the network's grid, in mm (voxels where the spacing is unknown)."""
    grid = voxel_grid(recipe.displacement.shape[2:], recipe.displacement) * 2 + 0.5
    moved = deform(recipe.fields, recipe.displacement, grid, recipe.shape) - grid
    spacing = torch.tensor(recipe.spacing, dtype=moved.dtype).reshape(1, 3, 1, 1, 1)
    return float((moved * spacing).square().sum(dim=1).mean().sqrt())
