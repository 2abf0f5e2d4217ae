from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from medgan.comparison.metrics import set_metric, weighted_ece
from medgan.comparison.results import RunRecord, Score
from medgan.comparison.scoring import Task
from medgan.comparison.statistics import nadeau_bengio
from medgan.comparison.summary import Question, SummaryRow, decision_level, summarise
from medgan.config import parse_config

TASK = Task("segmentation", ("organ",), (1,))
CLASSES = Task("classification", class_names=("benign", "malignant"))


def run(arm: str, seed: int, values: dict[str, float], fold: int = 0) -> RunRecord:
    scores = [Score(f"case {p}", p, "test", m, "organ", v) for p, v in values.items() for m in ("dice", "hd95", "assd")]
    return RunRecord("", arm, 0, fold, seed, scores=tuple(scores))


def rows(runs: dict[str, list[RunRecord]], ratio: float = 0.25, **compare: float) -> dict[str, SummaryRow]:
    settings = parse_config({"compare": {"arms": list(runs), "baseline": "classical", "bootstrap": 200, **compare}})
    found = summarise(runs, Question(TASK, settings.compare, 0, 0, ratio))
    return {r.arm: r for r in found if (r.metric, r.structure) == ("dice", "")}


def study(gain: float, seeds: int = 8) -> dict[str, list[RunRecord]]:
    rng = np.random.default_rng(0)
    base = {f"p{i}": 0.8 + 0.02 * float(rng.normal()) for i in range(20)}
    return {
        arm: [run(arm, s, {p: v + up + 0.003 * float(rng.normal()) for p, v in base.items()}) for s in range(seeds)]
        for arm, up in (("classical", 0.0), ("gan", gain))
    }


def test_a_clear_difference_of_every_seed_is_a_gain_and_its_reverse_a_loss() -> None:
    assert rows(study(0.03))["gan"].verdict == "gain"
    assert rows(study(-0.03))["gan"].verdict == "loss"
    assert rows(study(0.03))["classical"].verdict == ""


def test_a_gain_below_the_margin_is_none() -> None:
    assert rows(study(0.03), margin=0.05)["gan"].verdict == "no gain shown"


def test_under_six_seeds_there_is_no_verdict_and_nothing_to_detect() -> None:
    row = rows(study(0.03, seeds=5))["gan"]
    assert row.verdict.startswith("exploratory")
    assert math.isinf(row.detectable)


def test_a_run_without_its_pair_is_left_out() -> None:
    runs = study(0.03)
    runs["gan"] = runs["gan"][1:]
    row = rows(runs)["gan"]
    assert row.replicates == 7
    assert row.difference == pytest.approx(0.03, abs=0.003)


def judged(runs: dict[str, list[RunRecord]], **sets: frozenset[str]) -> dict[str, SummaryRow]:
    settings = parse_config({"compare": {"arms": list(runs), "baseline": "classical", "bootstrap": 200}})
    found = summarise(runs, Question(TASK, settings.compare, 0, 0, 0.25, **sets))
    return {r.arm: r for r in found if (r.metric, r.structure) == ("dice", "")}


def test_a_check_is_identical_or_not_and_takes_nothing_from_the_comparisons() -> None:
    runs = study(0.03)
    alone = judged(runs)["gan"]
    runs["same"] = [replace(r, arm="same") for r in runs["classical"]]
    found = judged(runs, checks=frozenset({"same"}))
    assert found["same"].verdict == "identical"
    assert math.isnan(found["same"].p_holm)
    assert math.isinf(found["same"].detectable) or math.isnan(found["same"].detectable)
    assert found["gan"] == alone
    changed = replace(runs["same"][0].scores[0], value=0.5)
    runs["same"][0] = replace(runs["same"][0], scores=(changed, *runs["same"][0].scores[1:]))
    assert judged(runs, checks=frozenset({"same"}))["same"].verdict == "NOT IDENTICAL"


