"""Fidelity in what a task network reads: siblings, their sources and held-out volumes by its deepest features.

The feature space of :mod:`medgan.measures.features` is made of statistics that somebody chose, and it also chooses the
checkpoint. Task networks have learned what matters for structures or classes, from real volumes alone. Those of
several folds have nothing in common, so each fold has a space of its own, fitted to real volumes that its network
never met, and distances are averaged over the folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgan.evaluation.fidelity import SPACE_DISTANCES
from medgan.evaluation.intervals import RESAMPLES, Array, Rows, centred_figure, draw_patients
from medgan.measures.features import FeatureSpace
from medgan.seeding import numpy_generator

LEAST_PATIENTS = 3  # of each kind in every fold


@dataclass(frozen=True, eq=False)
class Described:
    """What the network of one fold sees in volumes that it was not fitted to.

    Attributes:
        siblings: ``(N, n, F)`` features, n siblings of each source of the fold.
        sources: ``(N, F)`` of the sources, interpolated once as siblings are.
        held_out: ``(M, F)`` of held-out volumes, likewise.
        patients: of the N sources.
    """

    siblings: Array
    sources: Array
    held_out: Array
    patients: Sequence[str]

    def in_space(self) -> Described:
        """Return the same in the space of what the real volumes vary in.

        Raises:
            ValueError: they are all alike.
        """
        space = FeatureSpace(weights=np.ones(self.sources.shape[1]))
        space.fit(np.concatenate([self.sources, self.held_out]))
        near = space.transform(self.siblings.reshape(-1, self.siblings.shape[-1]))
        shape = (*self.siblings.shape[:2], -1)
        return Described(
            near.reshape(shape), space.transform(self.sources), space.transform(self.held_out), self.patients
        )


def task_fidelity(
    folds: Sequence[Described], held_out_patients: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> dict[str, Any] | None:
    """Measure siblings against held-out volumes next to their sources against the same, with intervals over patients.

    Args:
        folds: what each network sees.
        held_out_patients: of the M held-out volumes.
        seed: of the resamples: patients of every fold and held-out patients drawn again, the same for both distances.
        resamples: how many.

    Returns:
        ``frechet`` and ``kernel``, each with ``siblings``, ``real`` and ``difference`` as of
        :func:`~medgan.evaluation.fidelity.compare_sets`; ``None`` where a fold or the held-out volumes have fewer than
        three patients, or where a network sees no difference between real volumes.
    """
    if min(len(set(patients)) for patients in (held_out_patients, *(fold.patients for fold in folds))) < LEAST_PATIENTS:
        return None
    try:
        spaces = [fold.in_space() for fold in folds]
    except ValueError:
        return None

    def distances(rows: Sequence[Rows], others: Rows) -> Array:
        """Return siblings' and sources' distance, ``(distances, 2)``."""
        found = []
        for distance, _ in SPACE_DISTANCES.values():
            made, own = [], []
            for space, its in zip(spaces, rows, strict=True):
                held_out = space.held_out[others]
                made += [distance(space.siblings[its, i], held_out) for i in range(space.siblings.shape[1])]
                own.append(distance(space.sources[its], held_out))
            found.append((float(np.mean(made)), float(np.mean(own))))
        return np.array(found)

    rng = numpy_generator(seed, "bootstrap")
    estimate = distances([np.arange(len(s.sources)) for s in spaces], np.arange(len(held_out_patients)))
    drawn = np.array(
        [
            distances([draw_patients(s.patients, rng) for s in spaces], draw_patients(held_out_patients, rng))
            for _ in range(resamples)
        ]
    )
    figures: dict[str, Any] = {}
    for number, (name, (_, least)) in enumerate(SPACE_DISTANCES.items()):
        (made, own), (of_made, of_own) = estimate[number], drawn[:, number].T
        figures[name] = {
            "siblings": centred_figure(float(made), of_made, least),
            "real": centred_figure(float(own), of_own, least),
            "difference": centred_figure(float(made - own), of_made - of_own),
        }
    return figures
