from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from medgan.comparison.power import (
    detectable_difference,
    metric_table,
    seeds_needed,
    simulate_errors,
    variance_components,
)
from medgan.comparison.simulation import simulate_verdicts
from medgan.comparison.statistics import RunScores, weighted_auc


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def effects(
    draw: np.random.Generator, arms: int = 1, *, seeds: int = 10, patients: int = 30, spread: tuple[float, ...]
) -> np.ndarray:
    """``(arms, seeds, patients)`` crossed random effects of the given spread of seeds, patients and the rest."""
    of_seeds, of_patients, rest = spread
    return (
        draw.normal(0, of_seeds, (arms, seeds, 1))
        + draw.normal(0, of_patients, (arms, 1, patients))
        + draw.normal(0, rest, (arms, seeds, patients))
    )


def test_seeds_needed_by_hand() -> None:
    # 2/2**6 = 0.031; 2 · 2/2**6 = 0.063 and 2 · 2/2**7 = 0.031; 3 · 2/2**7 = 0.047; 4 · 2/2**7 = 0.063.
    assert [seeds_needed(m) for m in (1, 2, 3, 4, 6, 7)] == [6, 7, 7, 8, 8, 9]


def test_variance_components_by_hand() -> None:
    # Mean squares: seeds 3 · (1 + 1) / 1 = 6, patients 2 · (1 + 0 + 1) / 2 = 2, rest 4 · 0.25 / 2 = 0.5.
    table = np.array([[-1.0], [1.0]]) + np.array([[-1.0, 0.0, 1.0]])
    table += np.array([[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0]])
    components = variance_components(table)
    assert components.residual == pytest.approx(np.sqrt(0.5))
    assert components.seed == pytest.approx(np.sqrt((6 - 0.5) / 3))
    assert components.patient == pytest.approx(np.sqrt((2 - 0.5) / 2))


def test_known_variance_components_are_recovered() -> None:
    components = variance_components(effects(rng(1), seeds=400, patients=400, spread=(0.3, 0.5, 0.8))[0])
    assert (components.seed, components.patient, components.residual) == pytest.approx((0.3, 0.5, 0.8), rel=0.1)


def test_patients_with_a_missing_value_are_left_out() -> None:
    table = effects(rng(2), spread=(1, 1, 1))[0]
    missing = table.copy()
    missing[3, 4] = np.nan
    assert variance_components(missing) == variance_components(np.delete(table, 4, axis=1))


@pytest.mark.parametrize(("seeds", "comparisons", "least"), [(5, 1, 6), (6, 3, 7), (7, 4, 8)])
def test_too_few_seeds_find_nothing_however_large(seeds: int, comparisons: int, least: int) -> None:
    table = effects(rng(3), seeds=seeds, spread=(0.01, 0.01, 0.01))[0]
    found = detectable_difference(table, comparisons=comparisons, rng=rng())
    assert found.difference is None
    assert found.seeds_needed == least
    assert f"at least {least} seeds" in found.words
    # The rule itself: a difference a thousand times the spread is not called a gain, in none of the studies.
    words = simulate_verdicts(
        lambda: np.stack([table + 10, *[table - table.mean()] * (comparisons - 1)]), 2, resamples=100, rng=rng()
    )
    assert all(of_study[0] != "gain" for of_study in words)


def test_differences_without_spread_are_found_from_the_margin_on() -> None:
    table = np.full((8, 20), 0.1)
    assert detectable_difference(table, comparisons=1, rng=rng()).difference == pytest.approx(0)
    assert detectable_difference(table, comparisons=1, rng=rng(), margin=0.02).difference == pytest.approx(0.02)


def test_one_patient_has_no_spread() -> None:
    found = detectable_difference(np.ones((8, 1)), comparisons=1, rng=rng())
    assert found.difference is None
    assert "1 patients" in found.words


def test_six_seeds_must_all_be_on_one_side() -> None:
    # Seeds alone vary, so the sign-flip test decides: P(all six seeds above 0) = Φ(Δ/σ)**6 = 0.8 at Δ = 1.79 σ.
    draw = rng(4)
    table = draw.normal(0, 1, (6, 1)) + np.zeros((6, 10))
    sigma = variance_components(table).seed
    found = detectable_difference(table, comparisons=1, rng=draw, studies=20000, resamples=200)
    assert found.difference == pytest.approx(1.794 * sigma, rel=0.03)


