from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from medgan.comparison.gap import gap_closed
from medgan.comparison.simulation import share, simulate_gaps
from medgan.comparison.statistics import Interval, Resampled, resampled_mean

SEEDS, PATIENTS = 8, 30


def table(mean: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Figures ``(seeds, patients)`` with what patients have in common, and an arm's own noise."""
    common = np.random.default_rng(99).normal(0, 0.05, PATIENTS)
    return mean + common + noise * np.random.default_rng(seed).normal(0, 1, (SEEDS, PATIENTS))


def resampled(values: np.ndarray) -> Resampled:
    return resampled_mean(values, 500, np.random.default_rng(5))


def numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


BEST, LOWER, CEILING = resampled(table(0.8)), resampled(table(0.75)), resampled(table(0.9))


@pytest.mark.parametrize("share_closed", [-0.5, 0.0, 0.5, 1.0, 1.5])
def test_without_noise_the_share_is_what_it_is(share_closed: float) -> None:
    gap = gap_closed(resampled(table(0.8 + 0.1 * share_closed)), [LOWER, BEST], CEILING)
    assert gap.best == 1
    assert numbers(gap.closed) == pytest.approx((share_closed,) * 3)
    assert numbers(gap.difference) == pytest.approx((0.1 * share_closed,) * 3)
    assert numbers(gap.room) == pytest.approx((0.1,) * 3)


def test_the_best_control_itself_closes_nothing_and_the_reference_itself_everything() -> None:
    best, ceiling = resampled(table(0.8, 0.02, 1)), resampled(table(0.9, 0.02, 2))
    assert numbers(gap_closed(best, [best], ceiling).closed) == (0, 0, 0)
    assert numbers(gap_closed(ceiling, [best], ceiling).closed) == (1, 1, 1)


def test_halfway_with_noise_the_interval_holds_a_half() -> None:
    arm, best, ceiling = (resampled(table(m, 0.05, i)) for i, m in enumerate((0.85, 0.8, 0.9)))
    closed = gap_closed(arm, [best], ceiling).closed
    assert closed.low < 0.5 < closed.high
    assert 0 < closed.high - closed.low < 0.5
    assert closed.mean == pytest.approx((arm.mean - best.mean) / (ceiling.mean - best.mean))


def test_the_best_control_is_taken_anew_in_every_resample() -> None:
    first, second = resampled(table(0.8, 0.1, 1)), resampled(table(0.8, 0.1, 2))
    arm, ceiling = resampled(table(0.85)), resampled(table(0.9))
    gap = gap_closed(arm, [first, second], ceiling)
    named = gap_closed(arm, [(first, second)[gap.best]], ceiling)
    assert gap.difference.mean == named.difference.mean
    assert gap.difference.low <= named.difference.low
    assert gap.difference.high < named.difference.high
    expected = (arm.values - np.maximum(first.values, second.values)).mean()
    assert gap.difference.low < expected < gap.difference.high


@pytest.mark.parametrize("ceiling", [table(0.7), table(0.8), table(0.802, 0.2, 3)])
def test_without_a_gap_there_is_no_share(ceiling: np.ndarray) -> None:
    gap = gap_closed(resampled(table(0.85)), [BEST], resampled(ceiling))
    assert gap.room.low <= 0
    assert all(math.isnan(value) for value in numbers(gap.closed))
    assert gap.difference.mean == pytest.approx(0.05)


def test_a_resample_without_a_gap_widens_the_interval() -> None:
    zero, half = Resampled(0.0, np.zeros(100)), Resampled(0.5, np.linspace(0.4, 0.6, 100))
    room = np.ones(100)
    room[:2] = -1  # two in a hundred: the gap is still reliable
    closed = gap_closed(half, [zero], Resampled(1.0, room)).closed
    assert closed.mean == 0.5
    assert closed.low > 0.4
    assert closed.high > gap_closed(half, [zero], Resampled(1.0, np.ones(100))).closed.high
    room[2] = -1
    assert math.isnan(gap_closed(half, [zero], Resampled(1.0, room)).closed.mean)


def test_a_resample_that_has_no_figure_is_left_out() -> None:
    missing = np.where(np.arange(100) < 10, np.nan, 1.0)
    zero = Resampled(0.0, 0 * missing)
    assert numbers(gap_closed(Resampled(0.5, 0.5 * missing), [zero], Resampled(1.0, missing)).closed) == (0.5,) * 3


def test_there_must_be_a_control() -> None:
    with pytest.raises(ValueError, match="no control"):
        gap_closed(BEST, [], CEILING)


def study(rng: np.random.Generator, truths: np.ndarray) -> np.ndarray:
    """One study of ``(arms, 10 seeds, 40 patients)`` with these true means."""
    arms = len(truths)
    return (
        truths[:, None, None]
        + rng.normal(0, 0.003, (arms, 10, 1))
        + rng.normal(0, 0.01, (arms, 1, 40))
        + rng.normal(0, 0.01, (arms, 10, 40))
    )


@pytest.mark.parametrize("true", [0.0, 0.3, 1.0])
def test_the_interval_holds_the_truth_as_often_as_it_says(true: float) -> None:
    rng = np.random.default_rng(3)
    draw = partial(study, rng, np.array([0.02 * true, 0.0, 0.02]))
    found = [gap.closed for gap in simulate_gaps(draw, 300, resamples=300, rng=rng)]
    held = share(sum(closed.low <= true <= closed.high for closed in found), len(found))
    assert held.low < 0.95 < held.high + 0.02  # a percentile bootstrap over ten seeds is a little too narrow
    assert np.median([closed.mean for closed in found]) == pytest.approx(true, abs=0.04)


def test_with_controls_alike_the_lower_end_is_on_the_safe_side() -> None:
    rng = np.random.default_rng(4)
    draw = partial(study, rng, np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.02]))
    found = [gap.closed for gap in simulate_gaps(draw, 300, resamples=300, rng=rng)]
    assert share(sum(closed.low > 0 for closed in found), len(found)).low < 0.025
    assert sum(closed.low > 0 for closed in found) <= 8
