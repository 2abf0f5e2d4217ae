"""Figures as text, and what a row of the summary says in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgan.comparison.design import redrawn_in_words
from medgan.comparison.report.finished import FinishedStudy
from medgan.comparison.statistics import SEEDS_FOR_A_VERDICT
from medgan.comparison.summary import NOT_SAME, REFERENCE, SAME, SummaryRow

MINUS, UNKNOWN, TIMES = "\u2212", "\u2013", " \u00d7 "
# What must not be torn apart at the end of a line.
SPACE = "\u00a0"
CI = f"95{SPACE}% CI"
# Metric → name, decimals, whether more is better; in the order in which they are shown.
METRICS: Mapping[str, tuple[str, int, bool]] = {
    "dice": ("Dice", 3, True),
    "hd95": ("95th percentile Hausdorff distance", 2, False),
    "assd": ("average symmetric surface distance", 2, False),
    "auc": ("AUC", 3, True),
    "balanced_accuracy": ("balanced accuracy", 3, True),
    "sensitivity": ("sensitivity", 3, True),
    "specificity": ("specificity", 3, True),
    "brier": ("Brier score", 3, False),
    "ece": ("expected calibration error", 3, False),
}
DISTANCES = ("hd95", "assd")
PARTS: Mapping[str, str] = {
    "none": "no augmentation",
    "classical": "classical augmentation (spatial and intensity)",
    "gan": "siblings from the generator",
    "identity": "the generator at strength 0 (control: changes nothing)",
    "random-deformation": "random deformations and appearance changes as large as the generator's (control)",
    "duplicate": "copies of real training cases in place of siblings (control)",
    "consensus": "pseudo-labels on the unlabelled training scans, on which a teacher's answers for siblings agree",
    "random-consensus": "the same with randomly deformed copies for siblings (control: no learning)",
    "atlas": "pseudo-labels on the unlabelled training scans, to which scans fitted to them add theirs (control: no "
    "generator)",
    "self-training": "pseudo-labels on the unlabelled training scans (control: no generator)",
    "oversample": "each class drawn equally often",
    "all-labels": "the annotations of all annotated training cases (reference)",
}
# What the verdict means of an arm that is no comparison.
NO_COMPARISON: Mapping[str, str] = {
    SAME: "A check of the study's machinery: at strength 0 every figure of every patient is the baseline's own.",
    NOT_SAME: "At strength 0 nothing may change, yet figures differ: do not trust this study before it is known why.",
    REFERENCE: "A ceiling, not a comparison: it was trained with annotations that the other arms do not have. It shows "
    "how much there is to gain; nothing is claimed of its difference.",
}
NOT_ANONYMOUS = (
    "Each output is a transformed scan of one patient; treat it as that patient's data; it is not anonymous."
)


@dataclass(frozen=True)
class Finding:
    """What one arm's comparison shows.

    Attributes:
        arm: its name.
        kind: ``gain``, ``loss``, ``none``, ``exploratory`` or ``reference``.
        verdict: in words.
        numbers: mean, difference, interval, p.
        meaning: why the verdict is what it is, and what it does not say.
    """

    arm: str
    kind: str
    verdict: str
    numbers: str
    meaning: str


def metric_name(plan: Mapping[str, Any], metric: str) -> str:
    """Name of a metric, with its unit where it has one."""
    name = METRICS[metric][0] if metric in METRICS else metric
    return f"{name} ({'mm' if plan['spacing'] else 'voxels of the grid'})" if metric in DISTANCES else name


def better(metric: str) -> str:
    """Which direction is the good one."""
    return "higher is better" if METRICS[metric][2] else "lower is better"


def figure(value: float, metric: str = "") -> str:
    """A number as text; a dash for NaN, words for infinity."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "none"
    return f"{value:.{METRICS[metric][1] if metric in METRICS else 3}f}".replace("-", MINUS)


def signed(value: float, metric: str = "") -> str:
    """A difference as text, always with its sign."""
    # A bound of -0.0001 stays "-0.000": it says why the interval does not exclude 0.
    text = figure(value, metric)
    return text if text.startswith(MINUS) or not math.isfinite(value) else f"+{text}"


def interval(low: float, high: float, metric: str = "") -> str:
    """A difference's interval as text."""
    return UNKNOWN if math.isnan(low) or math.isnan(high) else f"{signed(low, metric)} to {signed(high, metric)}"


