"""How sure a figure is: the bootstrap over patients.

Siblings of one source, and scans of one patient, are not independent; patients are what is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medgan.seeding import numpy_generator

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Figure = dict[str, float]
Statistics = Callable[[Rows, Rows], Mapping[str, float]]
"""Of rows of one group and of another."""
CONFIDENCE = (2.5, 97.5)
NORMAL = 1.96
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


def drawn_figures(
    statistics: Statistics,
    patients: Sequence[str],
    other_patients: Sequence[str],
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Return figures of two groups with percentile 95 % intervals, the patients of both drawn again.

    All figures of a resample are of the same draw, so that the interval of a difference is a paired one.

    Args:
        statistics: of the rows of the two groups, by name.
        patients, other_patients: of each row of the two groups.
        seed: of the resamples; those of which a figure is not a number do not count for it.
        resamples: how many.

    Raises:
        ValueError: a figure of all rows is not a number.
    """
    rng = numpy_generator(seed, "bootstrap")
    estimate = statistics(np.arange(len(patients)), np.arange(len(other_patients)))
    drawn = [statistics(draw_patients(patients, rng), draw_patients(other_patients, rng)) for _ in range(resamples)]
    figures = {}
    for name, value in estimate.items():
        if not np.isfinite(value):
            raise ValueError(f"{name} has no value")
        low, high = np.nanpercentile([one[name] for one in drawn], CONFIDENCE)
        figures[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return figures


def halved_figures(
    statistics: Statistics,
    patients: Sequence[str],
    other_patients: Sequence[str],
    seed: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Return figures of nearest neighbours in two groups, with 95 % intervals from halves of the patients of both.

    With replacement a volume would be its own neighbour, so halves are drawn without (the jackknife with half the
    patients left out, Shao and Wu, Annals of Statistics 17, 1989). Their standard deviation, scaled, is the standard
    error; the interval is the normal one.

    Args:
        statistics: of the rows of the two groups, by name; must do with as few as 2 rows of each.
        patients, other_patients: of each row of the two groups; at least 3 different ones in each.
        seed: of the halves.
        bounds: of the figures; no interval reaches beyond.
        resamples: how many halves.

    Raises:
        ValueError: too few patients.
    """
    fewest = min(len(set(patients)), len(set(other_patients)))
    if fewest < 3:
        raise ValueError(f"each group must be of at least 3 patients, got {fewest}")
    rng = numpy_generator(seed, "halves")
    estimate = statistics(np.arange(len(patients)), np.arange(len(other_patients)))
    drawn = [statistics(_half(patients, rng), _half(other_patients, rng)) for _ in range(resamples)]
    kept = max(2, fewest // 2)
    scale = np.sqrt(kept / (fewest - kept))
    figures = {}
    for name, value in estimate.items():
        reach = NORMAL * scale * float(np.std([one[name] for one in drawn]))
        low, high = np.clip((value - reach, value + reach), *bounds)
        figures[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return figures


def _half(patients: Sequence[str], rng: np.random.Generator) -> Rows:
    names, of_row = np.unique(np.asarray(patients), return_inverse=True)
    kept = rng.permutation(len(names))[: max(2, len(names) // 2)]
    return np.flatnonzero(np.isin(of_row, kept)).astype(np.int64)


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
