"""Many studies at once: the decision rule (bootstrap, sign-flip test, Holm, verdict) and the gap closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from medgan.comparison.gap import Gap, gap_closed
from medgan.comparison.statistics import MAX_SIGN_PATTERNS, Array, Interval, Resampled, draw_counts, verdict

# Studies bootstrapped with the same resamples: enough to be quick, few enough that the resamples' chance averages out.
STUDIES_AT_ONCE = 50


def simulate_verdicts(
    draw: Callable[[], Array], studies: int, *, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> list[list[str]]:
    """Return the verdict of each arm in each simulated study: interval, sign-flip test, Holm, verdict.

    The same rule as for a real study, with the bootstrap and the test of many studies done at once.

    Args:
        draw: gives one study: ``(arms, seeds, patients)`` differences to the baseline.
        studies: how many.
        resamples: of each study's bootstrap.
        rng: source of the resampling.
        level: of the interval that must exclude 0.
    """
    said = []
    for size in batches(studies):
        batch = np.stack([draw() for _ in range(size)])
        arms, seeds = batch.shape[1:3]
        tables = batch.reshape(size * arms, seeds, -1)
        means = tables.mean(axis=2)
        ends = np.quantile(bootstrap_means(tables, resamples, rng), [(1 - level) / 2, (1 + level) / 2], axis=1)
        p_holm = holm_of_rows(sign_flips(means, seed_subsets(seeds, rng)).reshape(size, arms))
        intervals = [Interval(*map(float, row)) for row in zip(means.mean(axis=1), *ends, strict=True)]
        for i, of_study in enumerate(p_holm):
            own = intervals[i * arms : (i + 1) * arms]
            said.append([verdict(interval, float(p), seeds) for interval, p in zip(own, of_study, strict=True)])
    return said


def simulate_gaps(draw: Callable[[], Array], studies: int, *, resamples: int, rng: np.random.Generator) -> list[Gap]:
    """Return the gap closed in each simulated study, by the same bootstrap as in a real one.

    Args:
        draw: gives one study: ``(arms, seeds, patients)`` figures of the arm with the generator, the controls, and last
            the reference.
        studies: how many.
        resamples: of each study's bootstrap.
        rng: source of the resampling.
    """
    found = []
    for _ in range(studies):
        tables = draw()
        resampled = zip(tables.mean(axis=(1, 2)), bootstrap_means(tables, resamples, rng), strict=True)
        arm, *controls, ceiling = (Resampled(float(mean), values) for mean, values in resampled)
        found.append(gap_closed(arm, controls, ceiling))
    return found


def share(count: int, of: int) -> Interval:
    """Return ``count / of`` with its Wilson 95 % interval."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, of, alpha=0.05, method="wilson")
    return Interval(count / of, float(low), float(high))


def batches(studies: int) -> Iterator[int]:
    """Yield how many studies to bootstrap with the same resamples, until there are as many as wanted."""
    for start in range(0, studies, STUDIES_AT_ONCE):
        yield min(STUDIES_AT_ONCE, studies - start)


def bootstrap_means(studies: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Return the means, ``(N, R)``, of ``(N, S, P)`` studies resampled as ``resampled_mean`` does."""
    _, seeds, patients = studies.shape
    of_seeds, of_patients = draw_counts(seeds, resamples, rng), draw_counts(patients, resamples, rng)
    means: Array = np.einsum("rs,nsr->nr", of_seeds, studies @ of_patients.T) / (seeds * patients)
    return means


def holm_of_rows(p_values: Array) -> Array:
    """Return what ``holm`` does for each row; statsmodels collects garbage at every call, too slow for thousands."""
    comparisons = p_values.shape[1]
    order = p_values.argsort(axis=1)
    factors = np.arange(comparisons, 0, -1)
    ascending = np.maximum.accumulate(np.take_along_axis(p_values, order, axis=1) * factors, axis=1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, np.minimum(ascending, 1.0), axis=1)
    return adjusted


def sign_flips(means: Array, subsets: Array) -> Array:
    """Return what ``sign_flip`` does for each row of ``(N, S)`` seeds' means, ``(N,)``.

    Flipping a subset gives a mean at least as far out just where the subset's own sum is not on the mean's side of 0.
    """
    side = np.sign(means.sum(axis=1, keepdims=True))
    count = (side * subset_means(means, subsets) <= 0).sum(axis=1)
    p: Array = np.minimum(1.0, 2 * (count + 1) / (len(subsets) + 1))
    return p


def subset_means(means: Array, subsets: Array) -> Array:
    """Return the mean of each subset of the seeds, ``(N, subsets)``."""
    of_subsets: Array = (means @ subsets.T) / subsets.sum(axis=1)
    return of_subsets


def seed_subsets(seeds: int, rng: np.random.Generator) -> Array:
    """Return ``(subsets, seeds)`` of 0 and 1: all but the empty one, or as many at random as the test tries."""
    if 2**seeds <= MAX_SIGN_PATTERNS:
        every = np.arange(1, 2**seeds)
        return ((every[:, None] >> np.arange(seeds)) & 1).astype(np.float64)
    drawn = rng.integers(0, 2, (MAX_SIGN_PATTERNS, seeds)).astype(np.float64)
    return drawn[drawn.any(axis=1)]
