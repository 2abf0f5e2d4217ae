"""What a study can see and how often it errs: its decision rule, run on many simulated studies.

The paired difference of seed s and patient p is modelled with crossed random effects,

    d[s, p] = Δ + a[s] + b[p] + e[s, p],    a ~ N(0, σ²_seed),  b ~ N(0, σ²_patient),  e ~ N(0, σ²_residual),

and the variances are estimated from the recorded differences. Only their spread is used, never the difference found:
this is no "observed power" (Hoenig & Heisey, The American Statistician 2001). A normal approximation would promise
what the rule cannot keep, since a sign-flip test of few seeds is a coarse one: the rule itself is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medgan.comparison.simulation import (
    batches,
    bootstrap_means,
    seed_subsets,
    share,
    simulate_verdicts,
    subset_means,
)
from medgan.comparison.statistics import ALPHA, SEEDS_FOR_A_VERDICT, Array, Interval, RunScores, WeightedMetric


@dataclass(frozen=True)
class VarianceComponents:
    """Standard deviations of the crossed random effects, in units of the metric; NaN where they cannot be estimated."""

    seed: float
    patient: float
    residual: float


@dataclass(frozen=True)
class Detectable:
    """The difference that a study finds with a given power.

    Attributes:
        difference: in units of the metric; ``None`` where the study cannot find any, however large.
        power: share of such studies that say "gain" of this difference.
        comparisons: arms compared with the baseline.
        seeds: of the study.
        patients: that every seed has a value of.
        seeds_needed: the fewest seeds with which so many comparisons can find anything.
        components: the estimated spread.
    """

    difference: float | None
    power: float
    comparisons: int
    seeds: int
    patients: int
    seeds_needed: int
    components: VarianceComponents

    @property
    def words(self) -> str:
        """The same as a sentence."""
        if self.difference is not None:
            return f"A difference of {self.difference:.3g} would be found in {self.power:.0%} of such studies."
        if self.seeds < self.seeds_needed:
            return (
                f"With {self.seeds} seeds and {self.comparisons} comparisons no difference can be found, however "
                f"large: at least {self.seeds_needed} seeds are needed."
            )
        return f"With {self.patients} patients the spread between patients cannot be estimated."


@dataclass(frozen=True)
class Errors:
    """How often the decision rule errs in simulated studies; shares with Wilson 95 % intervals.

    Attributes:
        false_gain: share of studies of arms alike in which any arm "gains".
        detectable: the difference that was planted.
        found: share of studies with that difference planted in one arm that say so; ``None`` without such a difference.
    """

    false_gain: Interval
    detectable: Detectable
    found: Interval | None


def seeds_needed(comparisons: int) -> int:
    """Return the fewest seeds with which the sign-flip test, adjusted for the comparisons, can fall below 0.05.

    The smallest p of n seeds is 2 / 2ⁿ, and Holm multiplies the smallest of several by their number.
    """
    seeds = SEEDS_FOR_A_VERDICT
    while 2 * comparisons / 2**seeds >= ALPHA:
        seeds += 1
    return seeds


def metric_table(metric: WeightedMetric, runs: Sequence[RunScores]) -> Array:
    """Return ``(seeds, patients)`` of a metric that only a set of patients has, such as the AUC.

    The values are jackknife pseudo-values (Tukey 1958): with P patients, ``P·θ − (P − 1)·θ without the patient``. Their
    mean over patients is the metric (to order 1/P) and their spread that of the metric between test sets. NaN where the
    metric is unknown without the patient.

    Args:
        metric: see :data:`~medgan.comparison.statistics.WeightedMetric`.
        runs: an arm's runs on the same cases, one a seed.
    """
    names, index = np.unique(np.asarray(runs[0].patients), return_inverse=True)
    people = len(names)
    weights = np.vstack([np.ones(people), 1 - np.eye(people)])[:, index]
    values = np.stack([metric(run.scores, run.truth, weights) for run in runs])
    table: Array = people * values[:, :1] - (people - 1) * values[:, 1:]
    return table


def variance_components(table: Array) -> VarianceComponents:
    """Estimate the crossed random effects by the analysis of variance (moments; a negative variance becomes 0).

    With mean squares of S seeds, P patients and the rest: σ²_residual = MS_rest, σ²_seed = (MS_seed − MS_rest) / P,
    σ²_patient = (MS_patient − MS_rest) / S (Searle, Casella & McCulloch, "Variance Components", 1992, ch. 4).

    Args:
        table: ``(seeds, patients)``; patients with a NaN are left out.
    """
    table = _complete(table)
    seeds, patients = table.shape
    if min(seeds, patients) < 2:
        return VarianceComponents(math.nan, math.nan, math.nan)
    of_seeds, of_patients, rest = _effects(table)
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (patients - 1))
    ms_seed = patients * float((of_seeds**2).sum()) / (seeds - 1)
    ms_patient = seeds * float((of_patients**2).sum()) / (patients - 1)
    return VarianceComponents(
        seed=math.sqrt(max(0.0, ms_seed - ms_rest) / patients),
        patient=math.sqrt(max(0.0, ms_patient - ms_rest) / seeds),
        residual=math.sqrt(ms_rest),
    )


def detectable_difference(
    table: Array,
    *,
    comparisons: int,
    rng: np.random.Generator,
    power: float = 0.8,
    margin: float = 0.0,
    level: float = 0.95,
    studies: int = 1000,
    resamples: int = 1000,
) -> Detectable:
    """Return the smallest true difference that a study like this one would call a gain with the given power.

    Studies without a difference are drawn from the estimated random effects. Adding Δ to a study moves its bootstrap
    interval by Δ and only lowers the sign-flip p, so each study has one smallest Δ from which on the rule says "gain";
    the answer is the quantile ``power`` of these. Holm's p is that of an arm whose fellows show nothing (p times
    ``comparisons``), the hardest case. The estimate is as uncertain as the variance between a few seeds.

    Args:
        table: ``(seeds, patients)`` paired differences of one arm and the baseline; patients with a NaN are left out.
        comparisons: arms compared with the baseline.
        rng: source of the simulation.
        power: share of studies that find it.
        margin: that a gain must reach.
        level: of the interval that must exclude 0.
        studies: simulated.
        resamples: of each study's bootstrap.
    """
    components = variance_components(table)
    seeds, patients = _complete(table).shape
    needed = seeds_needed(comparisons)
    difference = None
    if seeds >= needed and patients >= 2:
        subsets = seed_subsets(seeds, rng)
        # p = 2 (count + 1) / (subsets + 1), the 1 being the data as they are, must stay below ALPHA / comparisons.
        k = math.ceil(ALPHA / comparisons * (len(subsets) + 1) / 2) - 1
        critical = []
        for size in batches(studies):
            null = _normal_studies(components, (size, seeds, patients), rng)
            low = np.quantile(bootstrap_means(null, resamples, rng), (1 - level) / 2, axis=1)
            means = null.mean(axis=2)
            by_test = np.partition(-subset_means(means, subsets), -k, axis=1)[:, -k]
            critical.append(np.maximum(np.maximum(-low, by_test), margin - means.mean(axis=1)))
        difference = float(np.quantile(np.concatenate(critical), power))
    return Detectable(difference, power, comparisons, seeds, patients, needed, components)


def simulate_errors(
    scores: Array,
    table: Array,
    *,
    comparisons: int,
    rng: np.random.Generator,
    level: float = 0.95,
    studies: int = 1000,
    resamples: int = 1000,
) -> Errors:
    """Run the whole decision rule on studies simulated from recorded figures, without and with a planted gain.

    Arms alike: each seed of a study is a recorded one of the arm, the same for the baseline and another for each
    compared arm; patients are drawn with replacement. A planted gain: patient effects and residuals of the recorded
    differences are scaled to their estimated variances and drawn apart (a patient keeps the own residuals), which keeps
    their shape and, unlike drawing rows and columns, their spread (the reflated bootstrap of Carpenter, Goldstein &
    Rasbash, Applied Statistics 2003). Seed effects are normal: a handful of seeds does not show a shape. One arm has
    the detectable difference, its fellows none.

    Args:
        scores: ``(seeds, patients)`` of one arm.
        table: ``(seeds, patients)`` paired differences of one arm and the baseline, oriented so that more is better.
        comparisons: arms compared with the baseline.
        rng: source of the simulation.
        level: of the interval that must exclude 0.
        studies: simulated, of each kind.
        resamples: of each study's bootstrap.

    Raises:
        ValueError: fewer than two seeds or patients.
    """
    scores, table = _complete(scores), _complete(table)
    for recorded in (scores, table):
        if min(recorded.shape) < 2:
            raise ValueError(f"two seeds and two patients at least are needed, got {recorded.shape}")
    detectable = detectable_difference(table, comparisons=comparisons, rng=rng, level=level)

    def verdicts(draw: Callable[[], Array]) -> list[list[str]]:
        return simulate_verdicts(draw, studies, resamples=resamples, rng=rng, level=level)

    gains = sum("gain" in words for words in verdicts(lambda: _arms_alike(scores, comparisons, rng)))
    found = None
    if detectable.difference is not None:
        planted = np.zeros((comparisons, 1, 1))
        planted[0] = detectable.difference
        said = verdicts(lambda: _recorded_arms(table, comparisons, rng) + planted)
        found = share(sum(words[0] == "gain" for words in said), studies)
    return Errors(share(gains, studies), detectable, found)


def _arms_alike(scores: Array, comparisons: int, rng: np.random.Generator) -> Array:
    seeds, patients = scores.shape
    of_patients = scores[:, rng.integers(patients, size=patients)]
    baseline = rng.integers(seeds, size=seeds)
    # Never the baseline's own seed: two runs alike to the last digit would make gains rarer than they are.
    others = (baseline + rng.integers(1, seeds, size=(comparisons, seeds))) % seeds
    drawn: Array = of_patients[others] - of_patients[baseline]
    return drawn


def _recorded_arms(table: Array, arms: int, rng: np.random.Generator) -> Array:
    """Return ``(arms, seeds, patients)`` without a difference, of the recorded effects scaled to their variances."""
    seeds, patients = table.shape
    components = variance_components(table)
    _, of_patients, rest = _effects(table)
    who = rng.integers(patients, size=(arms, 1, patients))
    b = _scaled(of_patients[0], components.patient)[who]
    e = _scaled(rest, components.residual)[rng.integers(seeds, size=(arms, seeds, patients)), who]
    drawn: Array = rng.normal(0, components.seed, (arms, seeds, 1)) + b + e
    return drawn


def _normal_studies(components: VarianceComponents, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    studies, seeds, patients = shape
    return (
        rng.normal(0, components.seed, (studies, seeds, 1))
        + rng.normal(0, components.patient, (studies, 1, patients))
        + rng.normal(0, components.residual, shape)
    )


def _complete(table: Array) -> Array:
    """Leave out the patients that a seed has no value of."""
    table = np.asarray(table, dtype=np.float64)
    return table[:, np.isfinite(table).all(axis=0)]


def _effects(table: Array) -> tuple[Array, Array, Array]:
    """Return the effects of the seeds ``(S, 1)``, of the patients ``(1, P)``, and the rest ``(S, P)``."""
    mean = float(table.mean())
    of_seeds = table.mean(axis=1, keepdims=True) - mean
    of_patients = table.mean(axis=0, keepdims=True) - mean
    return of_seeds, of_patients, table - mean - of_seeds - of_patients


def _scaled(values: Array, deviation: float) -> Array:
    """Return the values with the root mean square ``deviation``."""
    root = math.sqrt(float((values**2).mean()))
    return values * (deviation / root) if root > 0 else values
