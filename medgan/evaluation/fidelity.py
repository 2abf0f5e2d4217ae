"""Do siblings, taken together, look like volumes of patients the generator has not seen?

Every distance stands next to its floor, that of the real training volumes to the same held-out ones, at equal numbers
of samples: a distance between two finite sets is never 0, and it depends on their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgan.evaluation.intervals import RESAMPLES, Array, Figure, centred_figure, draw_patients
from medgan.measures.distances import frechet_distance, kernel_distance
from medgan.measures.features import FEATURES_PER_CHANNEL, GROUPS, QUANTILES
from medgan.seeding import numpy_generator

LEAST_PATIENTS = 3  # of each kind, for a feature space and distances in it
Rows = NDArray[np.integer[Any]]
Distance = Callable[[Array, Array], float]
# Features with the unit of a figure: quantiles of the values; log10 power by frequency band.
START = {"histogram": GROUPS[0], "spectrum": sum(GROUPS[:3])}
SIZE = {"histogram": len(QUANTILES), "spectrum": GROUPS[3]}


@dataclass(frozen=True, eq=False)
class Sets:
    """Sets of volumes in one space.

    Attributes:
        siblings: ``(N, n, F)``, n siblings of each training volume.
        training: ``(N, F)``.
        held_out: ``(M, F)``.
        patients: of the N training volumes.
    """

    siblings: Array
    training: Array
    held_out: Array
    patients: Sequence[str]


def compare_folds(
    distance: Distance,
    folds: Sequence[Sets],
    held_out_patients: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    least: float = 0.0,
) -> dict[str, Figure]:
    """Measure siblings against held-out volumes next to training against held-out, with intervals over patients.

    Sibling ``i`` of every source is a set as large as the training set; the distances of these sets are averaged, and
    so are those of the folds, each of which has a space of its own. A bootstrap replicate draws training patients, with
    their siblings, and held-out patients once for both distances, so that the interval of the difference is a paired
    one.

    Args:
        distance: of two sets ``(N, F)`` and ``(M, F)``.
        folds: in which the same M held-out volumes are seen.
        held_out_patients: of these.
        seed: of the resamples.
        resamples: how many.
        least: the distance's lower bound.

    Returns:
        ``siblings``, ``real`` and ``difference`` (siblings minus real), each with ``value``, ``low`` and ``high``.
    """
    rng = numpy_generator(seed, "bootstrap")

    def both(rows: Sequence[Rows], others: Rows) -> tuple[float, float]:
        of_siblings, of_training = [], []
        for fold, its in zip(folds, rows, strict=True):
            held_out = fold.held_out[others]
            of_siblings += [distance(fold.siblings[its, i], held_out) for i in range(fold.siblings.shape[1])]
            of_training.append(distance(fold.training[its], held_out))
        return float(np.mean(of_siblings)), float(np.mean(of_training))

    estimate = both([np.arange(len(fold.training)) for fold in folds], np.arange(len(held_out_patients)))
    drawn: Array = np.array(
        [
            both([draw_patients(fold.patients, rng) for fold in folds], draw_patients(held_out_patients, rng))
            for _ in range(resamples)
        ]
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
