"""From the finished runs to the summary: each arm's mean, and its difference to the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from medgan.comparison.results import Array, RunRecord, patient_table, probability_table
from medgan.comparison.scoring import Task
from medgan.comparison.statistics import (
    Interval,
    WeightedMetric,
    holm,
    paired_bootstrap,
    paired_metric_bootstrap,
    sign_flip,
    verdict,
    weighted_auc,
    weighted_balanced_accuracy,
)
from medgan.seeding import numpy_generator

# Metric and whether more of it is better; the first of each task is the primary one.
METRICS: Mapping[str, Mapping[str, bool]] = {
    "segmentation": {"dice": True, "hd95": False},
    "classification": {"auc": True, "balanced_accuracy": True, "brier": False},
}
OF_THE_SET: Mapping[str, WeightedMetric] = {"auc": weighted_auc, "balanced_accuracy": weighted_balanced_accuracy}
Runs = Mapping[str, Sequence[RunRecord]]


@dataclass(frozen=True)
class SummaryRow:
    """One arm and metric; differences, p values and verdict are empty (NaN) for the baseline itself.

    ``p`` is of the exact sign-flip test over seeds, ``p_holm`` adjusted for the number of arms; ``missing`` counts the
    case × structure figures that no mean includes because the truth lacks the structure (per seed).
    """

    arm: str
    metric: str
    mean: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    p_holm: float
    verdict: str
    seeds: int
    patients: int
    missing: int
    seconds: float


COLUMNS = [f.name for f in fields(SummaryRow)]


def summarise(runs: Runs, baseline: str, task: Task, resamples: int, seed: int) -> list[SummaryRow]:
    """Return a row for each metric and arm.

    Args:
        runs: each arm's finished runs, in the order of the seeds.
        baseline: arm to subtract.
        task: which metrics there are.
        resamples: of the bootstrap.
        seed: of the resampling.
    """
    rows: list[SummaryRow] = []
    for metric, higher_is_better in METRICS[task.kind].items():
        interval_of = partial(_interval, metric=metric, task=task, resamples=resamples, seed=seed)
        others = [arm for arm in runs if arm != baseline]
        differences = {arm: interval_of(runs[arm], runs[baseline]) for arm in others}
        p_values = [
            sign_flip(
                _of_seeds(runs[arm], metric) - _of_seeds(runs[baseline], metric), numpy_generator(seed, "flip", arm)
            )
            for arm in others
        ]
        p = dict(zip(others, p_values, strict=True))
        p_holm = dict(zip(others, holm(p_values), strict=True))
        for arm, records in runs.items():
            own = interval_of(records, None)
            difference = differences.get(arm, Interval(math.nan, math.nan, math.nan))
            seeds = len(records)
            words = ""
            if arm != baseline:
                words = verdict(difference, p_holm[arm], seeds, higher_is_better=higher_is_better)
            rows.append(
                SummaryRow(
                    arm=arm,
                    metric=metric,
                    mean=own.mean,
                    low=own.low,
                    high=own.high,
                    difference=difference.mean,
                    difference_low=difference.low,
                    difference_high=difference.high,
                    p=p.get(arm, math.nan),
                    p_holm=p_holm.get(arm, math.nan),
                    verdict=words,
                    seeds=seeds,
                    patients=len({s.patient_id for s in records[0].scores if s.split == "test"}),
                    missing=sum(
                        s.split == "test" and s.metric == metric and math.isnan(s.value) for s in records[0].scores
                    ),
                    seconds=sum(r.seconds for r in records) / seeds,
                )
            )
    return rows


def patient_differences(runs: Runs, arm: str, baseline: str, task: Task) -> Array:
    """Return each test patient's difference to the baseline, ``(patients,)``, averaged over the seeds.

    Dice for segmentation; for classification, where a single patient has no AUC, the probability of the true class.
    """
    if task.kind == "segmentation":
        own, other = (patient_table(runs[name], "dice")[0] for name in (arm, baseline))
        return _mean_of_seeds(own - other)
    own, other = (_true_probability(runs[name], task) for name in (arm, baseline))
    return _mean_of_seeds(own - other)


def _interval(
    records: Sequence[RunRecord],
    baseline: Sequence[RunRecord] | None,
    *,
    metric: str,
    task: Task,
    resamples: int,
    seed: int,
) -> Interval:
    # The same resamples of patients and seeds for every arm and metric.
    rng = numpy_generator(seed, "bootstrap")
    if metric in OF_THE_SET:
        scores, truth, patients = probability_table(records, task.class_names)
        other = None if baseline is None else probability_table(baseline, task.class_names)[0]
        return paired_metric_bootstrap(OF_THE_SET[metric], scores, other, truth, patients, resamples=resamples, rng=rng)
    table = patient_table(records, metric)[0]
    if baseline is not None:
        table = table - patient_table(baseline, metric)[0]
    return paired_bootstrap(table, resamples, rng)


def _of_seeds(records: Sequence[RunRecord], metric: str) -> Array:
    return np.array([record.headline[metric] for record in records])


def _true_probability(records: Sequence[RunRecord], task: Task) -> Array:
    scores, truth, patients = probability_table(records, task.class_names)
    of_cases = np.take_along_axis(scores, truth[None, :, None], axis=2)[..., 0]
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    return np.stack([of_cases[:, index == i].mean(axis=1) for i in range(len(names))], axis=1)


def _mean_of_seeds(table: Array) -> Array:
    known = np.isfinite(table).any(axis=0)
    mean: Array = np.nanmean(table[:, known], axis=0)
    return mean
