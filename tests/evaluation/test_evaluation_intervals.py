from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medgan.evaluation.intervals import (
    centred_figure,
    distribution,
    draw_patients,
    drawn_figures,
    halved_figures,
    mean_figure,
)


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


@pytest.mark.parametrize("figures", [drawn_figures, halved_figures])
def test_the_interval_of_a_difference_of_two_groups_has_the_width_theory_gives(figures: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(5, 1, 201), rng.normal(4, 1, 100)  # one that halves and one that does not
    names = [str(i) for i in range(201)], [str(i) for i in range(100)]
    figure = figures(lambda rows, others: {"d": a[rows].mean() - b[others].mean()}, *names, seed=0)["d"]
    assert figure["value"] == pytest.approx(a.mean() - b.mean())
    assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * np.hypot(0.071, 0.1), rel=0.2)


def test_figures_of_one_draw_are_paired() -> None:
    a = np.random.default_rng(0).normal(size=50)
    names = [str(i) for i in range(50)]
    figures = drawn_figures(
        lambda rows, _: {"a": a[rows].mean(), "none": a[rows].mean() - a[rows].mean()}, names, names, 0
    )
    assert figures["none"] == {"value": 0, "low": 0, "high": 0}
    assert figures["a"]["low"] < figures["a"]["high"]


def test_the_interval_of_halves_stays_within_the_bounds_of_the_figure() -> None:
    a = np.random.default_rng(0).normal(5, 1, 201)
    names = [str(i) for i in range(201)]
    bounded = halved_figures(lambda rows, _: {"d": a[rows].mean()}, names, names, seed=0, bounds=(4.99, 5.01))["d"]
    assert (bounded["low"], bounded["high"]) == (4.99, 5.01)


def test_halves_need_three_patients_and_hold_whole_ones() -> None:
    patients = ["a", "a", "b", "c", "c", "d"]
    sizes: set[int] = set()

    def seen(rows: np.ndarray, others: np.ndarray) -> dict[str, float]:
        assert len(rows) == 6 or len({patients[i] for i in rows}) == 2
        sizes.add(len(rows))
        return {"n": float(len(others))}

    halved_figures(seen, patients, patients, seed=0)
    assert sizes == {2, 3, 4, 6}
    with pytest.raises(ValueError, match="at least 3 patients"):
        halved_figures(seen, ["a", "b", "b"], patients, seed=0)
