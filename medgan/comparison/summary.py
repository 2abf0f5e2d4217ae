"""From the finished runs to the summary: each arm's mean, its difference to the baseline, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from medgan.comparison.metrics import METRICS, SetMetric, positive_classes, set_metric
from medgan.comparison.power import detectable_difference, metric_table
from medgan.comparison.results import Array, RunRecord, patient_table, run_scores
from medgan.comparison.scoring import Task, patient_differences
from medgan.comparison.statistics import (
    Interval,
    Resampled,
    holm,
    nadeau_bengio,
    resampled_mean,
    resampled_metric,
    sign_flip,
    verdict,
    weighted_auc,
    wilcoxon,
)
from medgan.config import CompareConfig
from medgan.seeding import numpy_generator

Runs = Mapping[str, Sequence[RunRecord]]
SAME, NOT_SAME = "identical", "NOT IDENTICAL"
"""Verdicts of a check: every figure of every patient equals the baseline's, or not."""
REFERENCE = "reference: all labels"
"""What stands in the verdict's place of an arm with all labels: a ceiling, of which nothing is claimed."""


@dataclass(frozen=True)
class SummaryRow:
    """One arm and figure in one block; what compares is empty (NaN) for the baseline itself.

    Attributes:
        labelled: the block; 0 for all training cases labelled.
        split: ``test`` or ``external``.
        arm, metric: whose figure.
        structure: one structure or class; empty for all together.
        mean, low, high: with the 95 % interval.
        difference, difference_low, difference_high: to the baseline, paired.
        p: exact sign-flip over seeds; in cross-validation the corrected t-test of Nadeau and Bengio over folds. A
            reference is not tested and has no p.
        p_holm: ``p`` adjusted for the number of arms.
        p_wilcoxon: over patients, secondary.
        p_corrected: Nadeau and Bengio's, where there are folds.
        verdict: in words, of the primary metric of the test; of a check :data:`SAME` or :data:`NOT_SAME`, of a
            reference :data:`REFERENCE`.
        replicates: seeds, or seeds × folds.
        patients: tested.
        missing: case × structure figures that no mean includes, because the truth lacks the structure.
        seconds: of one run's training, teacher included.
        detectable: difference that a study like this would find with 80 % power; infinite where none.
        exploratory: the arm was added after the plan was frozen.
    """

    labelled: int
    split: str
    arm: str
    metric: str
    structure: str
    mean: float
    low: float
    high: float
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    p_wilcoxon: float = math.nan
    p_corrected: float = math.nan
    verdict: str = ""
    replicates: int = 0
    patients: int = 0
    missing: int = 0
    seconds: float = math.nan
    detectable: float = math.nan
    exploratory: bool = False


COLUMNS = [f.name for f in fields(SummaryRow)]


def decision_level(comparisons: int) -> float:
    """Return the coverage of the interval that a verdict rests on: 95 % for all comparisons together (Bonferroni).

    Holm adjusts the test over seeds alone. Where patients vary more than seeds, all seeds agree on a chance imbalance
    of patients, and only the interval guards against that: unadjusted, six arms alike gave a "gain" in 16.5 % of
    simulated studies, adjusted in 3.9 % (``benchmarks/study_errors.py``).
    """
    return 1 - 0.05 / max(comparisons, 1)


@dataclass(frozen=True)
class Question:
    """What is asked of the runs of one block.

    Attributes:
        task, settings: of the study.
        seed: of resamples.
        labelled: the block.
        test_to_train: test patients over training patients, for Nadeau and Bengio.
        exploratory: arms added after the plan was frozen.
        checks: arms that must equal the baseline (:func:`~medgan.comparison.arms.is_check`).
        references: arms with all labels (:func:`~medgan.comparison.arms.is_reference`).
    """

    task: Task
    settings: CompareConfig
    seed: int
    labelled: int
    test_to_train: float
    exploratory: frozenset[str] = frozenset()
    checks: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()

    def family(self, arm: str, arms: Collection[str]) -> tuple[str, ...]:
        """Return the comparisons that an arm's figures are adjusted for, the arm's own among them.

        Arms of the frozen plan are adjusted for each other: what is added later cannot take a finding away from them.
        An added one is adjusted for all. Checks and references claim nothing and are in no family.
        """
        later = set() if arm in self.exploratory else self.exploratory
        left_out = {self.baseline, *self.checks, *self.references, *later}
        return tuple(other for other in arms if other not in left_out)

    @property
    def baseline(self) -> str:
        """The arm to subtract."""
        return self.settings.baseline


