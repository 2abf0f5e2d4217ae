"""Is the anatomy still whole: no folds, structures of about their size, none torn or lost?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medgan.evaluation.intervals import Array, distribution
from medgan.models.deformation import corner_jacobians

LabelMap = NDArray[np.integer[Any]]
TOUCHING = np.ones((3, 3, 3), dtype=np.uint8)  # 26 neighbours: a corner holds a structure together


def jacobian(displacement: NDArray[np.floating]) -> Array:
    """Return the Jacobian determinant of the whole map p + u(p) around every voxel, where it is least.

    Between voxels a deformation is linear along each axis, and so it folds in a cell if it does so at a corner of it. A
    voxel is a corner of up to eight cells; of its determinants in them this is the least. Central differences look past
    the voxel itself, and miss a field that goes to and fro from one voxel to the next.

    Args:
        displacement: ``(3, D, H, W)`` in voxels.

    Returns:
        ``(D, H, W)``; 1 keeps volume, 0 and below is a fold. The map goes from sibling to source: where the
        determinant is below 1 the sibling shows the source enlarged.
    """
    field = torch.from_numpy(np.ascontiguousarray(displacement, dtype=np.float64))
    of_cells = np.asarray(corner_jacobians(field[None])[0].numpy(), dtype=np.float64)  # (8, D-1, H-1, W-1)
    least = np.full(displacement.shape[1:], np.inf)
    for corner, determinants in zip(itertools.product((0, 1), repeat=3), of_cells, strict=True):
        voxels = least[tuple(slice(c, c + n) for c, n in zip(corner, determinants.shape, strict=True))]
        np.minimum(voxels, determinants, out=voxels)
    return least


def volume_ratios(source: LabelMap, sibling: LabelMap, values: Iterable[int]) -> dict[int, float]:
    """Return a label's voxels in the sibling over those in the source; NaN where the source lacks it."""
    counts = {value: int((source == value).sum()) for value in values}
    return {
        value: float((sibling == value).sum() / count) if count else float("nan") for value, count in counts.items()
    }


def component_counts(label: LabelMap, values: Iterable[int]) -> dict[int, int]:
    """Return the number of connected components (26 neighbours) of each label."""
    return {value: int(ndimage.label(label == value, structure=TOUCHING)[1]) for value in values}


def deformation_figures(jacobian_min: Array, fold_share: Array) -> dict[str, Any]:
    """Summarise ``(N, n)`` least Jacobian determinants and shares of folded voxels of siblings."""
    return {
        "jacobian_min": distribution(jacobian_min),
        "fold_share": {"mean": float(fold_share.mean()), "max": float(fold_share.max())},
        "siblings_with_a_fold": float((fold_share > 0).mean()),
    }


def label_figures(ratios: Array, before: Array, after: Array) -> dict[str, Any] | None:
    """Summarise what became of one label.

    Args:
        ratios: ``(N, n)`` volume ratios, NaN where a source lacks the label.
        before: ``(N,)`` components in the sources.
        after: ``(N, n)`` components in the siblings.

    Returns:
        the distribution of the ratio; the shares of siblings that lost the label, and whose number of components
        changed; the mean numbers of components. ``None`` if no source has the label.
    """
    present = np.isfinite(ratios).all(axis=1)
    if not present.any():
        return None
    ratios, before, after = ratios[present], before[present], after[present]
    return {
        "sources": int(present.sum()),
        "volume_ratio": distribution(ratios),
        "lost_share": float((ratios == 0).mean()),
        "components_changed_share": float((after != before[:, None]).mean()),
        "components_before": float(before.mean()),
        "components_after": float(after.mean()),
    }


def label_values(maps: Sequence[LabelMap], declared: Iterable[int] = ()) -> list[int]:
    """Return the declared values, or where none are declared those found, without the background 0."""
    values = set(declared) or {int(value) for label in maps for value in np.unique(label)}
    return sorted(values - {0})
