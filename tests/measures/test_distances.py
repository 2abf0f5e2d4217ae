from __future__ import annotations

import numpy as np
import pytest

from medgan.measures.distances import (
    correlations,
    frechet_distance,
    kernel_distance,
    pairwise_spread,
    prdc,
)


def gaussian(count: int, features: int = 4, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, features)) + shift


def test_kernel_distance_of_a_case_by_hand() -> None:
    # One feature, k(a, b) = (ab + 1)^3: within x k(0, 1) = 1, within y k(1, 2) = 27, across 1, 1, 8, 27.
    x, y = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel_distance(x, y) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


@pytest.mark.parametrize("kernel", ["polynomial", "rbf"])
def test_kernel_distance_is_unbiased_around_zero_for_one_distribution(kernel: str) -> None:
    values = [kernel_distance(gaussian(20, seed=2 * i), gaussian(20, seed=2 * i + 1), kernel) for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize("kernel", ["polynomial", "rbf"])
def test_kernel_distance_grows_with_the_shift(kernel: str) -> None:
    near, far = (kernel_distance(gaussian(60), gaussian(60, shift=s, seed=1), kernel) for s in (0.5, 2.0))
    assert 0.01 < near < far


def test_frechet_distance_of_a_set_to_itself_is_zero() -> None:
    assert frechet_distance(gaussian(50), gaussian(50)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_shifted_sets_is_the_squared_shift() -> None:
    x = gaussian(40)
    assert frechet_distance(x, x + np.array([3.0, 0, 4.0, 0])) == pytest.approx(25)


def test_frechet_distance_of_scaled_sets_has_its_closed_form() -> None:
    x = gaussian(40)
    x -= x.mean(axis=0)
    trace = np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(x, 3 * x, shrink=False) == pytest.approx(trace * (3 - 1) ** 2)


def test_shrinkage_lets_the_frechet_distance_bear_few_samples() -> None:
    few = [gaussian(6, features=40, seed=i) for i in range(2)]
    large = frechet_distance(*(gaussian(4000, features=40, seed=i) for i in (2, 3)))
    assert abs(frechet_distance(*few) - large) < 0.5 * abs(frechet_distance(*few, shrink=False) - large)


def test_prdc_of_identical_sets_is_perfect() -> None:
    x = gaussian(30)
    result = prdc(x, x, k=3)
    assert result["precision"] == result["recall"] == result["coverage"] == 1
    assert result["density"] > 1


def test_prdc_of_sets_far_apart_is_zero() -> None:
    assert prdc(gaussian(30), gaussian(30, shift=100), k=3) == dict.fromkeys(
        ("precision", "recall", "density", "coverage"), 0.0
    )


def test_prdc_of_a_case_by_hand() -> None:
    # Radii of the real balls 1, 1, 1, 8, of the fake ones 0.1, 0.1, 29.4.
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    fake = np.array([[0.5], [0.6], [30.0]])
    result = prdc(real, fake, k=1)
    assert result["precision"] == pytest.approx(2 / 3)
    assert result["density"] == pytest.approx((2 + 2 + 0) / 3)
    assert result["coverage"] == pytest.approx(2 / 4)
    assert result["recall"] == pytest.approx(3 / 4)


def test_collapsed_fakes_are_precise_but_cover_little() -> None:
    real = gaussian(60)
    fake = np.zeros((60, 4)) + gaussian(60, seed=1) * 1e-3
    result = prdc(real, fake, k=5)
    assert result["precision"] == 1
    assert result["recall"] < 0.1
    assert result["coverage"] < 0.7


def test_best_correlation_finds_the_planted_copy_despite_scale_and_offset() -> None:
    references = gaussian(7, features=500).reshape(7, 5, 10, 10)
    planted = 3 * references[[4, 0]] - 20
    found = correlations(planted, references)
    assert found.max(axis=1) == pytest.approx(1)
    assert found.argmax(axis=1).tolist() == [4, 0]


def test_constant_volume_correlates_with_nothing() -> None:
    assert correlations(np.full((1, 50), 0.3), gaussian(3, features=50)).tolist() == [[0.0, 0.0, 0.0]]


def test_spread_is_the_mean_rms_difference_of_pairs() -> None:
    items = np.stack([np.full((2, 3), value) for value in (0.0, 1.0, 3.0)])
    assert pairwise_spread(items) == pytest.approx((1 + 2 + 3) / 3)
    assert pairwise_spread(items[:1]) == 0
    assert pairwise_spread(np.ones((4, 2, 3))) == 0


def test_sets_that_do_not_fit_are_refused_with_their_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\) and \(5, 3\)"):
        frechet_distance(gaussian(5), gaussian(5, features=3))
    with pytest.raises(ValueError, match="at least 6 samples each, got 6 and 5"):
        prdc(gaussian(6), gaussian(5), k=5)
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(gaussian(5), np.full((5, 4), np.nan))
    with pytest.raises(ValueError, match="kernel must be"):
        kernel_distance(gaussian(5), gaussian(5), "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must match"):
        correlations(np.zeros((2, 5)), np.zeros((2, 6)))