def p_value(value: float) -> str:
    """A p value as text."""
    if math.isnan(value):
        return UNKNOWN
    return f"<{SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """A p value with its sign, for a sentence."""
    text = p_value(value)
    return f"p{SPACE}{text}" if text.startswith("<") else f"p{SPACE}={SPACE}{text}"


def seconds(value: float | None) -> str:
    """A time as text."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}".replace(",", "\u202f")


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def block_name(labelled: int) -> str:
    """A block of the learning curve in words."""
    return "all annotated training cases" if labelled == 0 else plural(labelled, "labelled training case")


def replicates_planned(plan: Mapping[str, Any]) -> str:
    """How many replicates were planned, in words."""
    compare = plan["compare"]
    seeds = plural(int(compare["seeds"]), "paired seed")
    redrawn = redrawn_in_words(compare)
    if plan["folds"]:
        repeated = plan["splits"] // plan["folds"]
        times = f", repeated {repeated} times" if repeated > 1 else ""
        return f"{seeds} in each fold of {plan['folds']}-fold cross-validation by patient{times}{redrawn}"
    return f"{seeds} on one fixed split by patient{redrawn}"


def finding(row: SummaryRow, plan: Mapping[str, Any]) -> Finding:
    """Say what one arm's difference shows; a reader in a hurry reads only this."""
    metric, baseline = row.metric, plan["compare"]["baseline"]
    adjusted = "" if math.isnan(row.p_holm) else f"; Holm-adjusted {p_equals(row.p_holm)}"
    numbers = (
        f"{metric_name(plan, metric)} {figure(row.mean, metric)}: {signed(row.difference, metric)} against {baseline} "
        f"({CI} {interval(row.difference_low, row.difference_high, metric)}{adjusted})."
    )
    kind = _kind(row)
    verdict = row.verdict
    if kind == "exploratory":
        said = row.verdict.removesuffix(" (exploratory)")
        verdict = "exploratory, no verdict" if said.startswith("exploratory") else f"{said} (exploratory)"
    return Finding(row.arm, kind, verdict, numbers, " ".join(_meaning(row, plan, kind)))


def _kind(row: SummaryRow) -> str:
    if row.verdict == REFERENCE:
        return "reference"
    if row.verdict in (SAME, NOT_SAME):
        return "none" if row.verdict == SAME else "loss"
    if row.exploratory or "exploratory" in row.verdict:
        return "exploratory"
    return {"gain": "gain", "loss": "loss"}.get(row.verdict, "none")


def _meaning(row: SummaryRow, plan: Mapping[str, Any], kind: str) -> list[str]:
    metric, margin = row.metric, float(plan["compare"]["margin"])
    if row.verdict in NO_COMPARISON:
        return [NO_COMPARISON[row.verdict]]
    if kind == "exploratory":
        few = row.replicates < SEEDS_FOR_A_VERDICT
        why = (
            f"{plural(row.replicates, 'replicate')} cannot reach p < 0.05 in an exact test; {SEEDS_FOR_A_VERDICT} "
            "are the fewest that can."
            if few
            else "This arm was added after the plan had been frozen."
        )
        return [why, "Read the numbers as a hint for the next study, not as a finding."]
    if kind == "gain":
        reaches = f" and the difference reaches the margin of {figure(margin, metric)}" if margin else ""
        return [
            f"The interval excludes 0, the adjusted test is below 0.05{reaches}.",
            ""
            if margin
            else "No margin was set: whether a difference of this size matters is for the reader to judge.",
        ]
    if kind == "loss":
        return ["The arm does worse: the interval lies below 0 and the adjusted test is below 0.05."]
    missed = []
    if not (row.difference_low > 0 or row.difference_high < 0):
        missed.append("the interval includes 0")
    if not row.p_holm < 0.05:
        missed.append(f"the adjusted test does not reach p{SPACE}<{SPACE}0.05")
    if margin and row.difference < margin:
        missed.append(f"the difference does not reach the margin of {figure(margin, metric)}")
    reason = f"Not shown because {listed(missed)}." if missed else ""
    return [reason, "This does not say that there is no gain."]


def detectable(rows: Sequence[SummaryRow]) -> str:
    """What difference to the baseline a block of the study could have seen, in one sentence."""
    known = [row.detectable for row in rows if not math.isnan(row.detectable)]
    if not known:
        return ""
    finite = sorted(value for value in known if math.isfinite(value))
    if not finite:
        return (
            f"With {plural(max(row.replicates for row in rows), 'replicate')} and this many arms no difference, "
            "however large, could have passed the test: this study could not have shown a gain."
        )
    metric = rows[0].metric
    low, high = figure(finite[0], metric), figure(finite[-1], metric)
    size = f"about {low}" if low == high else f"{low} to {high}, by arm,"
    blind = len(known) - len(finite)
    rest = f" For {plural(blind, 'arm')} no difference, however large, could have passed the test." if blind else ""
    return (
        f"What this study could have seen: a difference of {size} would have been found in 80 of 100 such studies; "
        f"smaller ones are easily missed.{rest}"
    )


