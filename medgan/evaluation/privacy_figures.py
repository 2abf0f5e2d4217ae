"""The figures of the report's section on privacy: which attack is tried with which volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from medgan.data.loaders import stack_images
from medgan.evaluation import privacy
from medgan.evaluation.intervals import (
    CONFIDENCE,
    Array,
    Figure,
    Rows,
    Statistics,
    distribution,
    drawn_figures,
    halved_figures,
    mean_figure,
)
from medgan.evaluation.real import Real, patients_of
from medgan.evaluation.siblings import Measured
from medgan.evaluation.space import Space
from medgan.measures.attacks import (
    FALSE_POSITIVES,
    adversarial_accuracy,
    allowed_mistakes,
    attack_auc,
    attack_sensitivity,
    blind_sensitivity,
    halves,
)
from medgan.measures.distances import correlations
from medgan.seeding import numpy_generator

WHOLE_DRAWS = 20  # of sets of equal size
HALF_DRAWS = 4
SPLITS = 100  # of the members into halves


def linkage(measured: Measured, real: Real, seed: int) -> dict[str, Any]:
    """Return how often a sibling leads back to its patient, and the places of the figures to come.

    ``share`` is the larger of the shares by the correlation of ``voxels`` and by the distance in the space of
    ``features`` (see :func:`closeness`), and ``by`` says which it is.
    """
    patients = patients_of(real.sources)
    share = mean_figure(privacy.linked(measured.nearest, patients), patients, seed)
    return {
        "pooling": privacy.pooling_factor(tuple(real.sources[0].image.shape[1:])),
        "linkage": {
            "share": share,
            "by": "voxels",
            "chance": privacy.chance_of_link(patients),
            "voxels": share,
            "features": None,
        },
        "nearest_correlation": distribution(measured.correlation),
        "copies": None,
        "closest_record": None,
        "neighbour_ratio": None,
        "adversarial": None,
        "membership": {},
    }


def copies(measured: Measured, real: Real, interpolated: Real, seed: int) -> dict[str, Any]:
    """Return the share of copies; the held-out volumes that set the threshold are as smooth as siblings."""
    training = privacy.comparable(stack_images(real.training))
    held_out = correlations(privacy.comparable(stack_images(interpolated.held_out)), training)
    patients = patients_of(real.training), patients_of(real.held_out)
    return copy_figures(measured.correlations[:, :, : len(training)], held_out, *patients, seed)


def copy_figures(
    siblings: Array, held_out: Array, patients: Sequence[str], held_out_patients: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the share of siblings that are copies, that of held-out volumes, and the threshold.

    Args:
        siblings: ``(N, n, N)`` correlations of the n siblings of each training volume with all of these.
        held_out: ``(M, N)`` the same of the held-out volumes.
        patients, held_out_patients: of the N and of the M volumes.
        seed: of the resamples, in which the threshold is another one too.
    """

    def share(rows: Rows, others: Rows) -> dict[str, float]:
        reference = held_out[np.ix_(others, rows)].max(axis=1)
        return {"share": float(privacy.copies(siblings[rows][..., rows].max(axis=2), reference).mean())}

    reference = held_out.max(axis=1)
    return {
        **_nearest_figures(share, patients, held_out_patients, seed),
        "held_out_share": float(privacy.copies(reference, reference).mean()),
        "threshold": privacy.copy_threshold(reference),
    }


