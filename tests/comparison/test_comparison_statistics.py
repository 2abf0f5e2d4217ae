from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medgan.comparison.statistics import (
    Interval,
    RunScores,
    WeightedMetric,
    holm,
    nadeau_bengio,
    resampled_mean,
    resampled_metric,
    sign_flip,
    verdict,
    weighted_auc,
    weighted_balanced_accuracy,
    wilcoxon,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bootstrap(table: np.ndarray, resamples: int, generator: np.random.Generator) -> Interval:
    return resampled_mean(table, resamples, generator).interval(0.95)


def metric_bootstrap(
    metric: WeightedMetric, runs: list[RunScores], baseline: list[RunScores] | None, *, resamples: int
) -> Interval:
    return resampled_metric(metric, runs, baseline, resamples=resamples, rng=rng()).interval(0.95)


def one_fold(scores: np.ndarray, truth: np.ndarray, patients: list[str]) -> list[RunScores]:
    """One run a seed of ``(seeds, N, K)`` scores."""
    return [RunScores(seed, 0, of_seed, truth, tuple(patients)) for seed, of_seed in enumerate(scores)]


def test_a_constant_difference_has_no_width() -> None:
    interval = bootstrap(np.full((3, 20), 0.25), 500, rng())
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))
    assert interval.excludes_zero


def test_one_seed_gives_the_textbook_interval_of_a_mean() -> None:
    values = rng(1).normal(1.0, 2.0, (1, 400))
    interval = bootstrap(values, 20000, rng())
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.02)


def test_seeds_that_disagree_widen_the_interval_however_many_patients_there_are() -> None:
    seed_effects = rng(2).normal(0, 1, (8, 1))
    interval = bootstrap(np.repeat(seed_effects, 500, axis=1), 20000, rng())
    expected = 2 * 1.96 * seed_effects.std() / np.sqrt(8)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.06)


def test_missing_values_are_left_out_of_the_mean() -> None:
    values = np.array([[1.0, np.nan, 3.0], [1.0, np.nan, np.nan]])
    interval = bootstrap(values, 500, rng())
    assert interval.mean == pytest.approx(5 / 3)
    assert 1 <= interval.low <= interval.high <= 3
    assert np.isnan(bootstrap(np.full((2, 2), np.nan), 100, rng()).mean)


def test_the_same_generator_gives_the_same_interval() -> None:
    values = rng(3).normal(size=(2, 9))
    assert bootstrap(values, 300, rng(7)) == bootstrap(values, 300, rng(7))


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_agree_with_scikit_learn(classes: int) -> None:
    truth = rng(4).integers(0, classes, 60)
    scores = rng(5).dirichlet(np.ones(classes), 60).round(2)
    scores[:, 0] = 1 - scores[:, 1:].sum(axis=1)
    every_case = np.ones((1, 60))
    expected = roc_auc_score(truth, scores[:, 1] if classes == 2 else scores, multi_class="ovr", average="macro")
    assert weighted_auc(scores, truth, every_case)[0] == pytest.approx(expected)
    expected = balanced_accuracy_score(truth, scores.argmax(axis=1))
    assert weighted_balanced_accuracy(scores, truth, every_case)[0] == pytest.approx(expected)


def test_weights_count_a_case_as_often_as_they_say() -> None:
    truth = np.array([0, 0, 1, 1, 1])
    p = np.array([0.2, 0.7, 0.6, 0.9, 0.1])
    scores, weights = np.stack([1 - p, p], axis=1), np.array([[1.0, 2, 0, 3, 1]])
    repeats = weights[0].astype(int)
    expected = roc_auc_score(truth.repeat(repeats), p.repeat(repeats))
    assert weighted_auc(scores, truth, weights)[0] == pytest.approx(expected)
    expected = balanced_accuracy_score(truth.repeat(repeats), (p > 0.5).astype(int).repeat(repeats))
    assert weighted_balanced_accuracy(scores, truth, weights)[0] == pytest.approx(expected)


def test_auc_of_one_class_alone_is_unknown() -> None:
    scores = np.array([[0.4, 0.6], [0.3, 0.7]])
    assert np.isnan(weighted_auc(scores, np.array([1, 1]), np.ones((1, 2)))[0])