def headline(findings: Sequence[Finding], baseline: str) -> str:
    """The verdict of one block in one sentence; references are no part of it."""
    references = [f"“{f.arm}”" for f in findings if f.kind == "reference"]
    findings = [f for f in findings if f.kind != "reference"]
    if not findings:
        run = f"the baseline and the reference {listed(references)} were" if references else "the baseline was"
        return f"Only {run} run, so there is nothing to compare it with."
    against = f"compared with {baseline}"
    kinds = [f.kind for f in findings]
    if set(kinds) == {"exploratory"}:
        return f"Exploratory: {plural(len(findings), 'arm')} {against}, no verdict."
    gains, losses = ([f"“{f.arm}”" for f in findings if f.kind == kind] for kind in ("gain", "loss"))
    words = []
    if gains:
        words.append(f"Gain shown for {listed(gains)} {against}.")
    if losses:
        words.append(f"Loss shown for {listed(losses)}" + ("." if gains else f" {against}."))
    unshown = len(findings) - len(gains) - len(losses) - kinds.count("exploratory")
    if unshown and not words:
        one = len(findings) == 1
        words.append(
            f"No gain shown for {f'“{findings[0].arm}”' if one else f'any of the {len(findings)} arms'} {against}."
        )
    elif unshown:
        words.append(f"No gain shown for the other {unshown}." if unshown > 1 else "No gain shown for the other one.")
    if 0 < kinds.count("exploratory") < len(kinds):
        words.append(f"{plural(kinds.count('exploratory'), 'arm')} exploratory.")
    return " ".join(words)


def limits(study: FinishedStudy) -> list[str]:
    """What the study cannot say."""
    plan, compare = study.plan, study.plan["compare"]
    words = []
    if plan["exploratory"]:
        words.append(
            f"Exploratory: {replicates_planned(plan)}. An exact sign-flip test cannot reach p < 0.05 with fewer than "
            f"{SEEDS_FOR_A_VERDICT} replicates, and an interval over so few is too narrow. Repeat with "
            "compare.seeds=10 before resting anything on a difference."
        )
    patients = max((row.patients for row in study.summary if row.split == "test"), default=0)
    cohort = "one cohort and one external cohort" if plan["external_digest"] else "one cohort"
    words += [
        f"{plural(patients, 'test patient')} of {cohort}; nothing here speaks for other scanners, hospitals or "
        "populations.",
        f"Every arm had the same {compare['steps']} steps. The learning rate falls towards their end, which levels "
        "every curve there, so that a level end does not show that an arm has converged: whether more steps would "
        "judge otherwise, only a study with more steps tells.",
        "Even two identical arms differ by chance. The rule for a verdict (interval, adjusted test and margin "
        "together) is built to call such a pair a gain in at most 5 of 100 studies; it cannot make that number 0. "
        "benchmarks/study_errors.py measures it on this study's own scores.",
        "The verdict is about the primary metric. Every further metric, structure, class and site is described, not "
        "tested for a verdict of its own.",
    ]
    if not compare["margin"]:
        words.append("No margin was set: a difference whose interval excludes 0 need not matter in practice.")
    if plan["folds"]:
        words.append(
            "The folds of a cross-validation share training cases, so their differences are not independent; the "
            "corrected resampled t-test beside the others allows for that."
        )
    else:
        words.append("One split of the patients: another split would give other numbers.")
    if any(plan["labelled"]) and not compare.get("redraw"):
        words.append(
            "The labelled cases are the same under every seed: with other ones, above all where they are few, the "
            "numbers would be others (compare.redraw draws them anew)."
        )
    missing = max((row.missing for row in study.rows(study.blocks[-1], plan["metric"])), default=0)
    if missing:
        words.append(f"Structures that a test case lacks ({missing} in all) are left out of the means.")
    failed = sum(run.status != "finished" for run in study.runs)
    if failed:
        words.append(f"{plural(failed, 'run')} of {len(study.runs)} failed and could not be counted.")
    if plan["generators"]:
        words.append("The generators' own training is not in the times of the arms; it is reported beside them.")
    return words
