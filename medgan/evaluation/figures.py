"""The figures of a report: which measure is applied to which sets, and what is left out for want of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medgan.checkpoint import Checkpoint
from medgan.data.loaders import Prepared, stack_images
from medgan.evaluation import privacy
from medgan.evaluation.diversity import Similarity, neighbourhoods, neighbours_for, similarity_for
from medgan.evaluation.fidelity import SPACE_DISTANCES, compare_sets, feature_columns, mean_shift
from medgan.evaluation.intervals import Array, distribution, mean_figure
from medgan.evaluation.preservation import deformation_figures, label_figures, label_values
from medgan.evaluation.siblings import SIMILARITY_PAIRS, Measured, measure_siblings
from medgan.measures.distances import nearest_neighbour_correlation, pairwise_spread
from medgan.measures.features import FeatureSpace, volume_features
from medgan.sampler import Sampler
from medgan.seeding import numpy_generator

LEAST_CASES = 3  # of each kind, for a feature space and distances in it


@dataclass(frozen=True, eq=False)
class Real:
    """The real volumes on the grid. ``training`` is empty for a cohort the generator has not seen."""

    training: Sequence[Prepared]
    held_out: Sequence[Prepared]

    @property
    def sources(self) -> Sequence[Prepared]:
        """What siblings are made of: training cases; where there are none, the cohort's own."""
        return self.training or self.held_out


def measure(
    sampler: Sampler, real: Real, *, labels: Mapping[int, str], siblings: int, seed: int
) -> tuple[dict[str, Any], Measured]:
    """Return the figures of a report, with ``notes`` and what was ``left_out``, and the measurements behind them.

    Args:
        sampler: runs the generator.
        real: cases on the grid, at least one.
        labels: label values and names; empty: those found in the label maps.
        siblings: of each source, at least 2.
        seed: of all noise and resamples.
    """
    spacing, unit = grid_unit(sampler.checkpoint)
    similarity = similarity_for(sampler.preprocessing.config.shape)
    values = label_values([np.asarray(p.label) for p in real.sources if p.label is not None], labels)
    measured = measure_siblings(
        sampler, real.sources, count=siblings, seed=seed, labels=values, similarity=similarity, spacing=spacing
    )
    notes, left_out = _missing_parts(real)
    report: dict[str, Any] = {"notes": notes, "left_out": left_out, "fidelity": None}
    report["diversity"] = _spread(measured, real, unit, similarity, seed)
    report["preservation"] = _preservation(measured, values, labels, unit)
    report["privacy"] = _linkage(measured, real, seed)
    if not any(p.label is not None for p in real.sources):
        left_out.append({"figures": "label volumes and topology", "reason": "no source has a label map"})
    if real.training and real.held_out:
        report["privacy"]["copies"] = _copies(measured, real, seed)
    if min(len(real.training), len(real.held_out)) < LEAST_CASES:
        return report, measured
    training, held_out = (volume_features(stack_images(part)) for part in (real.training, real.held_out))
    try:
        # Fitted to both real sets: a space fitted to one of them would favour what lies near it.
        space = FeatureSpace().fit(np.concatenate([training, held_out]))
    except ValueError as error:
        left_out.append({"figures": "everything in the feature space", "reason": str(error)})
        return report, measured
    flat = measured.features.reshape(-1, measured.features.shape[-1])
    near = space.transform(flat).reshape(*measured.features.shape[:2], -1)
    projected = space.transform(training), space.transform(held_out)
    report["fidelity"] = _fidelity(measured, near, (training, held_out), projected, real, seed)
    k = neighbours_for(len(training), len(held_out))
    report["diversity"]["neighbourhoods"] = {"k": k, **neighbourhoods(near, *projected, k)}
    report["privacy"] |= _closeness(near, *projected, real, seed)
    return report, measured


def grid_unit(checkpoint: Checkpoint) -> tuple[tuple[float, float, float], str]:
    """Return the spacing of grid voxels and the unit it gives: mm, or voxels where each volume has its own."""
    preprocess = checkpoint.config.preprocess
    if preprocess.fit == "crop" and preprocess.spacing is not None:
        return preprocess.spacing, "mm"
    return (1.0, 1.0, 1.0), "voxels"


def patients_of(prepared: Sequence[Prepared]) -> list[str]:
    """Return the patient of each case."""
    return [p.case.patient_id for p in prepared]


def _missing_parts(real: Real) -> tuple[list[str], list[dict[str, str]]]:
    notes: list[str] = []
    reasons = []
    if not real.training:
        notes.append(
            "The generator was trained on none of these cases. Siblings were made of them nevertheless; what needs "
            "training cases is left out."
        )
        reasons.append("no case of this cohort was trained on")
    if not real.held_out:
        reasons.append("no case of this cohort is held out: the generator was trained on all of them")
    if reasons:
        left = "fidelity; precision, recall, density and coverage; copies; distances to the closest record"
        return notes, [{"figures": left, "reason": "; ".join(reasons)}]
    found = {"training": len(real.training), "held-out": len(real.held_out)}
    few = [f"{count} {name} case{'s' if count > 1 else ''}" for name, count in found.items() if count < LEAST_CASES]
    if few:
        left = "fidelity; precision, recall, density and coverage; distances to the closest record"
        reason = f"{' and '.join(few)}, where a feature space needs at least {LEAST_CASES} of each kind"
        return notes, [{"figures": left, "reason": reason}]
    return notes, []


