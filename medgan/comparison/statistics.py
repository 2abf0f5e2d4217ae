"""What a difference between two arms is worth: bootstrap over patients and seeds, tests, Holm, a verdict.

Patients and seeds are crossed (every seed sees every test patient), so both are resampled, independently of each other
(Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). In cross-validation each patient is tested in one
fold, by every seed. Everything here takes arrays and a NumPy generator and knows nothing of files, arms or networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Below this, flipping signs has too few patterns: 2 / 2**5 > 0.05 two-sided.
SEEDS_FOR_A_VERDICT = 6
# The level of Holm's p below which a verdict may be more than "no gain shown".
ALPHA = 0.05
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


@dataclass(frozen=True, eq=False)
class Resampled:
    """A figure of the study as it was, ``mean``, and of each resample, ``values`` ``(R,)``; NaN where there was none.

    With the same generator, ``values[r]`` of two arms with the same seeds and patients is of the same draw.
    """

    mean: float
    values: Array

    def interval(self, level: float = 0.95) -> Interval:
        """Return the mean with the resamples' percentiles."""
        known = self.values[np.isfinite(self.values)]
        if not len(known):
            return Interval(self.mean, np.nan, np.nan)
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return Interval(self.mean, float(low), float(high))


@dataclass(frozen=True)
class Corrected:
    """A corrected resampled t-test: ``t``, its two-sided ``p``, the mean's ``interval``, ``degrees`` of freedom."""

    t: float
    p: float
    interval: Interval
    degrees: int


@dataclass(frozen=True, eq=False)
class RunScores:
    """What one run (one arm, seed and fold) gave for its N test cases.

    Attributes:
        seed: of the initialisation and the order of the data.
        fold: of the cross-validation; 0 where there is one split.
        scores: ``(N, K)`` class probabilities.
        truth: ``(N,)`` class indices.
        patients: ``(N,)`` who each case is of.
    """

    seed: int
    fold: int
    scores: Array
    truth: NDArray[np.int64]
    patients: tuple[str, ...]


def resampled_mean(table: Array, resamples: int, rng: np.random.Generator) -> Resampled:
    """Return the mean of one arm's values, or of paired differences, resampling patients and (if several) seeds.

    Args:
        table: ``(seeds, patients)``; NaN (a structure the patient lacks) is left out.
        resamples: how many.
        rng: source of the resampling.
    """
    table = np.asarray(table, dtype=np.float64)
    known = np.isfinite(table)
    if not known.any():
        return Resampled(np.nan, np.full(resamples, np.nan))
    seeds = draw_counts(table.shape[0], resamples, rng)
    patients = draw_counts(table.shape[1], resamples, rng)
    totals = np.einsum("rs,sp,rp->r", seeds, np.where(known, table, 0.0), patients, optimize=True)
    counts = np.einsum("rs,sp,rp->r", seeds, known.astype(np.float64), patients, optimize=True)
    means = np.divide(totals, counts, out=np.full(resamples, np.nan), where=counts > 0)
    return Resampled(float(table[known].mean()), means)


