"""The figures of a report: which measure is applied to which sets, and what is left out for want of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgan.checkpoint import Checkpoint
from medgan.evaluation import privacy_figures
from medgan.evaluation.agreement import Agreement, measure_agreement, tasks_for
from medgan.evaluation.diversity import similarity_for
from medgan.evaluation.fidelity import LEAST_PATIENTS
from medgan.evaluation.intervals import Array
from medgan.evaluation.preservation import deformation_figures, label_figures, label_values
from medgan.evaluation.real import SMOOTHING, Real, patients_of
from medgan.evaluation.siblings import Measured, measure_siblings
from medgan.evaluation.space import fidelity_figures, lay_out, neighbourhood_figures
from medgan.evaluation.spread import spread_figures
from medgan.evaluation.targets import targets
from medgan.sampler import Sampler


@dataclass(frozen=True, eq=False)
class Measurements:
    """What the pictures need of what was measured.

    Attributes:
        measured: of the siblings.
        agreements: of the task networks.
        strangeness: ``(N, n)`` distance to the nearest held-out volume in the feature space, or ``None``.
    """

    measured: Measured
    agreements: Sequence[Agreement] = ()
    strangeness: Array | None = None


def measure(
    sampler: Sampler,
    real: Real,
    *,
    labels: Mapping[int, str],
    siblings: int,
    seed: int,
    task_steps: int,
    strength: float = 1.0,
) -> tuple[dict[str, Any], Measurements]:
    """Return the figures of a report, with ``notes`` and what was ``left_out``, and the measurements behind them.

    Args:
        sampler: runs the generator.
        real: cases on the grid, at least one.
        labels: label values and names; empty: those found in the label maps.
        siblings: of each source, at least 2.
        seed: of all noise and resamples.
        task_steps: updates of each task network; 0 for none.
        strength: of every sibling.
    """
    spacing, unit = grid_unit(sampler.checkpoint)
    similarity = similarity_for(sampler.preprocessing.config.shape)
    values = label_values([np.asarray(p.label) for p in real.sources if p.label is not None], labels)
    measured = measure_siblings(
        sampler,
        real.sources,
        count=siblings,
        seed=seed,
        strength=strength,
        labels=values,
        similarity=similarity,
        others=real.others,
        spacing=spacing,
    )
    notes, left_out = _missing_parts(real)
    report: dict[str, Any] = {"notes": notes, "left_out": left_out, "fidelity": None, "raw": None}
    report["diversity"] = spread_figures(measured, real, unit, similarity, seed)
    report["preservation"] = _preservation(measured, values, labels, unit)
    agreements = _agreements(
        sampler, real, labels, values, left_out, siblings=siblings, steps=task_steps, seed=seed, strength=strength
    )
    report["preservation"]["agreement"] = [agreement.figures for agreement in agreements]
    notes += [note for agreement in agreements if (note := _unable(agreement.figures))]
    report["privacy"] = privacy_figures.linkage(measured, real, seed)
    if not any(p.label is not None for p in real.sources):
        left_out.append({"figures": "label volumes and topology", "reason": "no source has a label map"})
    strangeness = None
    if real.training and real.held_out:
        strangeness = _against_held_out(report, measured, real, seed)
    report["targets"] = targets(report)
    return report, Measurements(measured, agreements, strangeness)


def _against_held_out(report: dict[str, Any], measured: Measured, real: Real, seed: int) -> Array | None:
    """Fill in what compares with held-out volumes; return how far siblings lie from the nearest of them."""
    interpolated = real.interpolated(seed)
    report["privacy"]["copies"] = privacy_figures.copies(measured, real, interpolated, seed)
    if min(len(set(patients_of(part))) for part in (real.training, real.held_out)) < LEAST_PATIENTS:
        return None
    try:
        space, raw = (lay_out(measured, reals, real) for reals in (interpolated, real))
    except ValueError as error:
        report["left_out"].append({"figures": "everything in the feature space", "reason": str(error)})
        return None
    report["fidelity"] = fidelity_figures(measured, space, real, seed)
    report["diversity"]["neighbourhoods"] = neighbourhood_figures(space, real, seed)
    report["raw"] = {
        "note": SMOOTHING,
        "fidelity": fidelity_figures(measured, raw, real, seed),
        "neighbourhoods": neighbourhood_figures(raw, real, seed),
    }
    distances = privacy_figures.Distances.of(space)
    linkage = report["privacy"]["linkage"]
    report["privacy"]["linkage"] = privacy_figures.linkage_in_features(linkage, distances, real, seed)
    report["privacy"] |= privacy_figures.closeness(distances, real, seed)
    spaces = {
        "voxels": privacy_figures.voxel_distances(measured),
        "features": (distances.training, distances.held_out),
    }
    report["privacy"]["membership"] = privacy_figures.membership(spaces, real, seed)
    if not report["privacy"]["membership"]:
        reason = f"{len(set(patients_of(real.training)))} training patients, where two halves need at least 4"
        report["left_out"].append({"figures": "membership inference", "reason": reason})
    return np.asarray(distances.held_out.min(axis=0), dtype=np.float64)


def _agreements(
    sampler: Sampler,
    real: Real,
    labels: Mapping[int, str],
    values: Sequence[int],
    left_out: list[dict[str, str]],
    *,
    siblings: int,
    steps: int,
    seed: int,
    strength: float,
) -> list[Agreement]:
    if not steps:
        left_out.append({"figures": "agreement of an independent network", "reason": "no steps were allowed for it"})
        return []
    tasks, gaps = tasks_for(real, sampler.class_names, labels, values)
    left_out += gaps
    if not tasks and not gaps:
        reason = "the cases have neither label maps nor classes"
        left_out.append({"figures": "agreement of an independent network", "reason": reason})
    found = []
    for task in tasks:
        try:
            found.append(
                measure_agreement(task, sampler, real, siblings=siblings, steps=steps, seed=seed, strength=strength)
            )
        except ValueError as error:
            left_out.append({"figures": f"agreement of an independent {task.kind} network", "reason": str(error)})
    return found


def _unable(figures: Mapping[str, Any]) -> str:
    """Say what independent networks cannot read even in real volumes; nothing if they read all of it."""
    unread = [part for part in figures["parts"] if not figures["able"] or not part["readable"]]
    if not unread:
        return ""
    found = ", ".join(f"{part['name']} {0 if part['real'] is None else part['real']:.2f}" for part in unread)
    counted = "They are left out of the mean." if figures["able"] else "What they say of siblings means nothing."
    return (
        f"After {figures['steps']} steps the independent {figures['kind']} networks do not read these in held-out real "
        f"volumes either: {found}. {counted} Allow more with --task-steps, or more cases."
    )


def grid_unit(checkpoint: Checkpoint) -> tuple[tuple[float, float, float], str]:
    """Return the spacing of grid voxels and the unit it gives: mm, or voxels where each volume has its own."""
    preprocess = checkpoint.config.preprocess
    if preprocess.fit == "crop" and preprocess.spacing is not None:
        return preprocess.spacing, "mm"
    return (1.0, 1.0, 1.0), "voxels"


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
        left = (
            "fidelity; precision, recall, density and coverage; copies; distances to the closest record, adversarial "
            "accuracy and membership inference"
        )
        return notes, [{"figures": left, "reason": "; ".join(reasons)}]
    found = {"training": len(set(patients_of(real.training))), "held-out": len(set(patients_of(real.held_out)))}
    few = [
        f"{count} {name} patient{'s' if count > 1 else ''}" for name, count in found.items() if count < LEAST_PATIENTS
    ]
    if few:
        left = (
            "fidelity; precision, recall, density and coverage; distances to the closest record, adversarial accuracy "
            "and membership inference"
        )
        reason = f"{' and '.join(few)}, where a feature space needs at least {LEAST_PATIENTS} of each kind"
        return notes, [{"figures": left, "reason": reason}]
    return notes, []


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
