"""How sure a figure is: the bootstrap over patients.

Siblings of one source, and scans of one patient, are not independent; patients are what is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medgan.seeding import numpy_generator

Array = NDArray[np.float64]
Figure = dict[str, float]
CONFIDENCE = (2.5, 97.5)
RESAMPLES = 300


def draw_patients(patients: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw as many patients as there are, with replacement; return the indices of all their rows.

    Args:
        patients: of each row.
        rng: what to draw from.
    """
    names, of_row = np.unique(np.asarray(patients), return_inverse=True)
    rows = [np.flatnonzero(of_row == patient) for patient in rng.integers(len(names), size=len(names))]
    return np.concatenate(rows).astype(np.int64)


def mean_figure(
    values: NDArray[np.float64 | np.bool_], patients: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> Figure:
    """Return mean and percentile 95 % interval of ``(N,)`` or ``(N, n)`` values, rows drawn by patient."""
    by_row = np.asarray(values, dtype=np.float64).reshape(len(values), -1).mean(axis=1)
    rng = numpy_generator(seed, "bootstrap")
    means = [float(by_row[draw_patients(patients, rng)].mean()) for _ in range(resamples)]
    low, high = np.percentile(means, CONFIDENCE)
    return {"value": float(by_row.mean()), "low": float(low), "high": float(high)}


def centred_figure(estimate: float, replicates: Array, least: float = -np.inf) -> Figure:
    """Put the spread of bootstrap replicates around the estimate.

    A resample repeats samples, which by itself moves a distance between two sets: the replicates lie beside the
    estimate, not around it. Their spread about their own mean is what is kept. No bound falls below ``least``.
    """
    low, high = np.percentile(replicates - replicates.mean(), CONFIDENCE)
    return {"value": estimate, "low": max(least, estimate + float(low)), "high": estimate + float(high)}


def distribution(values: Array) -> Figure:
    """Describe values by count, extremes and quantiles; those that are not numbers (no such label) are left out.

    Raises:
        ValueError: none is left.
    """
    found = np.asarray(values, dtype=np.float64)
    found = found[np.isfinite(found)]
    if not found.size:
        raise ValueError("there must be at least one finite value")
    names, ranks = ("min", "p5", "median", "p95", "max"), (0, 5, 50, 95, 100)
    quantiles = zip(names, np.percentile(found, ranks), strict=True)
    return {"count": float(found.size)} | {name: float(value) for name, value in quantiles}