def test_a_reference_is_no_comparison_and_takes_nothing_from_the_others() -> None:
    runs = study(0.03)
    alone = judged(runs)["gan"]
    runs["all"] = [replace(r, arm="all") for r in study(0.09)["gan"]]
    assert judged(runs)["all"].verdict == "gain"  # what it would be called as an arm like the others
    later: dict[str, frozenset[str]]
    for later in ({}, {"exploratory": frozenset({"all"})}, {"exploratory": frozenset({"gan"})}):
        found = judged(runs, references=frozenset({"all"}), **later)
        assert found["all"].verdict == "reference: all labels"
        assert found["all"].difference == pytest.approx(0.09, abs=0.003)
        assert all(math.isnan(getattr(found["all"], p)) for p in ("p", "p_holm", "p_corrected", "p_wilcoxon"))
        assert math.isnan(found["all"].detectable)
        assert replace(found["gan"], exploratory=False) == alone


def test_an_arm_added_later_takes_nothing_from_the_plan_and_is_adjusted_for_all() -> None:
    runs = study(0.03)
    alone = judged(runs)["gan"]
    runs["late"] = [replace(r, arm="late") for r in study(0.03)["gan"]]
    found = judged(runs, exploratory=frozenset({"late"}))
    assert found["gan"] == alone
    assert found["late"].p_holm == pytest.approx(2 * found["late"].p)
    assert judged(runs)["gan"].p_holm == pytest.approx(2 * alone.p)


def test_in_cross_validation_a_fold_counts_once_whatever_its_seeds() -> None:
    shifts = (0.02, -0.01, 0.03, 0.005)
    runs: dict[str, list[RunRecord]] = {"classical": [], "gan": []}
    for fold, shift in enumerate(shifts):
        for seed in range(3):
            values = {f"p{fold}{i}": 0.8 for i in range(5)}
            runs["classical"].append(run("classical", seed, values, fold))
            runs["gan"].append(run("gan", seed, {p: v + shift for p, v in values.items()}, fold))
    row = rows(runs, ratio=1 / 3)["gan"]
    assert row.p == row.p_corrected == pytest.approx(nadeau_bengio(np.array(shifts), 1 / 3).p)
    assert row.replicates == 12
    assert row.patients == 20


def test_the_deciding_interval_widens_with_the_arms() -> None:
    assert [decision_level(n) for n in (0, 1, 5)] == pytest.approx([0.95, 0.95, 0.99])


def classified(split: str, values: list[tuple[float, str]]) -> list[Score]:
    scores = []
    for i, (p, truth) in enumerate(values):
        who = (f"{split}{i}", f"{split}{i}", split)
        scores += [Score(*who, "probability", "benign", 1 - p), Score(*who, "probability", "malignant", p)]  # type: ignore[arg-type]
        scores.append(Score(*who, "true_class", truth, 1.0))  # type: ignore[arg-type]
    return scores


def test_sensitivity_and_specificity_take_their_threshold_from_the_validation() -> None:
    validation = [(0.9, "malignant"), (0.6, "malignant"), (0.3, "benign")]
    test = [(0.7, "malignant"), (0.5, "malignant"), (0.65, "benign"), (0.1, "benign"), (0.2, "benign")]
    record = RunRecord("", "a", 0, 0, 0, scores=(*classified("validation", validation), *classified("test", test)))
    figures = {}
    for name in ("sensitivity", "specificity"):
        metric = set_metric(name, CLASSES, "malignant", 0.9)
        assert metric is not None
        of = metric.prepare(record, "test")
        figures[name] = float(metric.measure(of.scores, of.truth, np.ones((1, 5)))[0])
    # Threshold 0.6: one of two malignant and one of three benign cases lie above it.
    assert figures == pytest.approx({"sensitivity": 0.5, "specificity": 2 / 3})


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    p = np.repeat([0.25, 0.75], 40)
    truth = np.concatenate([np.tile([1, 0, 0, 0], 10), np.tile([1, 1, 1, 0], 10)])
    scores = np.stack([1 - p, p], axis=1)
    assert weighted_ece(scores, truth, np.ones((2, 80))) == pytest.approx([0, 0], abs=1e-12)
    assert weighted_ece(scores, 1 - truth, np.ones((1, 80)))[0] == pytest.approx(0.5)
