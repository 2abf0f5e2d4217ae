"""What the figures show and the summary does not hold: differences by patient and replicate, reliability, sweeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.comparison.report.finished import FinishedStudy, Replicate, ScoreLine
from medgan.comparison.statistics import weighted_auc

Array = NDArray[np.float64]
BINS = 10
# A bin of fewer predictions than this says little.
PREDICTIONS_IN_A_BIN = 5


def patient_differences(study: FinishedStudy, arm: str, labelled: int) -> Array:
    """Return each test patient's difference to the baseline ``(patients,)``, averaged over the replicates both have.

    The primary metric for segmentation; for classification, where a single patient has no AUC, the probability that
    was given to the true class.
    """
    own, other = (_by_replicate(study, name, labelled) for name in (arm, study.baseline))
    found: dict[str, list[float]] = {}
    for replicate in own.keys() & other.keys():
        mine, theirs = (_of_patients(study, lines) for lines in (own[replicate], other[replicate]))
        for patient in mine.keys() & theirs.keys():
            found.setdefault(patient, []).append(mine[patient] - theirs[patient])
    return np.array([sum(values) / len(values) for _, values in sorted(found.items())])


def replicate_values(study: FinishedStudy, arm: str, labelled: int) -> dict[Replicate, float]:
    """Return the primary metric on the test cases of each of an arm's runs."""
    values = {}
    for replicate, lines in _by_replicate(study, arm, labelled).items():
        if study.plan["task"] == "segmentation":
            of_patients = list(_of_patients(study, lines).values())
            values[replicate] = sum(of_patients) / len(of_patients) if of_patients else math.nan
        else:
            scores, truth = probabilities(study, lines)
            values[replicate] = float(weighted_auc(scores, truth, np.ones((1, len(truth))))[0])
    return values


def replicate_differences(study: FinishedStudy, arm: str, labelled: int) -> dict[Replicate, float]:
    """Return the difference to the baseline in the primary metric, of each replicate that both arms have."""
    own, other = (replicate_values(study, name, labelled) for name in (arm, study.baseline))
    return {replicate: own[replicate] - other[replicate] for replicate in sorted(own.keys() & other.keys())}


@dataclass(frozen=True)
class Reliability:
    """Points of a reliability curve: mean predicted probability, observed share, predictions in the bin."""

    predicted: Array
    observed: Array
    counts: NDArray[np.int64]


def reliability(predicted: Array, happened: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Return the points of a reliability curve in bins of equal mass (after sorting by the prediction).

    Args:
        predicted: ``(N,)`` probabilities.
        happened: ``(N,)`` whether what was predicted is so.
        bins: at most; fewer where a bin would hold fewer than five predictions.

    Source: Nguyen and O'Connor, EMNLP 2015 (equal-mass bins).
    """
    bins = max(1, min(bins, len(predicted) // PREDICTIONS_IN_A_BIN))
    parts = np.array_split(np.argsort(predicted, kind="stable"), bins)
    return Reliability(
        predicted=np.array([predicted[part].mean() for part in parts]),
        observed=np.array([happened[part].mean() for part in parts]),
        counts=np.array([len(part) for part in parts]),
    )


def arm_reliability(study: FinishedStudy, arm: str, labelled: int) -> Reliability | None:
    """Return an arm's reliability on the test cases, all replicates pooled; None without a prediction.

    Two classes: the probability of the second. More: the probability of the most probable class, and whether it is
    the true one.
    """
    predicted, happened = [], []
    for lines in _by_replicate(study, arm, labelled).values():
        scores, truth = probabilities(study, lines)
        if not len(truth):
            continue
        binary = scores.shape[1] == 2
        predicted.append(scores[:, 1] if binary else scores.max(axis=1))
        happened.append(truth == 1 if binary else scores.argmax(axis=1) == truth)
    return reliability(np.concatenate(predicted), np.concatenate(happened)) if predicted else None


@dataclass(frozen=True)
class Sweep:
    """Arms alike but for one number: ``probability`` or ``strength``.

    Attributes:
        title: the parts they share, and what else is fixed.
        parameter: what differs.
        arms: (value, arm's name), ascending.
    """

    title: str
    parameter: str
    arms: tuple[tuple[float, str], ...]


def sweeps(plan: Mapping[str, Any]) -> list[Sweep]:
    """Return the sweeps among a plan's arms: groups of two or more that differ in probability or strength alone."""
    found = []
    for parameter, fixed in (("probability", "strength"), ("strength", "probability")):
        groups: dict[tuple[Any, ...], list[tuple[float, str]]] = {}
        for arm in plan["arms"]:
            # What is tuned has no number of its own, and may have another in each block and fold.
            if arm.get("tuned"):
                continue
            # Without a generator part neither number means anything.
            if arm["generator"] is None and not {"duplicate", "random-deformation"} & set(arm["parts"]):
                continue
            alike = repr((arm["transforms"], arm.get("min_quality", 0.0)))
            key = (tuple(arm["parts"]), arm["generator"], alike, arm[fixed])
            groups.setdefault(key, []).append((float(arm[parameter]), str(arm["name"])))
        for (parts, generator, _, value), arms in groups.items():
            if len({number for number, _ in arms}) > 1:
                named = "+".join(parts) + (f" with {generator}" if generator else "")
                found.append(Sweep(f"{named}, {fixed} {value:g}", parameter, tuple(sorted(arms))))
    return found


def probabilities(study: FinishedStudy, lines: Sequence[ScoreLine]) -> tuple[Array, NDArray[np.int64]]:
    """Return ``(N, K)`` class probabilities and ``(N,)`` class indices of a run's test cases."""
    columns = {str(name): k for k, name in enumerate(study.plan["classes"])}
    truth = {s.case_id: columns[s.structure] for s in lines if s.metric == "true_class"}
    row = {case: i for i, case in enumerate(truth)}
    scores = np.full((len(truth), len(columns)), np.nan)
    for s in lines:
        if s.metric == "probability":
            scores[row[s.case_id], columns[s.structure]] = s.value
    return scores, np.array(list(truth.values()), dtype=np.int64)


def _by_replicate(study: FinishedStudy, arm: str, labelled: int) -> dict[Replicate, list[ScoreLine]]:
    return {
        Replicate(cell.fold, cell.seed): [line for line in study.scores[cell] if line.split == "test"]
        for cell in study.cells(arm, labelled)
    }


def _of_patients(study: FinishedStudy, lines: Sequence[ScoreLine]) -> dict[str, float]:
    """A patient's mean over cases, a case's over the structures it has."""
    cases: dict[tuple[str, str], list[float]] = {}
    if study.plan["task"] == "segmentation":
        for line in lines:
            if line.metric == study.plan["metric"] and math.isfinite(line.value):
                cases.setdefault((line.patient_id, line.case_id), []).append(line.value)
    else:
        true_class = {line.case_id: line.structure for line in lines if line.metric == "true_class"}
        for line in lines:
            if line.metric == "probability" and line.structure == true_class[line.case_id]:
                cases.setdefault((line.patient_id, line.case_id), []).append(line.value)
    patients: dict[str, list[float]] = {}
    for (patient, _), values in cases.items():
        patients.setdefault(patient, []).append(sum(values) / len(values))
    return {patient: sum(values) / len(values) for patient, values in patients.items()}