@pytest.mark.parametrize("comparisons", [1, 3])
def test_the_rule_finds_the_detectable_difference_as_often_as_promised(comparisons: int) -> None:
    draw = rng(5)
    table = effects(draw, spread=(0.01, 0.02, 0.05))[0]
    detectable = detectable_difference(table, comparisons=comparisons, rng=draw, resamples=400)
    components = detectable.components
    spread = (components.seed, components.patient, components.residual)
    planted = np.zeros((comparisons, 1, 1))
    planted[0] = detectable.difference
    words = simulate_verdicts(lambda: effects(draw, comparisons, spread=spread) + planted, 400, resamples=400, rng=draw)
    gains = sum(of_study[0] == "gain" for of_study in words)
    # 80 ± 5 %, with the chance of 400 studies.
    assert binom.ppf(0.001, 400, 0.75) <= gains <= binom.ppf(0.999, 400, 0.85)


def recorded() -> tuple[np.ndarray, np.ndarray]:
    """An arm's scores and paired differences as Dice are: bounded, skewed, and patients that vary unequally."""
    draw = rng(6)
    hard = draw.beta(2, 8, 25)
    noise = draw.standard_t(5, (3, 10, 25)) * (0.01 + 0.15 * hard)
    scores = 1 - hard + draw.normal(0, 0.01, (10, 1)) + noise[0]
    return scores, draw.normal(0, 0.008, (10, 1)) + noise[1] - noise[2]


@pytest.mark.parametrize("comparisons", [1, 3])
def test_arms_alike_gain_in_at_most_five_of_a_hundred_studies(comparisons: int) -> None:
    errors = simulate_errors(*recorded(), comparisons=comparisons, rng=rng(7), studies=300, resamples=400)
    assert errors.false_gain.mean * 300 <= binom.ppf(0.99, 300, 0.05)
    assert errors.found is not None
    assert binom.ppf(0.001, 300, 0.75) <= errors.found.mean * 300 <= binom.ppf(0.999, 300, 0.85)


def test_arms_that_differ_by_patient_need_the_interval_adjusted_for_their_number() -> None:
    # No difference on average, but patients who gain and patients who lose: every seed agrees on a chance imbalance, so
    # only the interval guards, and Holm does not reach it.
    gains = {}
    for level in (0.95, 1 - 0.05 / 6):
        six_arms = partial(effects, rng(10), 6, spread=(0.005, 0.03, 0.02))
        words = simulate_verdicts(six_arms, 300, resamples=1000, rng=rng(11), level=level)
        gains[level] = sum("gain" in of_study for of_study in words)
    assert gains[0.95] > binom.ppf(0.99, 300, 0.05)
    assert gains[1 - 0.05 / 6] <= binom.ppf(0.99, 300, 0.05)


def test_pseudo_values_of_the_auc_have_its_mean_and_delongs_variance() -> None:
    truth = rng(12).integers(0, 2, 120)
    p = rng(13).normal(truth, 1)
    run = RunScores(0, 0, np.stack([-p, p], axis=1), truth, tuple(map(str, range(120))))
    table = metric_table(weighted_auc, [run])
    assert table.shape == (1, 120)
    assert table.mean() == pytest.approx(roc_auc_score(truth, p), abs=1e-3)
    above = (p[truth == 1][:, None] > p[truth == 0][None, :]).astype(float)
    delong = above.mean(axis=1).var(ddof=1) / above.shape[0] + above.mean(axis=0).var(ddof=1) / above.shape[1]
    assert table.var(ddof=1) / 120 == pytest.approx(delong, rel=0.03)


def test_a_patient_without_whom_a_class_is_lost_has_no_pseudo_value() -> None:
    run = RunScores(0, 0, np.array([[0.1, 0.9], [0.6, 0.4], [0.7, 0.3]]), np.array([1, 0, 0]), ("a", "b", "c"))
    table = metric_table(weighted_auc, [run])
    assert np.isnan(table[0]).tolist() == [True, False, False]


def test_too_little_to_simulate_from_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 9\)"):
        simulate_errors(np.ones((1, 9)), np.ones((8, 9)), comparisons=1, rng=rng())
