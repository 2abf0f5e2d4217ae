"""What a difference between two arms is worth: bootstrap over patients and seeds, sign-flip test, Holm, a verdict.

Patients and seeds are crossed (every seed sees every test patient), so both are resampled, independently of each other
(Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). Everything here takes arrays and a NumPy
generator and knows nothing of files, arms or networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Below this, flipping signs has too few patterns: 2 / 2**5 > 0.05 two-sided.
SEEDS_FOR_A_VERDICT = 6
# Above 2**13 sign patterns as many are drawn at random instead of all being tried.
MAX_SIGN_PATTERNS = 8192

# (scores (N, K), truth (N,), weights (R, N)) -> the metric under each row of weights, (R,)
WeightedMetric = Callable[[Array, NDArray[np.int64], Array], Array]


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval; NaN where there was nothing to average."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(difference: Array, resamples: int, rng: np.random.Generator, level: float = 0.95) -> Interval:
    """Return the mean of ``difference`` with a percentile interval, resampling patients and seeds.

    Works as well for one arm's own values. With a single seed only the patients vary.

    Args:
        difference: ``(seeds, patients)``; NaN (a structure the patient lacks) is left out.
        resamples: how many.
        rng: source of the resampling.
        level: coverage.
    """
    difference = np.asarray(difference, dtype=np.float64)
    known = np.isfinite(difference)
    if not known.any():
        return Interval(np.nan, np.nan, np.nan)
    seeds = _draw(difference.shape[0], resamples, rng)
    patients = _draw(difference.shape[1], resamples, rng)
    totals = np.einsum("rs,sp,rp->r", seeds, np.where(known, difference, 0.0), patients, optimize=True)
    counts = np.einsum("rs,sp,rp->r", seeds, known.astype(np.float64), patients, optimize=True)
    means = np.divide(totals, counts, out=np.full(resamples, np.nan), where=counts > 0)
    return _interval(float(difference[known].mean()), means, level)


def paired_metric_bootstrap(
    metric: WeightedMetric,
    scores: Array,
    baseline: Array | None,
    truth: NDArray[np.int64],
    patients: Sequence[str],
    *,
    resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Interval:
    """The same for a metric of the whole test set, such as the AUC, computed anew in every resample and for every seed.

    A resample that lacks all but one class has no AUC and is left out.

    Args:
        metric: see :data:`WeightedMetric`.
        scores: ``(seeds, N, K)`` class probabilities of N cases.
        baseline: the same of the arm to subtract; ``None`` for the metric itself.
        truth: ``(N,)`` class indices.
        patients: ``(N,)`` who each case is of; a patient is resampled with all cases.
        resamples: how many.
        rng: source of the resampling.
        level: coverage.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    seeds = _draw(scores.shape[0], resamples, rng)
    weights = _draw(len(names), resamples, rng)[:, index]
    every_case = np.ones((1, len(index)))

    def of_seeds(rows: Array) -> Array:
        values = np.stack([metric(s, truth, rows) for s in scores])
        if baseline is not None:
            values = values - np.stack([metric(s, truth, rows) for s in baseline])
        return values

    resampled = np.einsum("rs,sr->r", seeds, of_seeds(weights)) / scores.shape[0]
    return _interval(float(of_seeds(every_case).mean()), resampled, level)


def weighted_auc(scores: Array, truth: NDArray[np.int64], weights: Array) -> Array:
    """Return the area under the ROC curve, macro mean of one class against the rest for three classes or more.

    Classes without a case (or without any other) under a row of weights are left out of that row's mean; NaN if that
    leaves none. With equal weights this is scikit-learn's ``roc_auc_score(..., multi_class="ovr")``.

    Args:
        scores: ``(N, K)`` class probabilities.
        truth: ``(N,)`` class indices.
        weights: ``(R, N)`` how often each case counts.
    """
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = []
    for column in columns:
        positive = truth == column
        above = scores[positive, column][:, None] - scores[~positive, column][None, :]
        wins = (above > 0) + 0.5 * (above == 0)
        won = ((weights[:, positive] @ wins) * weights[:, ~positive]).sum(axis=1)
        pairs = weights[:, positive].sum(axis=1) * weights[:, ~positive].sum(axis=1)
        areas.append(np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
    return _mean_of_known(np.stack(areas))


def weighted_balanced_accuracy(scores: Array, truth: NDArray[np.int64], weights: Array) -> Array:
    """Return the mean recall of the classes present, deciding for the most probable class. See :func:`weighted_auc`."""
    right = (scores.argmax(axis=1) == truth).astype(np.float64)
    recalls = []
    for label in range(scores.shape[1]):
        of_class = (truth == label).astype(np.float64)
        total = weights @ of_class
        recalls.append(
            np.divide(weights @ (right * of_class), total, out=np.full(len(weights), np.nan), where=total > 0)
        )
    return _mean_of_known(np.stack(recalls))


def sign_flip(differences: Array, rng: np.random.Generator) -> float:
    """Return the two-sided p of the paired differences' mean under flips of their signs, exact up to 13 seeds.

    Args:
        differences: ``(seeds,)``, one mean difference a seed.
        rng: draws sign patterns where there are too many to try them all.
    """
    from scipy.stats import permutation_test

    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    # Also two arms that agree to the last digit: whatever the flips, nothing is as unlikely as that.
    if len(values) < 2 or not values.any():
        return 1.0
    result = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=MAX_SIGN_PATTERNS, vectorized=True, rng=rng
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for having asked several times (Holm 1979), in the order given."""
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def verdict(difference: Interval, p_holm: float, seeds: int, *, higher_is_better: bool = True) -> str:
    """Say in words what the difference to the baseline shows.

    "gain" and "loss" only where the interval excludes 0 and, from six seeds on, Holm's p is below 0.05. With fewer
    seeds the test cannot reach 0.05, so the words are marked exploratory.
    """
    exploratory = seeds < SEEDS_FOR_A_VERDICT
    if not difference.excludes_zero or (not exploratory and p_holm >= 0.05):
        words = "no gain shown"
    else:
        words = "gain" if (difference.mean > 0) == higher_is_better else "loss"
    return f"{words} (exploratory)" if exploratory else words


def _draw(items: int, resamples: int, rng: np.random.Generator) -> Array:
    """Return ``(resamples, items)``: how often each item was drawn with replacement."""
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def _interval(mean: float, resampled: Array, level: float) -> Interval:
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return Interval(mean, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _mean_of_known(rows: Array) -> Array:
    """Mean over the first axis without NaN; NaN where nothing is left."""
    known = np.isfinite(rows)
    counts = known.sum(axis=0)
    mean: Array = np.full(rows.shape[1], np.nan)
    np.divide(np.where(known, rows, 0.0).sum(axis=0), counts, out=mean, where=counts > 0)
    return mean
