from __future__ import annotations

import math

import numpy as np
import pytest

from medgan.comparison.classification import operating_point


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
    assert (scores[truth] >= threshold).mean() >= 0.85
    assert (scores[truth] >= np.nextafter(threshold, 1)).mean() < 0.85


def test_no_positive_case_has_no_operating_point() -> None:
    assert math.isnan(operating_point(np.array([0.3, 0.4]), np.array([0, 0])))
    with pytest.raises(ValueError, match="got 0"):
        operating_point(np.array([0.3]), np.array([1]), 0)
