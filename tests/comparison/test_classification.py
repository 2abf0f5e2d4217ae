from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from medgan.comparison.classification import (
    at_threshold,
    calibration_line,
    expected_calibration_error,
    operating_point,
    reliability,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(cases: int, seed: int, over_confidence: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and outcomes of a model whose logits are ``over_confidence`` times the true ones."""
    logits = rng(seed).normal(0, 1.5, cases)
    truth = rng(seed + 1).random(cases) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-over_confidence * logits)), truth


def test_the_operating_point_is_the_highest_threshold_that_finds_enough() -> None:
    scores = np.linspace(0.1, 1.0, 10).round(1)
    everybody = np.ones(10, bool)
    assert operating_point(scores, everybody, 0.9) == 0.2
    assert operating_point(scores, everybody, 0.91) == 0.1
    assert operating_point(scores, everybody, 0.1) == 1.0
    assert operating_point(scores, scores > 0.5, 0.8) == 0.7
    assert operating_point(np.array([0.5, 0.5, 0.2]), np.array([1, 1, 0])) == 0.5


def test_the_operating_point_reaches_its_sensitivity_where_it_was_fixed() -> None:
    scores, truth = drawn(200, 0)
    threshold = operating_point(scores, truth, 0.85)
    assert at_threshold(scores, truth, threshold).sensitivity.mean >= 0.85
    assert at_threshold(scores, truth, np.nextafter(threshold, 1)).sensitivity.mean < 0.85


def test_no_positive_case_has_no_operating_point() -> None:
    threshold = operating_point(np.array([0.3, 0.4]), np.array([0, 0]))
    assert math.isnan(threshold)
    assert math.isnan(at_threshold(np.array([0.3]), np.array([1]), threshold).sensitivity.mean)
    with pytest.raises(ValueError, match="got 0"):
        operating_point(np.array([0.3]), np.array([1]), 0)


def test_sensitivity_and_specificity_with_the_published_wilson_interval() -> None:
    # Newcombe, Statistics in Medicine 1998, table I, Wilson without correction: 81/263, 15/148.
    truth = np.repeat([True, False], [263, 148])
    scores = np.concatenate([np.repeat([0.9, 0.1], [81, 182]), np.repeat([0.1, 0.9], [15, 133])])
    figures = at_threshold(scores, truth, 0.5)
    assert (figures.sensitivity.low, figures.sensitivity.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (figures.specificity.low, figures.specificity.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert figures.sensitivity.mean == pytest.approx(81 / 263)


def test_specificity_without_a_negative_case_is_unknown() -> None:
    figures = at_threshold(np.array([0.6, 0.7]), np.array([1, 1]), 0.65)
    assert figures.sensitivity.mean == 0.5
    assert math.isnan(figures.specificity.mean)


def test_reliability_agrees_with_scikit_learn() -> None:
    scores, truth = drawn(300, 2)
    points = reliability(scores, truth, 8)
    observed, predicted = calibration_curve(truth, scores, n_bins=8, strategy="quantile")
    assert points.observed == pytest.approx(observed)
    assert points.predicted == pytest.approx(predicted)
    assert points.cases.sum() == 300
    assert np.ptp(points.cases) <= 1
    assert (points.low <= points.observed).all()
    assert (points.observed <= points.high).all()


def test_calibration_error_by_hand() -> None:
    # Two bins of four: 0.25 predicted and 0.5 observed, 0.75 predicted and 1 observed.
    scores = np.repeat([0.25, 0.75], 4)
    assert expected_calibration_error(scores, np.array([0, 1, 0, 1, 1, 1, 1, 1]), 2) == pytest.approx(0.25)
    assert expected_calibration_error(scores, np.array([0, 1, 0, 0, 1, 1, 0, 1]), 2) == pytest.approx(0.0)


def test_equal_scores_share_a_bin_whatever_the_order_of_the_cases() -> None:
    scores, truth = np.full(9, 0.4), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    assert expected_calibration_error(scores, truth) == pytest.approx(0.4 - 1 / 3)
    assert len(reliability(scores, truth).cases) == 1


def test_calibration_error_vanishes_with_many_cases_only_if_calibrated() -> None:
    assert expected_calibration_error(*drawn(40000, 4)) < 0.012
    assert expected_calibration_error(*drawn(40000, 4, over_confidence=3)) > 0.08


@pytest.mark.parametrize("over_confidence", [1.0, 2.0])
def test_the_slope_recovers_a_known_over_confidence(over_confidence: float) -> None:
    line = calibration_line(*drawn(20000, 6, over_confidence))
    assert line.slope.mean == pytest.approx(1 / over_confidence, rel=0.05)
    assert line.intercept.mean == pytest.approx(0, abs=0.06)
    assert line.slope.low < 1 / over_confidence < line.slope.high


def test_the_line_agrees_with_scikit_learn() -> None:
    scores, truth = drawn(150, 8, 1.7)
    line = calibration_line(scores, truth)
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(scores / (1 - scores))[:, None], truth)
    assert line.slope.mean == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    assert line.intercept.mean == pytest.approx(fit.intercept_[0], abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]),
        ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1]),
        ([0.1, 0.5, 0.7], [1, 1, 1]),
        ([0.4, 0.4, 0.4], [1, 0, 1]),
        ([0.0, 0.0, 1.0], [0, 0, 1]),
    ],
)
def test_a_line_without_a_finite_answer_is_unknown(scores: list[float], truth: list[int]) -> None:
    line = calibration_line(np.array(scores), np.array(truth))
    assert math.isnan(line.slope.mean)
    assert math.isnan(line.intercept.high)


def test_scores_of_exactly_0_and_1_have_a_line_if_some_are_wrong() -> None:
    line = calibration_line(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1]))
    assert line.slope.mean == pytest.approx(0, abs=1e-6)
