"""Siblings and real volumes in one feature space, and the figures that are made there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from medgan.data.loaders import stack_images
from medgan.evaluation.diversity import neighbourhoods, neighbours_for
from medgan.evaluation.fidelity import SPACE_DISTANCES, Sets, compare_folds, feature_columns, mean_shift
from medgan.evaluation.intervals import Array
from medgan.evaluation.real import Real, patients_of
from medgan.evaluation.siblings import Measured
from medgan.measures.features import FeatureSpace, volume_features


@dataclass(frozen=True, eq=False)
class Space:
    """Both sets of real volumes and the siblings in one feature space.

    Attributes:
        near: ``(N, n, F)`` siblings.
        training, held_out: ``(N, F)`` and ``(M, F)``, as the space was fitted to them.
        raw: both sets as they come.
        features: of the two sets of the fit, not projected.
    """

    near: Array
    training: Array
    held_out: Array
    raw: tuple[Array, Array]
    features: tuple[Array, Array] = field(repr=False)


def lay_out(measured: Measured, real: Real, raw: Real) -> Space:
    """Fit a space to both sets of real volumes and lay siblings into it.

    Args:
        measured: of the siblings.
        real: what the space is fitted to.
        raw: the same cases as they come.

    Raises:
        ValueError: the real volumes are all alike.
    """
    training, held_out, *others = (
        volume_features(stack_images(part)) for reals in (real, raw) for part in (reals.training, reals.held_out)
    )
    # Fitted to both real sets: a space fitted to one of them would favour what lies near it.
    space = FeatureSpace().fit(np.concatenate([training, held_out]))
    flat = measured.features.reshape(-1, measured.features.shape[-1])
    near = space.transform(flat).reshape(*measured.features.shape[:2], -1)
    as_they_come = space.transform(others[0]), space.transform(others[1])
    return Space(near, space.transform(training), space.transform(held_out), as_they_come, (training, held_out))


def fidelity_figures(measured: Measured, space: Space, real: Real, seed: int) -> dict[str, Any]:
    """Return all distances of siblings from held-out volumes beside their floors (see ``compare_folds``)."""
    patients, others = patients_of(real.training), patients_of(real.held_out)
    near = Sets(space.near, space.training, space.held_out, patients)
    report: dict[str, Any] = {"dimensions": space.near.shape[-1]}
    for name, (distance, least) in SPACE_DISTANCES.items():
        report[name] = compare_folds(distance, [near], others, seed=seed, least=least)
    groups: tuple[Literal["histogram", "spectrum"], ...] = ("histogram", "spectrum")
    for group in groups:
        columns = feature_columns(group, measured.features.shape[-1])
        siblings, training, held_out = (f[..., columns] for f in (measured.features, *space.features))
        plain = Sets(siblings, training, held_out, patients)
        report[group] = compare_folds(mean_shift, [plain], others, seed=seed)
    return report


def neighbourhood_figures(space: Space, real: Real, seed: int) -> dict[str, Any]:
    """Return precision, recall, density and coverage, and which neighbour ``k`` they use."""
    k = neighbours_for(len(space.training), len(space.held_out))
    patients = {"training_patients": patients_of(real.training), "held_out_patients": patients_of(real.held_out)}
    return {"k": k, **neighbourhoods(space.near, space.training, space.held_out, k, **patients, seed=seed)}
