"""The figures of how much siblings differ, from their source and from one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medgan.data.loaders import Prepared, stack_images
from medgan.evaluation.diversity import Similarity
from medgan.evaluation.intervals import Array, distribution, mean_figure
from medgan.evaluation.real import Real, interpolate_once, patients_of
from medgan.evaluation.siblings import SIMILARITY_PAIRS, Measured
from medgan.measures.distances import pairwise_spread
from medgan.seeding import numpy_generator


def spread_figures(measured: Measured, real: Real, unit: str, similarity: Similarity, seed: int) -> dict[str, Any]:
    """Return spreads of shape, appearance and volumes beside those of the same volume moved and of real patients.

    Args:
        measured: of the siblings.
        real: the cases.
        unit: of displacements.
        similarity: that siblings were compared by.
        seed: of resamples and pairs.
    """
    patients = patients_of(real.sources)
    images = stack_images(real.sources)
    between = _between_patients(real.sources, similarity, seed)
    compared = np.flatnonzero(np.isfinite(measured.similarity))
    compared_patients = [patients[row] for row in compared]
    moved = _moved_spread(real.sources, seed)
    return {
        "unit": unit,
        "displacement": distribution(measured.displacement),
        "shape_spread": mean_figure(measured.shape_spread, patients, seed),
        "appearance_spread": mean_figure(measured.appearance_spread, patients, seed),
        "volume_spread": {
            "siblings": mean_figure(measured.volume_spread, patients, seed),
            "moved": mean_figure(moved, patients, seed),
            "beyond_moved": mean_figure(measured.volume_spread - moved, patients, seed),
            "real": pairwise_spread(images.numpy()) if len(images) > 1 else None,
        },
        "similarity": {
            "name": similarity.name,
            "siblings": mean_figure(measured.similarity[compared], compared_patients, seed),
            "real": between,
        },
        "neighbourhoods": None,
    }


def _moved_spread(sources: Sequence[Prepared], seed: int) -> Array:
    """Return the difference of each source moved twice by less than a voxel: what no one sees."""
    copies = [interpolate_once(sources, seed, name) for name in ("first", "second")]
    pairs = zip(*copies, strict=True)
    return np.array([pairwise_spread(np.stack([a.image.numpy(), b.image.numpy()])) for a, b in pairs])


def _between_patients(sources: Sequence[Prepared], similarity: Similarity, seed: int) -> float | None:
    """Return the mean similarity of volumes of different patients, over pairs drawn by the seed."""
    patients = patients_of(sources)
    pairs = [(i, j) for i in range(len(sources)) for j in range(i) if patients[i] != patients[j]]
    if not pairs:
        return None
    chosen = numpy_generator(seed, "pairs").permutation(len(pairs))[:SIMILARITY_PAIRS]
    found = [similarity(*(sources[row].image[None] for row in pairs[pair])) for pair in chosen]
    return float(np.mean(found))