def test_auc_bootstrap_width_matches_hanley_and_mcneil() -> None:
    positives, negatives = rng(6).normal(1.0, 1, 150), rng(7).normal(0, 1, 150)
    p = np.concatenate([positives, negatives])
    truth = np.array([1] * 150 + [0] * 150)
    scores = np.stack([-p, p], axis=1)[None]
    patients = [str(i) for i in range(300)]
    interval = metric_bootstrap(weighted_auc, one_fold(scores, truth, patients), None, resamples=3000)
    a = roc_auc_score(truth, p)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 149 * (q1 - a * a) + 149 * (q2 - a * a)) / 150**2)
    assert interval.mean == pytest.approx(a)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_an_arm_against_itself_has_no_difference_in_auc() -> None:
    scores = rng(8).dirichlet(np.ones(3), (2, 30))
    truth = rng(9).integers(0, 3, 30)
    runs = one_fold(scores, truth, [str(i) for i in range(30)])
    interval = metric_bootstrap(weighted_auc, runs, runs, resamples=200)
    assert interval == Interval(0.0, 0.0, 0.0)


def test_cases_of_one_patient_are_resampled_together() -> None:
    truth = np.array([0, 1] * 20)
    p = np.array([0.1, 0.9] * 20)
    scores = np.stack([1 - p, p], axis=1)[None]
    p_wrong = np.where(np.arange(40) < 20, p, 1 - p)
    wrong = np.stack([1 - p_wrong, p_wrong], axis=1)[None]
    two_patients = ["a"] * 20 + ["b"] * 20
    runs, others = (one_fold(given, truth, two_patients) for given in (wrong, scores))
    interval = metric_bootstrap(weighted_auc, runs, others, resamples=500)
    assert (interval.low, interval.high) == (-1.0, 0.0)


@pytest.mark.parametrize("seeds", [2, 5, 6, 10])
def test_seeds_that_all_agree_reach_the_smallest_exact_p(seeds: int) -> None:
    assert sign_flip(np.linspace(0.1, 0.2, seeds), rng()) == pytest.approx(2 / 2**seeds)


def test_sign_flip_of_symmetric_or_single_differences_is_one() -> None:
    assert sign_flip(np.array([-0.1, 0.1]), rng()) == pytest.approx(1.0)
    assert sign_flip(np.array([0.3]), rng()) == 1.0
    assert sign_flip(np.zeros(8), rng()) == 1.0


def test_wilcoxon_of_all_positive_ranks() -> None:
    # Of the 2**6 sign patterns only two are as extreme as six positive differences.
    assert wilcoxon(np.array([1.0, 2, 3, 4, 5, 6])) == pytest.approx(2 / 2**6)
    assert wilcoxon(np.array([1.0, 2, 3, np.nan, 4, 5, 6])) == pytest.approx(2 / 2**6)
    # W+ = 1 + 2 = 3 of ranks 1..6: 5 of 64 subsets have a sum of at most 3 (none, 1, 2, 3, 1 + 2).
    assert wilcoxon(np.array([1.0, 2, -3, -4, -5, -6])) == pytest.approx(2 * 5 / 2**6)


def test_wilcoxon_without_a_difference_is_one() -> None:
    assert wilcoxon(np.zeros(9)) == 1.0
    assert wilcoxon(np.array([np.nan, 0.0])) == 1.0
    assert wilcoxon(np.array([])) == 1.0


def test_nadeau_bengio_by_hand() -> None:
    # Mean 2, s² = 2.5, J = 5: (1/5 + 1/4) 2.5 = 1.125. Of 4 degrees of freedom, t(0.975) = 2.776.
    result = nadeau_bengio(np.array([0.0, 1, 2, 3, 4]), 0.25)
    assert result.t == pytest.approx(2 / np.sqrt(1.125))
    assert result.degrees == 4
    assert result.interval.low == pytest.approx(2 - 2.776445 * np.sqrt(1.125))
    assert result.interval.high == pytest.approx(2 + 2.776445 * np.sqrt(1.125))
    # P(|t| > x) with 4 degrees of freedom in closed form (Student 1908).
    share = result.t / np.sqrt(4 + result.t**2)
    assert result.p == pytest.approx(1 - share * (1 + (1 - share**2) / 2))


def test_nadeau_bengio_without_overlap_is_the_t_test() -> None:
    values = rng(10).normal(0.3, 1, 12)
    assert nadeau_bengio(values, 1e-12).p == pytest.approx(ttest_1samp(values, 0).pvalue)


def test_nadeau_bengio_of_differences_without_spread() -> None:
    assert nadeau_bengio(np.zeros(5), 0.25).p == 1.0
    assert nadeau_bengio(np.full(5, 0.25), 0.25).p == 0.0
    assert nadeau_bengio(np.array([0.25]), 0.25).p == 1.0
    assert np.isnan(nadeau_bengio(np.array([np.nan]), 0.25).interval.mean)
    with pytest.raises(ValueError, match="above 0, got 0"):
        nadeau_bengio(np.ones(3), 0)


