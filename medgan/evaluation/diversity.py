"""Do siblings reach where other patients are, and do those of one source differ from one another?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.evaluation.intervals import Array, Figure, Rows, halved_figures
from medgan.measures.distances import pairwise_spread, prdc

NEIGHBOURS = 5
SMALLEST_SHARE = 1e-3  # below which a real-real share is no divisor
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003


def neighbourhoods(
    siblings: Array,
    training: Array,
    held_out: Array,
    k: int,
    *,
    training_patients: Sequence[str],
    held_out_patients: Sequence[str],
    seed: int,
) -> dict[str, dict[str, Figure]]:
    """Precision, recall, density and coverage against held-out volumes: of siblings, and of as many training volumes.

    Args:
        siblings: ``(N, n, F)``; the figures of the n sets of one sibling a source are averaged.
        training: ``(N, F)``.
        held_out: ``(M, F)``.
        k: neighbour that sets the size of a neighbourhood; below N and M.
        training_patients, held_out_patients: of each row.
        seed: of the resamples.

    Returns:
        ``siblings`` and ``real``, by figure, and ``ratio``: siblings over real.
    """

    def shares(rows: Rows, others: Rows) -> dict[str, float]:
        # In half the volumes half as many neighbours, so that neighbourhoods are of one size.
        share = min(len(rows) / len(training), len(others) / len(held_out))
        nearest = max(1, min(round(k * share), len(rows) - 1, len(others) - 1))
        sets = [prdc(held_out[others], siblings[rows, i], k=nearest) for i in range(siblings.shape[1])]
        real = prdc(held_out[others], training[rows], k=nearest)
        found: dict[str, float] = {}
        for name in real:
            made = float(np.mean([one[name] for one in sets]))
            found |= {f"siblings.{name}": made, f"real.{name}": real[name]}
            found[f"ratio.{name}"] = made / max(real[name], SMALLEST_SHARE)
        return found

    figures = halved_figures(shares, training_patients, held_out_patients, seed, bounds=(0.0, np.inf))
    for name, figure in figures.items():
        if not name.startswith("ratio") and not name.endswith("density"):
            figure["high"] = min(figure["high"], 1.0)
    names = ("precision", "recall", "density", "coverage")
    return {column: {name: figures[f"{column}.{name}"] for name in names} for column in ("siblings", "real", "ratio")}


def neighbours_for(*sizes: int) -> int:
    """Return the neighbour to use with sets of these sizes: the usual one, or fewer in small sets; 0 if none."""
    return max(0, min(NEIGHBOURS, *(size - 1 for size in sizes)))


def shape_spread(displacements: NDArray[np.floating], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> float:
    """Return the mean, over pairs of siblings, of the RMS distance between the points where they sample their source.

    Args:
        displacements: ``(n, 3, D, H, W)`` φ(p) − p in voxels.
        spacing: of a voxel, for a result in mm.
    """
    scaled = displacements * np.reshape(spacing, (1, 3, 1, 1, 1))
    # pairwise_spread takes the mean over components; a distance is their sum.
    return pairwise_spread(scaled) * float(np.sqrt(3))


@dataclass(frozen=True)
class Similarity:
    """The structural similarity a grid is large enough for: MONAI's MS-SSIM, or its SSIM at one scale.

    Attributes:
        scales: number of scales; 1 is plain SSIM.
        kernel: width of the Gaussian window, voxels.
    """

    scales: int
    kernel: int

    @property
    def name(self) -> str:
        """What to call it in a report."""
        kind = "SSIM" if self.scales == 1 else f"MS-SSIM, {self.scales} scales"
        return f"{kind}, window of {self.kernel} voxels"

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Array:
        """Return ``(B,)`` similarities of ``(B, C, D, H, W)`` volumes in 0..1; 1 for equal ones."""
        from monai.metrics.regression import compute_ms_ssim, compute_ssim_and_cs

        a, b = a.float().clamp(0, 1), b.float().clamp(0, 1)
        if self.scales == 1:
            full, _ = compute_ssim_and_cs(a, b, 3, kernel_size=(self.kernel,) * 3, kernel_sigma=(1.5,) * 3)
            values: Tensor = full.flatten(1).mean(dim=1)
        else:
            weights = np.array(MS_SSIM_WEIGHTS[: self.scales])
            values = compute_ms_ssim(a, b, 3, kernel_size=self.kernel, weights=tuple(weights / weights.sum()))
        return np.asarray(values.reshape(-1).double().numpy(), dtype=np.float64)


def similarity_for(shape: tuple[int, int, int]) -> Similarity:
    """Return the finest similarity a grid allows: MONAI wants a side above (kernel − 1) · (scales − 1)²."""
    for scales, kernel in ((5, 11), (3, 11), (3, 7)):
        if min(shape) // (scales - 1) ** 2 > kernel - 1:
            return Similarity(scales, kernel)
    return Similarity(1, 7)


def sibling_similarity(siblings: Tensor, similarity: Similarity, pairs: int) -> float:
    """Return the mean similarity of the first ``pairs`` pairs of ``(n, C, D, H, W)`` siblings; n at least 2."""
    chosen = list(itertools.combinations(range(len(siblings)), 2))[:pairs]
    return float(np.mean([similarity(siblings[i : i + 1], siblings[j : j + 1])[0] for i, j in chosen]))
