"""Fidelity in what a task network reads: siblings, their sources and held-out volumes by its deepest features.

The feature space of :mod:`medgan.measures.features` is made of statistics that somebody chose, and it also chooses the
checkpoint. Task networks have learned what matters for structures or classes, from real volumes alone. Those of
several folds have nothing in common, so each fold has a space of its own, fitted to real volumes that its network
never met, and distances are averaged over the folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgan.evaluation.fidelity import LEAST_PATIENTS, SPACE_DISTANCES, Sets, compare_folds
from medgan.evaluation.intervals import RESAMPLES, Figure
from medgan.measures.features import FeatureSpace


def task_fidelity(
    folds: Sequence[Sets], held_out_patients: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> dict[str, dict[str, Figure]] | None:
    """Measure siblings against held-out volumes next to their sources against the same, with intervals over patients.

    Args:
        folds: features that the network of each fold sees in volumes it was not fitted to: siblings, their sources (as
            ``training``) and held-out volumes, these two interpolated once, as siblings are.
        held_out_patients: of the M held-out volumes.
        seed: of the resamples: patients of every fold and held-out patients drawn again, the same for both distances.
        resamples: how many.

    Returns:
        ``frechet`` and ``kernel``, each as of :func:`~medgan.evaluation.fidelity.compare_folds`; ``None`` where a fold
        or the held-out volumes have fewer than three patients, or where a network sees no difference between real
        volumes.
    """
    if min(len(set(patients)) for patients in (held_out_patients, *(fold.patients for fold in folds))) < LEAST_PATIENTS:
        return None
    try:
        spaces = [_in_space(fold) for fold in folds]
    except ValueError:
        return None
    return {
        name: compare_folds(distance, spaces, held_out_patients, seed=seed, resamples=resamples, least=least)
        for name, (distance, least) in SPACE_DISTANCES.items()
    }


def _in_space(fold: Sets) -> Sets:
    """Return the same in the space of what the real volumes vary in.

    Raises:
        ValueError: they are all alike.
    """
    space = FeatureSpace(weights=np.ones(fold.training.shape[1]))
    space.fit(np.concatenate([fold.training, fold.held_out]))
    near = space.transform(fold.siblings.reshape(-1, fold.siblings.shape[-1]))
    return Sets(
        near.reshape(*fold.siblings.shape[:2], -1),
        space.transform(fold.training),
        space.transform(fold.held_out),
        fold.patients,
    )