def runs_of(scores: np.ndarray, truth: np.ndarray, folds: np.ndarray, patients: np.ndarray) -> list[RunScores]:
    """One run a seed and fold of ``(seeds, N, K)`` scores."""
    return [
        RunScores(seed, fold, of_seed[folds == fold], truth[folds == fold], tuple(patients[folds == fold]))
        for fold in np.unique(folds)
        for seed, of_seed in enumerate(scores)
    ]


def test_the_mean_over_folds_is_that_of_each_fold_alone() -> None:
    scores, truth = rng(13).dirichlet(np.ones(2), (3, 40)), np.arange(40) % 2
    folds = np.arange(40) // 8
    runs = runs_of(scores, truth, folds, np.arange(40).astype(str))
    alone = [roc_auc_score(run.truth, run.scores[:, 1]) for run in runs]
    found = metric_bootstrap(weighted_auc, runs, None, resamples=50)
    assert found.mean == pytest.approx(np.mean(alone))
    assert found.low < found.mean < found.high


def test_a_linear_metric_in_folds_has_the_interval_of_all_patients_together() -> None:
    # Accuracy in equal folds is nearly a mean over all patients, whose standard error is known.
    scores, truth = rng(14).dirichlet(np.ones(2), (1, 400)), rng(15).integers(0, 2, 400)

    def accuracy(s: np.ndarray, t: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return weights @ (s.argmax(axis=1) == t) / weights.sum(axis=1)

    runs = runs_of(scores, truth, np.arange(400) % 5, np.arange(400).astype(str))
    found = metric_bootstrap(accuracy, runs, None, resamples=8000)
    error = np.sqrt(found.mean * (1 - found.mean) / 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_a_fold_that_lost_a_class_is_left_out_of_the_resample() -> None:
    # The second fold has one positive: most resamples keep it, the others rest on the first fold alone.
    scores = np.array([[[0.8, 0.2], [0.2, 0.8], [0.4, 0.6], [0.6, 0.4]]])
    truth, folds = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    runs = runs_of(scores, truth, folds, np.array(list("abcd")))
    found = metric_bootstrap(weighted_auc, runs, None, resamples=400)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_arms_that_are_no_pairs_are_refused() -> None:
    scores, truth = rng(16).dirichlet(np.ones(2), (2, 6)), np.array([0, 1] * 3)
    runs = runs_of(scores, truth, np.zeros(6, int), np.array(list("abcdef")))
    with pytest.raises(ValueError, match="differ in seeds"):
        metric_bootstrap(weighted_auc, runs, runs[::-1], resamples=10)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_verdict_says_gain_only_where_the_interval_and_the_test_allow_it() -> None:
    above, across, below = Interval(0.02, 0.01, 0.03), Interval(0.02, -0.01, 0.05), Interval(-0.02, -0.03, -0.01)
    assert verdict(above, 0.01, 10) == "gain"
    assert verdict(above, 0.2, 10) == "no gain shown"
    assert verdict(across, 0.01, 10) == "no gain shown"
    assert verdict(below, 0.01, 10) == "loss"
    assert verdict(below, 0.01, 10, higher_is_better=False) == "gain"
    assert verdict(above, 0.05, 10) == "no gain shown"


def test_a_gain_must_reach_the_margin_and_a_loss_need_not() -> None:
    above, below = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01)
    assert verdict(above, 0.01, 10, margin=0.02) == "gain"
    assert verdict(above, 0.01, 10, margin=0.021) == "no gain shown"
    assert verdict(below, 0.01, 10, margin=0.5) == "loss"
    assert verdict(below, 0.01, 10, margin=0.02, higher_is_better=False) == "gain"
    assert verdict(below, 0.01, 10, margin=0.03, higher_is_better=False) == "no gain shown"
    assert verdict(above, 0.01, 10, margin=0.5, higher_is_better=False) == "loss"


@pytest.mark.parametrize("difference", [Interval(0.5, 0.4, 0.6), Interval(-0.5, -0.6, -0.4), Interval(0, -1, 1)])
def test_there_is_no_verdict_under_six_seeds(difference: Interval) -> None:
    assert verdict(difference, 0.0, 5) == "exploratory: no verdict under 6 seeds"
    assert "exploratory" not in verdict(difference, 0.0, 6)
