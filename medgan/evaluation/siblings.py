"""Siblings on the network's grid, made source by source; only what is measured of them is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.evaluation.diversity import Similarity, shape_spread, sibling_similarity
from medgan.evaluation.intervals import Array
from medgan.evaluation.preservation import component_counts, jacobian, volume_ratios
from medgan.evaluation.privacy import comparable
from medgan.measures.distances import correlations, pairwise_spread
from medgan.measures.features import volume_features
from medgan.progress import track
from medgan.sampler import Sampler, render_pair
from medgan.seeding import derive_seed

SIMILARITY_PAIRS = 60  # about so many pairs in all: on a large grid one takes seconds
COMPARED_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A sibling on the grid.

    Attributes:
        image: ``(C, *shape)`` as it leaves the generator, not clipped to 0..1.
        label: ``(1, *shape)`` uint8 under the same deformation, or ``None``.
        displacement: ``(3, *shape)`` φ(p) − p, voxels.
        appearance: ``(C, *shape)`` change of the source's values before the deformation.
    """

    image: Tensor
    label: Tensor | None
    displacement: NDArray[np.float32]
    appearance: Tensor


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of n siblings of each of N sources; N is always the first axis, n the second.

    Attributes:
        features: ``(N, n, F)``.
        correlations: ``(N, n, N + M)`` with every source, and then with M other real volumes.
        jacobian_min, fold_share: of the whole map on the grid.
        displacement: RMS of φ(p) − p, in the unit of ``spacing``.
        shape_spread, appearance_spread, volume_spread, similarity: ``(N,)``, among siblings of one source; similarity
            NaN for sources that were passed over.
        ratios: label value → volume ratios, NaN where a source lacks the label or any label map.
        components_before, components_after: label value → ``(N,)`` and ``(N, n)`` components, NaN likewise.
    """

    features: Array
    correlations: Array
    jacobian_min: Array
    fold_share: Array
    displacement: Array
    shape_spread: Array
    appearance_spread: Array
    volume_spread: Array
    similarity: Array
    ratios: dict[int, Array]
    components_before: dict[int, Array]
    components_after: dict[int, Array]

    @property
    def correlation(self) -> Array:
        """Correlation of each sibling with the nearest source, ``(N, n)``."""
        return np.asarray(self._with_sources.max(axis=2), dtype=np.float64)

    @property
    def nearest(self) -> NDArray[np.int64]:
        """Which source is the nearest of each sibling, ``(N, n)``."""
        return np.asarray(self._with_sources.argmax(axis=2), dtype=np.int64)

    @property
    def _with_sources(self) -> Array:
        return self.correlations[:, :, : len(self.correlations)]


def case_seed(seed: int, case_id: str) -> int:
    """Return the seed of a source's noise: that of ``medgan generate`` with the same ``--seed``."""
    return derive_seed(seed, "generate", case_id)


def make_sibling(sampler: Sampler, source: Prepared, index: int, seed: int, strength: float = 1.0) -> OnGrid:
    """Make sibling ``index`` of a prepared case, on the grid."""
    name = source.case.class_name if source.case.class_name in sampler.class_names else None
    parameters = sampler.draw(case_seed(seed, source.case.case_id), index, strength, name)
    recipe = sampler.recipe(source.image, parameters, input_range=(0.0, 1.0))
    image, label = render_pair(recipe, source.image, source.label)
    return OnGrid(
        image,
        label,
        np.asarray(recipe.displacement_at_source(source.image).numpy(), dtype=np.float32),
        recipe.change_appearance(source.image) - source.image,
    )


def measure_siblings(
    sampler: Sampler,
    sources: Sequence[Prepared],
    *,
    count: int,
    seed: int,
    strength: float = 1.0,
    labels: Sequence[int],
    similarity: Similarity,
    others: Sequence[Prepared] = (),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Measured:
    """Make ``count`` siblings of each source and measure them.

    Args:
        sampler: runs the generator.
        sources: on the grid.
        count: siblings of each, at least 2.
        seed: of all noise.
        strength: of every sibling.
        labels: label values to follow.
        similarity: see :func:`~medgan.evaluation.diversity.similarity_for`.
        others: further real volumes to correlate siblings with.
        spacing: of a grid voxel; ones for figures in voxels.
    """
    references = np.concatenate([comparable(real.image[None]) for real in (*sources, *others)])
    pairs = max(1, SIMILARITY_PAIRS // len(sources))
    compared_every = -(-len(sources) // SIMILARITY_PAIRS)
    features, correlated, waiting = [], [], []
    least, folded, moved, shape, appearance, volume, alike = [], [], [], [], [], [], []
    missing = float("nan")
    ratios = {value: np.full((len(sources), count), missing) for value in labels}
    after = {value: np.full((len(sources), count), missing) for value in labels}
    before = {value: np.full(len(sources), missing) for value in labels}
    for row, source in enumerate(track(sources, "siblings")):
        made = [make_sibling(sampler, source, index, seed, strength) for index in range(count)]
        images = torch.stack([sibling.image for sibling in made])
        fields = np.stack([sibling.displacement for sibling in made])
        features.append(volume_features(images))
        determinants = [jacobian(field) for field in fields]
        least.append([determinant.min() for determinant in determinants])
        folded.append([(determinant <= 0).mean() for determinant in determinants])
        moved.append([rms_length(field, spacing) for field in fields])
        shape.append(shape_spread(fields, spacing))
        appearance.append(pairwise_spread(torch.stack([sibling.appearance for sibling in made]).numpy()))
        volume.append(pairwise_spread(images.numpy()))
        alike.append(sibling_similarity(images, similarity, pairs) if row % compared_every == 0 else missing)
        if source.label is not None:
            original = source.label[0].numpy()
            for value, number in component_counts(original, labels).items():
                before[value][row] = number
            for column, sibling in enumerate(made):
                warped = np.asarray(sibling.label)[0]
                for value in labels:
                    ratios[value][row, column] = volume_ratios(original, warped, [value])[value]
                    after[value][row, column] = component_counts(warped, [value])[value]
        waiting.append(comparable(images))
        if len(waiting) * count >= COMPARED_AT_ONCE or row == len(sources) - 1:
            correlated.append(correlations(np.concatenate(waiting), references).reshape(len(waiting), count, -1))
            waiting.clear()
    return Measured(
        features=np.stack(features),
        correlations=np.concatenate(correlated),
        jacobian_min=np.array(least, dtype=np.float64),
        fold_share=np.array(folded, dtype=np.float64),
        displacement=np.array(moved),
        shape_spread=np.array(shape),
        appearance_spread=np.array(appearance),
        volume_spread=np.array(volume),
        similarity=np.array(alike),
        ratios=ratios,
        components_before=before,
        components_after=after,
    )


def rms_length(field: NDArray[np.floating], spacing: tuple[float, float, float]) -> float:
    """Return the root mean square length of the vectors of ``(3, D, H, W)``, scaled by ``spacing``."""
    return float(np.sqrt(np.square(field * np.reshape(spacing, (3, 1, 1, 1))).sum(axis=0).mean()))
