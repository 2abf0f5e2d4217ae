"""What was tried for arms on validation cases, and what was chosen, in figures and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medgan.comparison.design import tuned_in
from medgan.comparison.report.finished import FinishedStudy
from medgan.comparison.report.words import listed, metric_name, plural

LEAD = (
    "How these arms replace samples was chosen by the validation cases, before anything was tested: every one was "
    "trained with each of the values below, on the cases that it trains with in the study, and took those with the "
    "best mean; of equals the first. The figures below chose, so they are too good to be quoted as results."
)


NAMES = {"probability": "the share of samples replaced", "strength": "the strength"}


@dataclass(frozen=True)
class Tried:
    """Values that were tried for an arm.

    Attributes:
        arm, fold: for which arm, and in which fold.
        probability, strength: the values.
        mean, low, high: the metric on the validation cases: mean, lowest and highest of the trainings; NaN where one
            failed.
        trainings: how many.
        chosen: whether the arm took them.
    """

    arm: str
    fold: int
    probability: float
    strength: float
    mean: float
    low: float
    high: float
    trainings: int
    chosen: bool


def tried(study: FinishedStudy, labelled: int) -> list[Tried]:
    """Return what was tried in a block, arm by arm and fold by fold, in the order of trying."""
    groups: dict[tuple[str, int, float, float], list[tuple[float, bool]]] = {}
    for trial in study.trials:
        if trial.labelled == labelled:
            key = trial.arm, trial.fold, trial.probability, trial.strength
            groups.setdefault(key, []).append((trial.value, trial.chosen))
    order = {arm: i for i, arm in enumerate(study.arms)}
    found = []
    for (arm, fold, probability, strength), outcomes in groups.items():
        values = [value for value, _ in outcomes]
        # Each of them or none: a mean of fewer seeds is no match for one of all.
        ends = (fmean(values), min(values), max(values)) if all(map(math.isfinite, values)) else (math.nan,) * 3
        found.append(Tried(arm, fold, probability, strength, *ends, len(values), any(c for _, c in outcomes)))
    return sorted(found, key=lambda row: (order.get(row.arm, len(order)), row.fold))


def varied(rows: Sequence[Tried]) -> list[str]:
    """Return which of probability and strength differ among what was tried."""
    return [p for p in ("probability", "strength") if len({getattr(row, p) for row in rows}) > 1]


def chosen_words(rows: Sequence[Tried]) -> str:
    """Return what each arm took, in words; in cross-validation with its folds."""
    several = len({row.fold for row in rows}) > 1
    taken: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        if row.chosen:
            values = f"{row.probability * 100:g} % of samples at strength {row.strength:g}"
            taken.setdefault(row.arm, {}).setdefault(values, []).append(row.fold)
    words = []
    for arm, values_of in taken.items():
        in_folds = [
            f"{values} ({plural(len(folds), 'fold')})" if several else values for values, folds in values_of.items()
        ]
        words.append(f"{arm} took {listed(in_folds)}")
    return "; ".join(words)


def tuning_methods(study: FinishedStudy) -> str:
    """How arms were tuned, for the methods; empty where none was."""
    if not study.trials:
        return ""
    plan: Mapping[str, Any] = study.plan
    metric, trainings = metric_name(plan, plan["metric"]), plural(int(plan["compare"]["tune"]["seeds"]), "training")
    arms = [
        f"{arm['name']} {listed([NAMES[parameter] for parameter in tuned_in(arm)])} (among {len(arm['tuned'])})"
        for arm in plan["arms"]
        if tuned_in(arm)
    ]
    return (
        f"Chosen were, for {'; for '.join(arms)}: by the mean {metric} on the validation cases of {trainings} with "
        "each of the values. No test case was looked at."
    )


def doses(arm: Mapping[str, Any]) -> list[str]:
    """Return how many samples an arm of the plan replaces and how strongly, in words."""
    parts, tuned, words = set(arm["parts"]), tuned_in(arm), []
    if {"gan", "identity", "random-deformation", "duplicate"} & parts:
        share = f"{arm['probability'] * 100:g} % of samples"
        words.append("share of samples tuned" if "probability" in tuned else share)
    if {"gan", "random-deformation"} & parts:
        words.append("strength tuned" if "strength" in tuned else f"strength {arm['strength']:g}")
    return words