def summarise(runs: Runs, question: Question) -> list[SummaryRow]:
    """Return a row for each split, metric, structure and arm of one block.

    Args:
        runs: each arm's finished runs; where a run failed, its pair is left out too.
        question: task, settings and block.
    """
    rows: list[SummaryRow] = []
    splits = ("test", "external") if _has(runs, "external") else ("test",)
    for split in splits:
        for metric in METRICS[question.task.kind]:
            for structure in _structures(metric, question.task):
                rows += _rows(runs, question, split, metric, structure)
    return rows


def _rows(runs: Runs, question: Question, split: str, metric: str, structure: str) -> list[SummaryRow]:
    figure = Figure(metric, structure, split, question)
    primary = metric == question.task.metric and structure == "" and split == "test"
    rows: dict[str, SummaryRow] = {}
    for arm, records in runs.items():
        if not records:
            continue
        own = figure.interval(records, None)
        row = SummaryRow(
            question.labelled, split, arm, metric, structure, own.mean, own.low, own.high,
            replicates=len(records),
            patients=len({s.patient_id for r in records for s in r.scores if s.split == split}),
            missing=sum(_missing(r, metric, split, structure) for r in records if r.seed == records[0].seed),
            seconds=sum(r.seconds + r.teacher_seconds for r in records) / len(records),
            exploratory=arm in question.exploratory,
        )  # fmt: skip
        if arm != question.baseline:
            pairs = _paired(records, runs.get(question.baseline, ()))
            if pairs[0]:
                family = question.family(arm, runs)
                row = figure.compared(row, *pairs, power=primary and arm in family, comparisons=len(family))
                if arm in question.references:
                    row = replace(row, p=math.nan, p_corrected=math.nan, p_wilcoxon=math.nan)
        rows[arm] = row
    adjusted = {arm: _adjusted(arm, rows, question) for arm in rows}
    higher = METRICS[question.task.kind][metric]
    for arm, row in rows.items():
        words = REFERENCE if primary and arm in question.references else ""
        if primary and not words and arm != question.baseline and math.isfinite(row.difference):
            pairs = _paired(runs[arm], runs[question.baseline])
            if arm in question.checks:
                words = SAME if figure.equal(*pairs) else NOT_SAME
            else:
                difference = figure.interval(*pairs, level=decision_level(len(question.family(arm, rows))))
                words = verdict(
                    difference, adjusted[arm], row.replicates, higher_is_better=higher, margin=question.settings.margin
                )
        rows[arm] = replace(row, p_holm=adjusted[arm], verdict=words)
    return list(rows.values())