def _fidelity(
    measured: Measured,
    near: Array,
    features: tuple[Array, Array],
    projected: tuple[Array, Array],
    real: Real,
    seed: int,
) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "training_patients": patients_of(real.training),
        "held_out_patients": patients_of(real.held_out),
        "seed": seed,
    }
    report: dict[str, Any] = {"dimensions": near.shape[-1]}
    for name, (distance, least) in SPACE_DISTANCES.items():
        report[name] = compare_sets(distance, near, *projected, **drawn, least=least)
    raw = measured.features
    groups: tuple[Literal["histogram", "spectrum"], ...] = ("histogram", "spectrum")
    for group in groups:
        columns = feature_columns(group, raw.shape[-1])
        sets = raw[..., columns], features[0][:, columns], features[1][:, columns]
        report[group] = compare_sets(mean_shift, *sets, **drawn)
    return report


def _spread(measured: Measured, real: Real, unit: str, similarity: Similarity, seed: int) -> dict[str, Any]:
    patients = patients_of(real.sources)
    images = stack_images(real.sources)
    between = _between_patients(real.sources, similarity, seed)
    compared = np.flatnonzero(np.isfinite(measured.similarity))
    compared_patients = [patients[row] for row in compared]
    return {
        "unit": unit,
        "displacement": distribution(measured.displacement),
        "shape_spread": mean_figure(measured.shape_spread, patients, seed),
        "appearance_spread": mean_figure(measured.appearance_spread, patients, seed),
        "volume_spread": {
            "siblings": mean_figure(measured.volume_spread, patients, seed),
            "real": pairwise_spread(images.numpy()) if len(images) > 1 else None,
        },
        "similarity": {
            "name": similarity.name,
            "siblings": mean_figure(measured.similarity[compared], compared_patients, seed),
            "real": between,
        },
        "neighbourhoods": None,
    }


def _between_patients(sources: Sequence[Prepared], similarity: Similarity, seed: int) -> float | None:
    """Return the mean similarity of volumes of different patients, over pairs drawn by the seed."""
    patients = patients_of(sources)
    pairs = [(i, j) for i in range(len(sources)) for j in range(i) if patients[i] != patients[j]]
    if not pairs:
        return None
    chosen = numpy_generator(seed, "pairs").permutation(len(pairs))[:SIMILARITY_PAIRS]
    found = [similarity(*(sources[row].image[None] for row in pairs[pair])) for pair in chosen]
    return float(np.mean(found))


def _preservation(measured: Measured, values: Sequence[int], names: Mapping[int, str], unit: str) -> dict[str, Any]:
    found = {
        value: label_figures(
            measured.ratios[value], measured.components_before[value], measured.components_after[value]
        )
        for value in values
    }
    labels = [
        {"value": value, "name": names.get(value, f"label {value}"), **figures}
        for value, figures in found.items()
        if figures is not None
    ]
    return {"unit": unit, **deformation_figures(measured.jacobian_min, measured.fold_share), "labels": labels}


def _linkage(measured: Measured, real: Real, seed: int) -> dict[str, Any]:
    rows = np.arange(len(real.sources))
    own = privacy.linked(measured.nearest, rows)
    return {
        "pooling": privacy.pooling_factor(tuple(real.sources[0].image.shape[1:])),
        "linkage": {"share": mean_figure(own, patients_of(real.sources), seed), "chance": 1 / len(rows)},
        "nearest_correlation": distribution(measured.correlation),
        "copies": None,
        "closest_record": None,
        "neighbour_ratio": None,
    }


def _copies(measured: Measured, real: Real, seed: int) -> dict[str, Any]:
    training, held_out = (privacy.comparable(stack_images(part)) for part in (real.training, real.held_out))
    reference, _ = nearest_neighbour_correlation(held_out, training)
    found = privacy.copies(measured.correlation, reference)
    return {
        "share": mean_figure(found, patients_of(real.training), seed),
        "held_out_share": float(privacy.copies(reference, reference).mean()),
        "threshold": privacy.copy_threshold(reference),
    }


def _closeness(near: Array, training: Array, held_out: Array, real: Real, seed: int) -> dict[str, Any]:
    patients = patients_of(real.training)
    flat = near.reshape(-1, near.shape[-1])
    closer = privacy.closer_to_training(flat, training, held_out).reshape(near.shape[:2])
    ratios = privacy.neighbour_ratios(flat, training)
    return {
        "closest_record": {
            "share": mean_figure(closer, patients, seed),
            "chance": len(training) / (len(training) + len(held_out)),
        },
        "neighbour_ratio": {
            "siblings": distribution(ratios),
            "held_out": distribution(privacy.neighbour_ratios(held_out, training)),
        },
    }
