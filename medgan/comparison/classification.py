"""What a classifier is worth in use: sensitivity and specificity at a threshold fixed beforehand, and calibration.

Everything is about one class: ``scores`` are its probabilities, ``truth`` says which cases are of it. With more than
two classes, ask once a class (one against the rest).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgan.comparison.statistics import Array, Interval

Truth = NDArray[np.bool_] | NDArray[np.int64]
# Probabilities this near to 0 and 1 are moved here: their logit would be infinite.
NEAREST = 1e-12
UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class OperatingFigures:
    """Sensitivity and specificity at ``threshold``, with Wilson intervals; NaN without a case of the kind."""

    threshold: float
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, eq=False)
class Reliability:
    """Points of a reliability curve, one a bin, in the order of the predicted probability.

    Attributes:
        predicted: ``(bins,)`` mean probability given.
        observed: ``(bins,)`` share of cases that are of the class.
        low: lower ends of the Wilson intervals of ``observed``.
        high: upper ends.
        cases: ``(bins,)`` how many cases are in the bin.
    """

    predicted: Array
    observed: Array
    low: Array
    high: Array
    cases: NDArray[np.int64]


@dataclass(frozen=True)
class CalibrationLine:
    """The logistic regression of the outcome on the logit; a calibrated model has slope 1 and intercept 0.

    A slope below 1 means probabilities too near to 0 and 1 (over-confidence).
    """

    slope: Interval
    intercept: Interval


def operating_point(validation_scores: Array, validation_truth: Truth, sensitivity: float = 0.9) -> float:
    """Return the highest threshold at which the validation cases reach a sensitivity.

    A case is called positive at or above the threshold. Choose it on validation cases and never on those of the test:
    a threshold fitted to the cases that it is judged on flatters the model.

    Args:
        validation_scores: ``(N,)`` probabilities of the class.
        validation_truth: ``(N,)`` whether each case is of the class.
        sensitivity: to be reached, above 0, at most 1.

    Returns:
        The threshold; NaN where no case is of the class.

    Raises:
        ValueError: ``sensitivity`` is out of range.
    """
    from sklearn.metrics import roc_curve

    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must be above 0 and at most 1, got {sensitivity}")
    positive = np.asarray(validation_truth, dtype=bool)
    if not positive.any():
        return math.nan
    with warnings.catch_warnings():
        # Without a negative case scikit-learn warns that there is no specificity; none is needed here.
        warnings.simplefilter("ignore")
        _, reached, thresholds = roc_curve(positive, validation_scores, drop_intermediate=False)
    return float(thresholds[np.argmax(reached >= sensitivity)])


def at_threshold(scores: Array, truth: Truth, threshold: float, level: float = 0.95) -> OperatingFigures:
    """Return sensitivity and specificity at a threshold, with Wilson score intervals (Wilson 1927).

    The intervals take cases as independent: with several cases a patient they are too narrow.

    Args:
        scores: ``(N,)`` probabilities of the class.
        truth: ``(N,)`` whether each case is of the class.
        threshold: cases at or above it are called positive; NaN gives NaN.
        level: coverage.
    """
    positive = np.asarray(truth, dtype=bool)
    called = np.asarray(scores) >= threshold
    if math.isnan(threshold):
        return OperatingFigures(threshold, UNKNOWN, UNKNOWN)
    found, spared = int((called & positive).sum()), int((~called & ~positive).sum())
    return OperatingFigures(
        threshold,
        _wilson(found, int(positive.sum()), level),
        _wilson(spared, int((~positive).sum()), level),
    )


def reliability(scores: Array, truth: Truth, bins: int = 10, level: float = 0.95) -> Reliability:
    """Return the points of the reliability curve.

    Bins hold equally many cases (their edges are quantiles of the scores), so that none rests on a handful. Equal
    scores share a bin; where they leave one empty, there are fewer points.

    Args:
        scores: ``(N,)`` probabilities of the class, N > 0.
        truth: ``(N,)`` whether each case is of the class.
        bins: how many, at most.
        level: coverage of the intervals.

    Raises:
        ValueError: no bins.
    """
    from statsmodels.stats.proportion import proportion_confint

    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    edges = np.quantile(scores, np.linspace(0, 1, bins + 1))
    of_case = np.searchsorted(edges[1:-1], scores)
    cases = np.bincount(of_case, minlength=bins)
    filled = cases > 0
    found = np.bincount(of_case, positive, bins)[filled]
    summed = np.bincount(of_case, scores, bins)[filled]
    cases = cases[filled]
    low, high = proportion_confint(found, cases, alpha=1 - level, method="wilson")
    return Reliability(summed / cases, found / cases, low, high, cases)


def expected_calibration_error(scores: Array, truth: Truth, bins: int = 10) -> float:
    """Return the mean distance of observed from predicted, over bins of equally many cases; 0 is calibrated.

    The estimate is of Naeini et al. (AAAI 2015) on the bins of :func:`reliability`. It is above 0 even for a calibrated
    model with few cases: compare it between arms on the same cases.

    Args:
        scores: ``(N,)`` probabilities of the class, N > 0.
        truth: ``(N,)`` whether each case is of the class.
        bins: how many, at most.

    Raises:
        ValueError: no bins.
    """
    points = reliability(scores, truth, bins)
    return float(np.average(np.abs(points.observed - points.predicted), weights=points.cases))


def calibration_line(scores: Array, truth: Truth, level: float = 0.95) -> CalibrationLine:
    """Return slope and intercept of the logistic regression of the outcome on the logit of the score (Cox 1958).

    Both are NaN where the regression has no finite answer: one class alone, one score for all, or scores that separate
    the classes perfectly.

    Args:
        scores: ``(N,)`` probabilities of the class; moved at least 1e-12 away from 0 and 1.
        truth: ``(N,)`` whether each case is of the class.
        level: coverage of the intervals (Wald).
    """
    import statsmodels.api as sm

    positive = np.asarray(truth, dtype=bool)
    bounded = np.clip(np.asarray(scores, dtype=np.float64), NEAREST, 1 - NEAREST)
    logits = np.log(bounded) - np.log1p(-bounded)
    if positive.all() or not positive.any() or _separated(logits, positive):
        return CalibrationLine(UNKNOWN, UNKNOWN)
    fit = sm.GLM(positive.astype(np.float64), sm.add_constant(logits), family=sm.families.Binomial()).fit()
    if not fit.converged:
        return CalibrationLine(UNKNOWN, UNKNOWN)
    (intercept, slope), limits = fit.params, fit.conf_int(alpha=1 - level)
    return CalibrationLine(
        slope=Interval(float(slope), float(limits[1, 0]), float(limits[1, 1])),
        intercept=Interval(float(intercept), float(limits[0, 0]), float(limits[0, 1])),
    )


def _separated(logits: Array, positive: NDArray[np.bool_]) -> bool:
    """Whether a threshold parts the classes, ties at it allowed: the likelihood then has no maximum (Albert 1984)."""
    yes, no = logits[positive], logits[~positive]
    return bool(yes.min() >= no.max() or yes.max() <= no.min())


def _wilson(count: int, of: int, level: float) -> Interval:
    from statsmodels.stats.proportion import proportion_confint

    if of == 0:
        return UNKNOWN
    low, high = proportion_confint(count, of, alpha=1 - level, method="wilson")
    return Interval(count / of, float(low), float(high))
