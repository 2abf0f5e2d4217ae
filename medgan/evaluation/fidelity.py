"""Do siblings, taken together, look like volumes of patients the generator has not seen?

Every distance stands next to its floor, that of the real training volumes to the same held-out ones, at equal numbers
of samples: a distance between two finite sets is never 0, and it depends on their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgan.evaluation.intervals import RESAMPLES, Array, Figure, centred_figure, draw_patients
from medgan.measures.distances import frechet_distance, kernel_distance
from medgan.measures.features import FEATURES_PER_CHANNEL, GROUPS, QUANTILES
from medgan.seeding import numpy_generator

Rows = NDArray[np.integer[Any]]
Distance = Callable[[Array, Array], float]
# Features with the unit of a figure: quantiles of the values; log10 power by frequency band.
START = {"histogram": GROUPS[0], "spectrum": sum(GROUPS[:3])}
SIZE = {"histogram": len(QUANTILES), "spectrum": GROUPS[3]}


def compare_sets(
    distance: Distance,
    siblings: Array,
    training: Array,
    held_out: Array,
    *,
    training_patients: Sequence[str],
    held_out_patients: Sequence[str],
    seed: int,
    resamples: int = RESAMPLES,
    least: float = 0.0,
) -> dict[str, Figure]:
    """Measure siblings against held-out volumes next to training against held-out, with intervals over patients.

    Sibling ``i`` of every source is a set as large as the training set; the distances of these sets are averaged. A
    bootstrap replicate draws training patients, with their siblings, and held-out patients once for both distances, so
    that the interval of the difference is a paired one.

    Args:
        distance: of two sets ``(N, F)`` and ``(M, F)``.
        siblings: ``(N, n, F)``, n siblings of each training volume.
        training: ``(N, F)``.
        held_out: ``(M, F)``.
        training_patients, held_out_patients: of each row.
        seed: of the resamples.
        resamples: how many.
        least: the distance's lower bound.

    Returns:
        ``siblings``, ``real`` and ``difference`` (siblings minus real), each with ``value``, ``low`` and ``high``.
    """
    rng = numpy_generator(seed, "bootstrap")

    def both(rows: Rows, others: Rows) -> tuple[float, float]:
        of_siblings = [distance(siblings[rows, i], held_out[others]) for i in range(siblings.shape[1])]
        return float(np.mean(of_siblings)), distance(training[rows], held_out[others])

    estimate = both(np.arange(len(training)), np.arange(len(held_out)))
    drawn: Array = np.array(
        [both(draw_patients(training_patients, rng), draw_patients(held_out_patients, rng)) for _ in range(resamples)]
    )
    return {
        "siblings": centred_figure(estimate[0], drawn[:, 0], least),
        "real": centred_figure(estimate[1], drawn[:, 1], least),
        "difference": centred_figure(estimate[0] - estimate[1], drawn[:, 0] - drawn[:, 1]),
    }


def feature_columns(group: Literal["histogram", "spectrum"], features: int) -> list[int]:
    """Return the columns of a group of :func:`~medgan.measures.features.volume_features`, of all channels."""
    start, size = START[group], SIZE[group]
    return [i for i in range(features) if start <= i % FEATURES_PER_CHANNEL < start + size]


def mean_shift(x: Array, y: Array) -> float:
    """Return the root mean square difference of the means of ``(N, F)`` and ``(M, F)``, in the features' own unit."""
    return float(np.sqrt(np.square(x.mean(axis=0) - y.mean(axis=0)).mean()))


SPACE_DISTANCES: dict[str, tuple[Distance, float]] = {
    "frechet": (frechet_distance, 0.0),
    "kernel": (kernel_distance, -np.inf),  # unbiased, and so on both sides of 0
}
"""Distances in the feature space, with their lower bounds."""