@dataclass(frozen=True)
class Figure:
    """One metric of one split: how its intervals and tests are made."""

    metric: str
    structure: str
    split: str
    question: Question

    def interval(
        self, records: Sequence[RunRecord], baseline: Sequence[RunRecord] | None, level: float = 0.95
    ) -> Interval:
        """Return the mean, or mean difference, with the bootstrap's interval over patients and seeds."""
        return self.resampled(records, baseline).interval(level)

    def resampled(self, records: Sequence[RunRecord], baseline: Sequence[RunRecord] | None = None) -> Resampled:
        """Return the mean, or mean difference, with those of the resamples: arms of the same runs are drawn alike."""
        # The same resamples of patients and seeds for every arm and metric.
        rng = numpy_generator(self.question.seed, "bootstrap")
        resamples = self.question.settings.bootstrap
        of_set = self._of_set()
        if of_set is not None:
            prepared = [of_set.prepare(r, self.split) for r in records]
            other = None if baseline is None else [of_set.prepare(r, self.split) for r in baseline]
            return resampled_metric(of_set.measure, prepared, other, resamples=resamples, rng=rng)
        table = self._table(records)
        return resampled_mean(table if baseline is None else table - self._table(baseline), resamples, rng)

    def compared(
        self, row: SummaryRow, own: Sequence[RunRecord], other: Sequence[RunRecord], *, power: bool, comparisons: int
    ) -> SummaryRow:
        """Return the row with the difference to the baseline and its tests."""
        difference = self.interval(own, other)
        by_run = np.array([self._of_run(a) - self._of_run(b) for a, b in zip(own, other, strict=True)])
        seeds = sorted({r.seed for r in own})
        rng = numpy_generator(self.question.seed, "flip", row.arm)
        p = sign_flip(np.array([np.mean(by_run[[r.seed == s for r in own]]) for s in seeds]), rng)
        p_corrected, detectable = math.nan, math.nan
        folds = sorted({r.fold for r in own})
        if len(folds) > 1:
            # A fold is one split, however many seeds were run on it: they share its training and test patients.
            of_folds = [by_run[[r.fold == k for r in own]] for k in folds]
            by_fold = np.array([v[np.isfinite(v)].mean() if np.isfinite(v).any() else math.nan for v in of_folds])
            p = p_corrected = nadeau_bengio(by_fold, self.question.test_to_train).p
            if power:
                detectable = _corrected_power(by_fold[np.isfinite(by_fold)], self.question.test_to_train, comparisons)
        elif power:
            detectable = self._detectable(own, other, comparisons)
        return replace(
            row,
            difference=difference.mean,
            difference_low=difference.low,
            difference_high=difference.high,
            p=p,
            p_corrected=p_corrected,
            p_wilcoxon=wilcoxon(self._of_patients(own, other)),
            replicates=len(own),
            detectable=detectable,
        )

    def equal(self, own: Sequence[RunRecord], other: Sequence[RunRecord]) -> bool:
        """Return whether all figures of all cases are the same in both arms."""
        of = partial(_figures_of, split=self.split)
        return all(of(a) == of(b) for a, b in zip(own, other, strict=True))

    def _of_set(self) -> SetMetric | None:
        return set_metric(self.metric, self.question.task, self.structure, self.question.settings.sensitivity)

    def _table(self, records: Sequence[RunRecord]) -> Array:
        return patient_table(records, self.metric, self.split, self.structure or None)[0]

    def _of_run(self, record: RunRecord) -> float:
        """Return the figure of one run."""
        of_set = self._of_set()
        if of_set is None:
            known = self._table([record])
            known = known[np.isfinite(known)]
            return float(known.mean()) if len(known) else math.nan
        run = of_set.prepare(record, self.split)
        return float(of_set.measure(run.scores, run.truth, np.ones((1, len(run.truth))))[0])

    def _of_patients(self, own: Sequence[RunRecord], other: Sequence[RunRecord]) -> Array:
        return patient_differences(own, other, self.question.task, self.split, self.metric, self.structure)

    def _detectable(self, own: Sequence[RunRecord], other: Sequence[RunRecord], comparisons: int) -> float:
        task = self.question.task
        if self.metric == "auc":
            tables = [
                metric_table(weighted_auc, [run_scores(r, task.class_names) for r in runs]) for runs in (own, other)
            ]
            table = tables[0] - tables[1]
        else:
            table = self._table(own) - self._table(other)
        found = detectable_difference(
            table,
            comparisons=comparisons,
            rng=numpy_generator(self.question.seed, "power"),
            margin=self.question.settings.margin,
            level=decision_level(comparisons),
        )
        return math.inf if found.difference is None else found.difference


def _figures_of(record: RunRecord, split: str) -> list[tuple[str, str, str, str]]:
    # As text: NaN, of a structure that is not there, equals itself.
    return sorted((s.case_id, s.metric, s.structure, repr(s.value)) for s in record.scores if s.split == split)


def _structures(metric: str, task: Task) -> Sequence[str]:
    if metric in ("sensitivity", "specificity"):
        return positive_classes(task)
    if task.kind == "segmentation" and len(task.structures) > 1:
        return ("", *task.structures)
    return ("",)


def _paired(own: Sequence[RunRecord], other: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the runs of two arms that have their pair, in one order."""
    mine, theirs = ({r.replicate: r for r in runs} for runs in (own, other))
    common = sorted(set(mine) & set(theirs))
    return [mine[c] for c in common], [theirs[c] for c in common]


def _adjusted(arm: str, rows: Mapping[str, SummaryRow], question: Question) -> float:
    """Return an arm's p by Holm, over its family."""
    family = [other for other in question.family(arm, rows) if math.isfinite(rows[other].p)]
    return holm([rows[other].p for other in family])[family.index(arm)] if arm in family else math.nan


def _missing(record: RunRecord, metric: str, split: str, structure: str) -> int:
    return sum(
        s.split == split and s.metric == metric and structure in ("", s.structure) and math.isnan(s.value)
        for s in record.scores
    )


def _corrected_power(differences: Array, test_to_train: float, comparisons: int, power: float = 0.8) -> float:
    """Return the difference that the corrected t-test finds with the power given, at the level of Holm's first step."""
    from scipy import stats

    count = len(differences)
    if count < 2:
        return math.inf
    error = math.sqrt((1 / count + test_to_train) * float(np.var(differences, ddof=1)))
    quantile = partial(stats.t.ppf, df=count - 1)
    return float((quantile(1 - 0.025 / comparisons) + quantile(power)) * error)


def _has(runs: Runs, split: str) -> bool:
    return any(s.split == split for records in runs.values() for r in records[:1] for s in r.scores)