def resampled_metric(
    metric: WeightedMetric,
    runs: Sequence[RunScores],
    baseline: Sequence[RunScores] | None,
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Resampled:
    """Return the metric of each run, averaged over a seed's folds and then over the seeds, and its resamples.

    Patients are resampled over the union of all folds and seeds over all of theirs: a patient, or a seed, counts
    equally often wherever it occurs. A fold in which a resample lacks all but one class is left out of that resample.

    Args:
        metric: see :data:`WeightedMetric`.
        runs: an arm's runs, one for each seed and fold.
        baseline: the runs to subtract, of the same seeds, folds and cases in the same order; ``None`` for the metric
            itself.
        resamples: how many.
        rng: source of the resampling.

    Raises:
        ValueError: ``runs`` and ``baseline`` are not pairs.
    """
    if baseline is not None and [_tested(run) for run in baseline] != [_tested(run) for run in runs]:
        raise ValueError("the two arms' runs differ in seeds, folds, patients or true classes")
    names = np.unique(np.concatenate([np.asarray(run.patients) for run in runs]))
    seeds, seed_of_run = np.unique([run.seed for run in runs], return_inverse=True)
    drawn_seeds = draw_counts(len(seeds), resamples, rng)
    # The first row is the study as it was: everybody once.
    drawn_patients = np.vstack([np.ones(len(names)), draw_counts(len(names), resamples, rng)])
    values = np.empty((len(runs), resamples + 1))
    for i, run in enumerate(runs):
        weights = drawn_patients[:, np.searchsorted(names, np.asarray(run.patients))]
        values[i] = metric(run.scores, run.truth, weights)
        if baseline is not None:
            values[i] -= metric(baseline[i].scores, run.truth, weights)
    of_seeds = np.stack([_mean_of_known(values[seed_of_run == i]) for i in range(len(seeds))])
    resampled = np.einsum("rs,sr->r", drawn_seeds, of_seeds[:, 1:]) / len(seeds)
    return Resampled(float(of_seeds[:, 0].mean()), resampled)


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


def wilcoxon(differences: Array) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 where no difference is left to rank.

    Args:
        differences: ``(patients,)``, one mean difference a patient; NaN is left out.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(stats.wilcoxon(values).pvalue) if values.any() else 1.0


def nadeau_bengio(differences: Array, test_to_train: float, level: float = 0.95) -> Corrected:
    """Return the corrected resampled t-test of repeated cross-validation.

    Runs that share training patients are not independent, so the variance of the mean of J differences is taken as
    ``(1/J + test_to_train) s²`` instead of ``s²/J``, with J − 1 degrees of freedom (Nadeau & Bengio, "Inference for the
    generalization error", Machine Learning 52, 2003). Differences without any spread are either no difference (p = 1)
    or beyond what the test can weigh (p = 0).

    Args:
        differences: ``(J,)``, one difference a fold and seed; NaN is left out.
        test_to_train: cases tested for each case trained on, 0.25 in five folds.
        level: coverage of the interval.

    Raises:
        ValueError: ``test_to_train`` is not above 0.
    """
    from scipy import stats

    if not test_to_train > 0:
        raise ValueError(f"test_to_train must be above 0, got {test_to_train}")
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    degrees = max(len(values) - 1, 0)
    mean = float(values.mean()) if len(values) else np.nan
    if degrees == 0:
        return Corrected(np.nan, 1.0, Interval(mean, np.nan, np.nan), degrees)
    error = float(np.sqrt((1 / len(values) + test_to_train) * values.var(ddof=1)))
    without_spread = float(np.copysign(np.inf, mean)) if mean else 0.0
    t = mean / error if error > 0 else without_spread
    half_width = float(stats.t.ppf((1 + level) / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(t), degrees))
    return Corrected(t, p, Interval(mean, mean - half_width, mean + half_width), degrees)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for having asked several times (Holm 1979), in the order given."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def verdict(
    difference: Interval, p_holm: float, seeds: int, *, higher_is_better: bool = True, margin: float = 0.0
) -> str:
    """Say in words what the difference to the baseline shows.

    "gain" and "loss" only where the interval excludes 0 and Holm's p is below 0.05; a gain must reach the margin too.
    Below six seeds the test cannot reach 0.05 and there is no verdict at all.

    Args:
        difference: to the baseline.
        p_holm: adjusted for the number of arms.
        seeds: independent replicates: seeds, or folds × seeds in cross-validation.
        higher_is_better: whether more of the metric is better.
        margin: the smallest difference worth having, in units of the metric.
    """
    if seeds < SEEDS_FOR_A_VERDICT:
        return f"exploratory: no verdict under {SEEDS_FOR_A_VERDICT} seeds"
    if not difference.excludes_zero or not p_holm < ALPHA:
        return "no gain shown"
    improvement = difference.mean if higher_is_better else -difference.mean
    if improvement < 0:
        return "loss"
    return "gain" if improvement >= margin else "no gain shown"


def draw_counts(items: int, resamples: int, rng: np.random.Generator) -> Array:
    """Return ``(resamples, items)``: how often each item was drawn with replacement."""
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def _tested(run: RunScores) -> tuple[int, int, tuple[str, ...], list[int]]:
    """Whatever must be the same in two arms' runs for their difference to be one of pairs."""
    return run.seed, run.fold, tuple(run.patients), run.truth.tolist()


def _mean_of_known(rows: Array) -> Array:
    """Mean over the first axis without NaN; NaN where nothing is left."""
    known = np.isfinite(rows)
    counts = known.sum(axis=0)
    mean: Array = np.full(rows.shape[1], np.nan)
    np.divide(np.where(known, rows, 0.0).sum(axis=0), counts, out=mean, where=counts > 0)
    return mean
