"""The task, figures of single cases by MONAI's metrics, the headline made of them, and patients' differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medgan.comparison.results import Array, RunRecord, Score, Split, patient_table, run_scores
from medgan.comparison.statistics import weighted_auc, weighted_balanced_accuracy
from medgan.config import Config
from medgan.data.cohort import Case, Cohort
from medgan.errors import InputFault


@dataclass(frozen=True)
class Task:
    """What the downstream model is to find.

    Attributes:
        kind: ``segmentation`` or ``classification``.
        structures: names of the label values, background left out (segmentation).
        label_values: the values in the label maps, in the same order (segmentation).
        class_names: classes in index order (classification).
        spacing: mm of a grid voxel along R, A, S, where the grid has a fixed one; distances are in voxels without.
    """

    kind: Literal["segmentation", "classification"]
    structures: tuple[str, ...] = ()
    label_values: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None

    @property
    def outputs(self) -> int:
        """Channels the network gives: background and structures, or classes."""
        return len(self.structures) + 1 if self.kind == "segmentation" else len(self.class_names)

    @property
    def metric(self) -> str:
        """The primary metric, the one the verdict is about."""
        return "dice" if self.kind == "segmentation" else "auc"

    def is_usable(self, case: Case) -> bool:
        """Return whether a case has the label map or the class that the task needs."""
        return case.label is not None if self.kind == "segmentation" else case.class_name in self.class_names

    def compact(self, label: Tensor) -> Tensor:
        """Return a label map with the structures numbered 1, 2, ...; any other value becomes background."""
        compact = torch.zeros_like(label)
        for index, value in enumerate(self.label_values, start=1):
            compact[label == value] = index
        return compact


def make_task(config: Config, cohort: Cohort) -> Task:
    """Return what the downstream model is to find: the cohort's labels or classes.

    Raises:
        InputFault: the cohort has no structure, or fewer than two classes.
    """
    # Only a grid of fixed spacing has millimetres; a stretched one has its own in every case.
    spacing = config.study_grid.spacing if config.study_grid.fit == "crop" else None
    if config.compare.task == "classification":
        if len(cohort.class_names) < 2:
            reason = f"{len(cohort.class_names)} classes are known, at least 2 are needed"
            raise InputFault(cohort.source, "NO_CLASSES", reason, "set data.class_key to the manifest's class column")
        return Task("classification", class_names=tuple(cohort.class_names), spacing=spacing)
    names = {value: name for value, name in cohort.label_names.items() if value != 0}
    if not names:
        reason = "there are no label maps, or they hold background alone"
        raise InputFault(cohort.source, "NO_STRUCTURE", reason, "add label maps, or set compare.task=classification")
    values = tuple(sorted(names))
    return Task("segmentation", tuple(names[v] for v in values), values, spacing=spacing)


def segmentation_scores(
    logits: Tensor, labels: Tensor, cases: Sequence[Case], task: Task, split: Split, *, distances: bool
) -> list[Score]:
    """Return Dice, and where asked two distances between the surfaces, of each case and structure.

    The distances are the 95th percentile Hausdorff distance (``hd95``) and the average symmetric surface distance
    (``assd``), in mm where the grid's spacing is fixed and in voxels otherwise. A structure that the truth lacks is
    NaN. One that the truth has and the prediction lacks has Dice 0 and, as its distances, the diagonal of the grid: a
    model may not gain by predicting nothing.

    Args:
        logits: ``(N, 1 + structures, D, H, W)``.
        labels: ``(N, 1, D, H, W)`` compact label maps.
        cases: the N cases.
        task: names, values and spacing.
        split: what the cases are kept for.
        distances: compute the distances too (slower).
    """
    from monai.metrics import DiceMetric, compute_average_surface_distance, compute_hausdorff_distance
    from monai.networks.utils import one_hot

    predicted = one_hot(logits.argmax(dim=1, keepdim=True), task.outputs)
    truth = one_hot(labels, task.outputs)
    values = {
        "dice": DiceMetric(include_background=False, reduction="none", num_classes=task.outputs)(predicted, truth)
    }
    if distances:
        spacing = list(task.spacing or (1.0, 1.0, 1.0))
        spatial = tuple(range(2, truth.ndim))
        missing = (predicted[:, 1:].sum(dim=spatial) == 0) & (truth[:, 1:].sum(dim=spatial) > 0)
        absent = truth[:, 1:].sum(dim=spatial) == 0
        diagonal = math.dist((0, 0, 0), [n * s for n, s in zip(truth.shape[2:], spacing, strict=True)])
        # MONAI warns of every empty structure; what becomes of those is decided here.
        measured = {
            "hd95": _quietly(compute_hausdorff_distance, predicted, truth, percentile=95, spacing=spacing),
            "assd": _quietly(compute_average_surface_distance, predicted, truth, symmetric=True, spacing=spacing),
        }
        for name, distance in measured.items():
            bounded = torch.where(missing, torch.full_like(distance, diagonal), distance)
            values[name] = torch.where(absent, torch.full_like(distance, math.nan), bounded)
    return [
        Score(case.case_id, case.patient_id, split, metric, structure, float(value))
        for metric, table in values.items()
        for case, row in zip(cases, table.cpu(), strict=True)
        for structure, value in zip(task.structures, row, strict=True)
    ]


def classification_scores(
    logits: Tensor, classes: Sequence[int], cases: Sequence[Case], task: Task, split: Split
) -> list[Score]:
    """Return each case's class probabilities, its true class, and its Brier score (0 is perfect, 2 the worst).

    Args:
        logits: ``(N, K)``.
        classes: N class indices.
        cases: the N cases.
        task: the class names.
        split: what the cases are kept for.
    """
    probabilities = torch.softmax(logits.double(), dim=1).cpu().numpy()
    scores: list[Score] = []
    for case, row, index in zip(cases, probabilities, classes, strict=True):
        brier = float(((row - np.eye(len(row))[index]) ** 2).sum())
        figures = [("probability", name, float(p)) for name, p in zip(task.class_names, row, strict=True)]
        figures += [("true_class", task.class_names[index], 1.0), ("brier", "", brier)]
        scores += [Score(case.case_id, case.patient_id, split, *figure) for figure in figures]
    return scores


def headline(scores: Sequence[Score], task: Task, split: Split) -> dict[str, float]:
    """Return the figures of one run on one split: means over patients, or AUC and balanced accuracy over the cases."""
    run = RunRecord("", "", 0, 0, 0, scores=tuple(scores))
    if not any(s.split == split for s in scores):
        return {}
    if task.kind == "segmentation":
        figures = {}
        for metric in sorted({s.metric for s in scores if s.split == split}):
            figures[metric] = _mean(patient_table([run], metric, split)[0])
            if len(task.structures) > 1:
                for structure in task.structures:
                    figures[f"{metric}/{structure}"] = _mean(patient_table([run], metric, split, structure)[0])
        return figures
    of_run = run_scores(run, task.class_names, split)
    every_case = np.ones((1, len(of_run.truth)))
    return {
        "auc": float(weighted_auc(of_run.scores, of_run.truth, every_case)[0]),
        "balanced_accuracy": float(weighted_balanced_accuracy(of_run.scores, of_run.truth, every_case)[0]),
        "brier": _mean(patient_table([run], "brier", split)[0]),
    }


def patient_differences(
    own: Sequence[RunRecord], other: Sequence[RunRecord], task: Task, split: str, metric: str, structure: str = ""
) -> Array:
    """Return each patient's difference to the baseline, ``(patients,)``, averaged over the seeds.

    Of the metric itself where every case has it; else, as a single patient has no AUC, of the probability of the true
    class.
    """
    if task.kind == "segmentation" or metric == "brier":
        tables = [patient_table(runs, metric, split, structure or None)[0] for runs in (own, other)]
    else:
        tables = [_true_probability(runs, task, split) for runs in (own, other)]
    difference = tables[0] - tables[1]
    known = np.isfinite(difference).any(axis=0)
    mean: Array = np.nanmean(difference[:, known], axis=0)
    return mean


def _true_probability(records: Sequence[RunRecord], task: Task, split: str) -> Array:
    """Return ``(seeds, patients)`` probabilities of the true class."""
    runs = [run_scores(record, task.class_names, split) for record in records]
    names = sorted({patient for run in runs for patient in run.patients})
    column = {name: i for i, name in enumerate(names)}
    seeds = sorted({run.seed for run in runs})
    total, count = np.zeros((len(seeds), len(names))), np.zeros((len(seeds), len(names)))
    for run in runs:
        right = np.take_along_axis(run.scores, run.truth[:, None], axis=1)[:, 0]
        at = seeds.index(run.seed), np.array([column[patient] for patient in run.patients], dtype=np.int64)
        np.add.at(total[at[0]], at[1], right)
        np.add.at(count[at[0]], at[1], 1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _mean(table: np.ndarray) -> float:
    known = table[np.isfinite(table)]
    return float(known.mean()) if len(known) else math.nan


def _quietly(function: object, *args: object, **kwargs: object) -> Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: Tensor = function(*args, **kwargs)  # type: ignore[operator]
    return result
