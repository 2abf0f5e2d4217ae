from __future__ import annotations

import numpy as np
import pytest

from medgan.comparison.simulation import (
    bootstrap_means,
    holm_of_rows,
    seed_subsets,
    share,
    sign_flips,
    simulate_verdicts,
)
from medgan.comparison.statistics import holm, resampled_mean, sign_flip, verdict


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_many_bootstraps_at_once_are_the_bootstrap_of_each() -> None:
    studies = rng(1).normal(0.1, 1, (3, 7, 20))
    means = bootstrap_means(studies, 500, rng(2))
    for study, resampled in zip(studies, means, strict=True):
        expected = resampled_mean(study, 500, rng(2)).interval(0.95)
        assert tuple(np.quantile(resampled, [0.025, 0.975])) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("seeds", [2, 6, 9])
def test_many_sign_flips_at_once_are_the_test_of_each(seeds: int) -> None:
    means = np.vstack([rng(3).normal(0.3, 1, (12, seeds)), np.zeros(seeds), np.ones(seeds)])
    expected = [sign_flip(row, rng()) for row in means]
    assert sign_flips(means, seed_subsets(seeds, rng())) == pytest.approx(expected)


def test_sign_flips_of_many_seeds_are_near_the_test_of_as_many_random_patterns() -> None:
    means = rng(4).normal(0.4, 1, (5, 16))
    expected = [sign_flip(row, rng(5)) for row in means]
    assert sign_flips(means, seed_subsets(16, rng(6))) == pytest.approx(expected, abs=0.03)


def test_holm_of_rows_is_holm_of_each() -> None:
    p_values = rng(7).random((5, 4)) ** 3
    assert holm_of_rows(p_values) == pytest.approx(np.array([holm(list(row)) for row in p_values]))


def test_simulated_verdicts_are_those_of_the_rule_for_one_study() -> None:
    tables = rng(8).normal(0, 0.01, (2, 8, 12)) + np.array([0.02, 0.0])[:, None, None]
    p_values = holm([sign_flip(table.mean(axis=1), rng()) for table in tables])
    expected = [
        verdict(resampled_mean(t, 400, rng()).interval(0.95), p, 8) for t, p in zip(tables, p_values, strict=True)
    ]
    assert simulate_verdicts(lambda: tables, 3, resamples=400, rng=rng()) == [expected] * 3
    assert expected[0] == "gain"


def test_a_share_comes_with_wilsons_interval() -> None:
    # Newcombe, Statistics in Medicine 1998, table I: 15/148.
    found = share(15, 148)
    assert (found.low, found.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
