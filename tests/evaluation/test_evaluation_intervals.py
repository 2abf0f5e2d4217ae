from __future__ import annotations

import numpy as np
import pytest

from medgan.evaluation.intervals import centred_figure, distribution, draw_patients, mean_figure


def test_all_rows_of_a_patient_are_drawn_together() -> None:
    patients = ["a", "a", "b", "c", "c", "c"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = np.bincount(draw_patients(patients, rng), minlength=6)
        assert counts[0] == counts[1]
        assert counts[3] == counts[4] == counts[5]
        assert counts[0] + counts[2] + counts[3] == 3


def test_the_interval_of_a_mean_has_the_width_theory_gives() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    figure = mean_figure(values, [str(i) for i in range(400)], seed=0, resamples=1000)
    assert figure["value"] == pytest.approx(values.mean())
    assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_rows_of_one_patient_do_not_narrow_the_interval() -> None:
    means = np.random.default_rng(0).normal(0, 1, 30)
    once = mean_figure(means, [str(i) for i in range(30)], seed=0)
    patients = [str(i) for i in range(30) for _ in range(10)]
    tenfold = mean_figure(np.repeat(means, 10), patients, seed=0)
    assert tenfold["high"] - tenfold["low"] == pytest.approx(once["high"] - once["low"], rel=0.25)


def test_replicates_beside_the_estimate_give_an_interval_around_it() -> None:
    figure = centred_figure(1.0, np.linspace(4.0, 6.0, 1001))
    assert figure["low"] == pytest.approx(0.05, abs=0.01)
    assert figure["high"] == pytest.approx(1.95, abs=0.01)
    assert centred_figure(1.0, np.linspace(0.0, 10.0, 101), least=0.0)["low"] == 0


def test_a_distribution_counts_numbers_only() -> None:
    assert distribution(np.array([1.0, np.nan, 3.0])) == {
        "count": 2, "min": 1.0, "p5": pytest.approx(1.1), "median": 2.0, "p95": pytest.approx(2.9), "max": 3.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="finite"):
        distribution(np.array([np.nan]))