def _nearest_figures(
    statistics: Statistics, patients: Sequence[str], others: Sequence[str], seed: int
) -> dict[str, Figure]:
    """Return shares of nearest neighbours with intervals over the patients of both groups.

    By halves; with fewer than 3 patients in a group, which have no halves, by bootstrap.
    """
    if min(len(set(patients)), len(set(others))) < 3:
        return drawn_figures(statistics, patients, others, seed)
    return halved_figures(statistics, patients, others, seed, bounds=(0.0, 1.0))


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances in the feature space between N training cases, M held-out cases and n siblings of each training case.

    A record is taken as it comes and interpolated once, whichever lies nearer to a sibling: so an attacker would do,
    and an exact copy is at distance 0. Records among themselves are interpolated once.

    Attributes:
        training, held_out: ``(N, N, n)`` and ``(M, N, n)`` of records to siblings.
        siblings: ``(n, N, N)`` of siblings with the same number.
        among_training, among_held_out, between: ``(N, N)``, ``(M, M)`` and ``(N, M)`` of records.
    """

    training: Array
    held_out: Array
    siblings: Array
    among_training: Array
    among_held_out: Array
    between: Array

    @classmethod
    def of(cls, space: Space) -> Distances:
        """Measure them in a space of interpolated volumes."""
        count = space.near.shape[1]
        flat = space.near.reshape(-1, space.near.shape[-1])

        def to_siblings(interpolated: Array, raw: Array) -> Array:
            nearer = np.minimum(cdist(interpolated, flat), cdist(raw, flat))
            return nearer.reshape(-1, len(space.near), count)

        return cls(
            to_siblings(space.training, space.raw[0]),
            to_siblings(space.held_out, space.raw[1]),
            np.stack([cdist(space.near[:, i], space.near[:, i]) for i in range(count)]),
            cdist(space.training, space.training),
            cdist(space.held_out, space.held_out),
            cdist(space.training, space.held_out),
        )


def linkage_in_features(linkage: Mapping[str, Any], distances: Distances, real: Real, seed: int) -> dict[str, Any]:
    """Return the figures of a linkage with that in the feature space among them: an attacker takes what works better.

    Args:
        linkage: by voxels, from :func:`linkage`.
        distances, real, seed: as in :func:`closeness`.
    """
    patients = patients_of(real.training)
    share = mean_figure(privacy.linked(distances.training.argmin(axis=0), patients), patients, seed)
    better = share["value"] > linkage["voxels"]["value"]
    return {**linkage, "features": share} | ({"share": share, "by": "features"} if better else {})


def closeness(distances: Distances, real: Real, seed: int) -> dict[str, Any]:
    """Return how close siblings come to training records, by distances to the closest ones.

    Args:
        distances: in the feature space.
        real: the cases, for their patients.
        seed: of the resamples.
    """
    patients = patients_of(real.training)

    def closer(rows: Rows, others: Rows) -> dict[str, float]:
        near = distances.training[np.ix_(rows, rows)], distances.held_out[np.ix_(others, rows)]
        return {"share": float(privacy.closer_to_training(*near).mean())}

    training, held_out = distances.between.shape
    return {
        "closest_record": {
            **_nearest_figures(closer, patients, patients_of(real.held_out), seed),
            "chance": training / (training + held_out),
        },
        "neighbour_ratio": {
            "siblings": distribution(privacy.neighbour_ratios(distances.training, patients)),
            "held_out": distribution(privacy.neighbour_ratios(distances.between, patients)),
        },
        "adversarial": adversarial(distances, real, seed),
    }


def adversarial(distances: Distances, real: Real, seed: int) -> dict[str, Any]:
    """Return the nearest-neighbour adversarial accuracies (Yale et al. 2020), in sets of equal size.

    Sets are drawn over and over: so many training volumes, one sibling of each, as many held-out volumes, one scan of
    a patient, who would else be the nearest neighbour of the other. The *loss* is
    the accuracy against held-out volumes minus that against training volumes: above 0, siblings are nearer to the
    volumes of training than the look of such volumes explains. Arguments as in :func:`closeness`.
    """
    names = [np.asarray(patients_of(part)) for part in (real.training, real.held_out)]
    whole = distances.between.shape
    count = len(distances.siblings)

    def accuracies(rows: Rows, others: Rows) -> dict[str, float]:
        rng = numpy_generator(seed, "adversarial")
        size = min(len(np.unique(names[0][rows])), len(np.unique(names[1][others])))
        draws = WHOLE_DRAWS if (len(rows), len(others)) == whole else HALF_DRAWS
        found = []
        for draw in range(draws):
            some, unseen = (
                _one_a_patient(rng.permutation(part), its)[:size]
                for part, its in zip((rows, others), names, strict=True)
            )
            training = distances.among_training[np.ix_(some, some)]
            held_out = distances.among_held_out[np.ix_(unseen, unseen)]
            siblings = distances.siblings[draw % count][np.ix_(some, some)]
            found.append(
                (
                    adversarial_accuracy(distances.training[np.ix_(some, some)][..., draw % count], training, siblings),
                    adversarial_accuracy(
                        distances.held_out[np.ix_(unseen, some)][..., draw % count], held_out, siblings
                    ),
                    adversarial_accuracy(distances.between[np.ix_(some, unseen)], training, held_out),
                )
            )
        to_training, to_held_out, real_real = np.mean(found, axis=0).tolist()
        return {
            "training": to_training,
            "held_out": to_held_out,
            "loss": to_held_out - to_training,
            "real": real_real,
        }

    patients = patients_of(real.training), patients_of(real.held_out)
    figures = halved_figures(accuracies, *patients, seed, bounds=(-1.0, 1.0))
    for name in ("training", "held_out", "real"):
        figures[name]["low"] = max(figures[name]["low"], 0.0)
    return {"size": min(len(set(part)) for part in patients), **figures}


def _one_a_patient(rows: Rows, patients: NDArray[np.str_]) -> Rows:
    """Return the rows, in their order, without those of a patient who came before."""
    _, first = np.unique(patients[rows], return_index=True)
    return rows[np.sort(first)]


def membership(distances: Mapping[str, tuple[Array, Array]], real: Real, seed: int) -> dict[str, Any]:
    """Return how well an attacker tells training from unseen records by the distance to the nearest sibling.

    Args:
        distances: by space, ``(N, N, n)`` of each training record and ``(M, N, n)`` of each held-out record to each
            sibling of each training case.
        real: the cases, for their patients.
        seed: of resamples and splits.

    Returns:
        by space, ``auc`` and ``sensitivity`` at 1 % false positives with intervals over patients, and
        ``blind_sensitivity``, what an attacker who knows nothing finds with so few others; ``control``: the AUC where
        both groups are members, whose siblings are all released: 0.5 by construction, its range is what the AUC of so
        many records does by chance; ``weights``: that of members whose siblings are withheld, against held-out records,
        which is what the weights alone give away.
    """
    patients, others = patients_of(real.training), patients_of(real.held_out)
    if len(set(patients)) < 4:
        return {}
    return {name: _attack(*pair, patients, others, seed) for name, pair in distances.items()}


def voxel_distances(measured: Measured) -> tuple[Array, Array]:
    """Return the distances :func:`membership` wants: 1 minus the correlation of voxels."""
    distances = np.moveaxis(1 - measured.correlations, 2, 0)
    count = len(measured.correlations)
    return distances[:count], distances[count:]


def _attack(members: Array, unseen: Array, patients: list[str], other_patients: list[str], seed: int) -> dict[str, Any]:
    of_members, of_unseen = members.min(axis=(1, 2)), unseen.min(axis=(1, 2))

    def success(rows: Rows, others: Rows) -> dict[str, float]:
        found = of_members[rows], of_unseen[others]
        return {"auc": attack_auc(*found), "sensitivity": attack_sensitivity(*found)}

    control, weights = [], []
    rng = numpy_generator(seed, "membership")
    for _ in range(SPLITS):
        released, withheld = halves(patients, rng)
        control.append(attack_auc(of_members[released], of_members[withheld]))
        nearest = (part[:, released].min(axis=(1, 2)) for part in (members[withheld], unseen))
        weights.append(attack_auc(*nearest))
    figures = drawn_figures(success, patients, other_patients, seed)
    return {
        **figures,
        "false_positives": FALSE_POSITIVES,
        "mistakes_allowed": allowed_mistakes(len(unseen)),
        "blind_sensitivity": blind_sensitivity(len(unseen)),
        "control": _range(control),
        "weights": _range(weights),
        "members": len(members),
        "unseen": len(unseen),
    }


def _range(values: list[float]) -> dict[str, float]:
    low, high = np.percentile(values, CONFIDENCE)
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high)}
