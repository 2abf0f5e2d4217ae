"""The figures of a study, and how each one is made of the runs' records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medgan.comparison.classification import operating_point
from medgan.comparison.results import Array, RunRecord, run_scores
from medgan.comparison.scoring import Task
from medgan.comparison.statistics import RunScores, WeightedMetric, weighted_auc, weighted_balanced_accuracy

# Metric and whether more of it is better; the first of each task is the primary one.
METRICS: Mapping[str, Mapping[str, bool]] = {
    "segmentation": {"dice": True, "hd95": False, "assd": False},
    "classification": {
        "auc": True, "balanced_accuracy": True, "sensitivity": True, "specificity": True, "brier": False, "ece": False,
    },
}  # fmt: skip
BINS = 10


@dataclass(frozen=True)
class SetMetric:
    """A figure that only a set of cases has.

    Attributes:
        measure: of scores, truth and weights.
        prepare: what it is a function of, made of each run: the probabilities themselves, or decisions.
    """

    measure: WeightedMetric
    prepare: Callable[[RunRecord, str], RunScores]


def set_metric(metric: str, task: Task, structure: str, sensitivity: float) -> SetMetric | None:
    """Return how a metric of the set is computed, ``None`` for one that every case has.

    Args:
        metric: of :data:`METRICS`.
        task: names of the classes.
        structure: for sensitivity and specificity, the class that counts as positive.
        sensitivity: that the operating point reaches on the validation cases.
    """

    def probabilities(record: RunRecord, split: str) -> RunScores:
        return run_scores(record, task.class_names, split)

    measures: Mapping[str, WeightedMetric] = {
        "auc": weighted_auc,
        "balanced_accuracy": weighted_balanced_accuracy,
        "ece": weighted_ece,
    }
    if metric in measures:
        return SetMetric(measures[metric], probabilities)
    if metric not in ("sensitivity", "specificity"):
        return None
    positive = task.class_names.index(structure)

    def decisions(record: RunRecord, split: str) -> RunScores:
        known, tested = (run_scores(record, task.class_names, part) for part in ("validation", split))
        # The threshold is of this run's validation cases; the test has no say.
        threshold = operating_point(known.scores[:, positive], known.truth == positive, sensitivity)
        called = np.where(tested.scores[:, [positive]] >= threshold, 1.0, 0.0)
        called = np.full_like(called, np.nan) if math.isnan(threshold) else called
        return replace(tested, scores=called, truth=(tested.truth == positive).astype(np.int64))

    return SetMetric(weighted_sensitivity if metric == "sensitivity" else weighted_specificity, decisions)


def weighted_sensitivity(called: Array, truth: NDArray[np.int64], weights: Array) -> Array:
    """Return the share of positive cases that were called, under each row of weights; NaN without one."""
    return _share(called[:, 0], truth == 1, weights)


def weighted_specificity(called: Array, truth: NDArray[np.int64], weights: Array) -> Array:
    """Return the share of other cases that were not called, under each row of weights; NaN without one."""
    return _share(1 - called[:, 0], truth == 0, weights)


def weighted_ece(scores: Array, truth: NDArray[np.int64], weights: Array) -> Array:
    """Return the expected calibration error under each row of weights.

    Bins of equal mass (their edges are quantiles of the unweighted scores), the probability of the second class for two
    classes, else the highest probability against being right (Naeini et al. 2015, Guo et al. 2017).
    """
    if scores.shape[1] == 2:
        confidence, right = scores[:, 1], (truth == 1).astype(np.float64)
    else:
        confidence, right = scores.max(axis=1), (scores.argmax(axis=1) == truth).astype(np.float64)
    edges = np.quantile(confidence, np.linspace(0, 1, min(BINS, len(confidence)) + 1)[1:-1])
    bins = np.searchsorted(edges, confidence, side="right")
    gaps = np.stack([weights[:, bins == b] @ (right - confidence)[bins == b] for b in np.unique(bins)])
    result: Array = np.abs(gaps).sum(axis=0) / weights.sum(axis=1)
    return result


def positive_classes(task: Task) -> Sequence[str]:
    """Return the classes that sensitivity and specificity are told of: the second of two, or each of several."""
    return task.class_names[1:] if len(task.class_names) == 2 else task.class_names


def _share(hit: Array, of: NDArray[np.bool_], weights: Array) -> Array:
    total = weights[:, of].sum(axis=1)
    share: Array = np.divide(weights[:, of] @ hit[of], total, out=np.full(len(weights), np.nan), where=total > 0)
    return share
