from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medgan.comparison.arms import Arm, parse_parts
from medgan.comparison.gap_table import GAP_COLUMNS, GapRow, gap_rows, read_gaps, roles_of
from medgan.comparison.results import GAP, RunRecord, Score, write_table
from medgan.comparison.scoring import Task
from medgan.comparison.summary import Question, summarise
from medgan.config import parse_config

TASK = Task("segmentation", ("organ",), (1,))
CLASSES = Task("classification", class_names=("benign", "malignant"))
CEILING = "classical+all-labels"


def arms_of(*names: str) -> dict[str, Arm]:
    return {name: Arm(name, parse_parts(name)) for name in names}


def question(task: Task = TASK, **sets: frozenset[str]) -> Question:
    settings = parse_config({"compare": {"arms": ["classical"], "bootstrap": 300, "task": task.kind}})
    return Question(task, settings.compare, 0, 8, 0.25, **sets)


def runs_of(means: dict[str, float], noise: float = 0.0, seeds: int = 8) -> dict[str, list[RunRecord]]:
    rng = np.random.default_rng(1)
    base = {f"p{i}": 0.05 * float(rng.normal()) for i in range(20)}

    def run(arm: str, mean: float, seed: int) -> RunRecord:
        values = {p: mean + v + noise * float(rng.normal()) for p, v in base.items()}
        return RunRecord(
            "", arm, 8, 0, seed, scores=tuple(Score(f"c{p}", p, "test", "dice", "organ", v) for p, v in values.items())
        )

    return {arm: [run(arm, mean, seed) for seed in range(seeds)] for arm, mean in means.items()}


def found(runs: dict[str, list[RunRecord]], asked: Question | None = None) -> dict[str, GapRow]:
    return {row.arm: row for row in gap_rows(runs, asked or question(), arms_of(*runs))}


def test_arms_lie_between_the_best_control_and_the_reference() -> None:
    means = {
        "none": 0.6, "classical": 0.78, "classical+self-training": 0.8, "classical+random-consensus": 0.79,
        "classical+gan": 0.8, "classical+consensus": 0.85, "gan": 0.75, CEILING: 0.9,
    }  # fmt: skip
    rows = found(runs_of(means))
    assert list(rows) == ["classical+gan", "classical+consensus", "gan"]
    assert [row.closed for row in rows.values()] == pytest.approx([0, 0.5, -0.5])
    for row in rows.values():
        assert (row.best, row.ceiling, row.labelled, row.metric) == ("classical+self-training", CEILING, 8, "dice")
        assert (row.replicates, row.patients, row.exploratory) == (8, 20, False)
        assert (row.closed_low, row.closed_high) == pytest.approx((row.closed, row.closed))


def test_the_interval_holds_what_is_true_and_the_figures_are_the_summarys() -> None:
    runs = runs_of({"classical": 0.8, "classical+gan": 0.85, CEILING: 0.9}, noise=0.05)
    (row,) = found(runs).values()
    assert row.closed_low < 0.5 < row.closed_high
    summary = {r.arm: r for r in summarise(runs, question()) if (r.metric, r.structure) == ("dice", "")}
    assert (row.mean, row.best_mean) == (summary["classical+gan"].mean, summary["classical"].mean)
    # With one control alone it is the very bootstrap of the summary.
    ends = (summary["classical+gan"].difference_low, summary["classical+gan"].difference_high)
    assert (row.difference_low, row.difference_high) == pytest.approx(ends)
    assert (row.room_low, row.room_high) == pytest.approx(
        (summary[CEILING].difference_low, summary[CEILING].difference_high)
    )


def test_a_reference_below_the_best_control_gives_no_share() -> None:
    (row,) = found(runs_of({"classical": 0.8, "classical+gan": 0.85, CEILING: 0.79}, noise=0.01)).values()
    assert row.room == pytest.approx(-0.01, abs=0.003)
    assert row.difference == pytest.approx(0.05, abs=0.003)
    assert all(math.isnan(value) for value in (row.closed, row.closed_low, row.closed_high))


def test_only_seeds_that_all_arms_have_are_compared() -> None:
    runs = runs_of({"classical": 0.8, "classical+duplicate": 0.79, "classical+gan": 0.85, CEILING: 0.9})
    # A seed that went wrong in one control would move the means.
    odd = runs["classical"][3]
    runs["classical"][3] = replace(odd, scores=tuple(replace(s, value=0.0) for s in odd.scores))
    del runs["classical+duplicate"][3]
    (row,) = found(runs).values()
    assert row.replicates == 7
    assert row.closed == pytest.approx(0.5)


def test_what_is_missing_leaves_no_row() -> None:
    whole = runs_of({"classical": 0.8, "classical+gan": 0.85, CEILING: 0.9})
    for arm in ("classical+gan", CEILING):
        assert found({**whole, arm: []}) == {}
        assert found({name: runs for name, runs in whole.items() if name != arm}) == {}
    # A control whose runs all failed is none to beat.
    runs = {**whole, "classical+duplicate": []}
    assert found(runs)["classical+gan"].closed == pytest.approx(0.5)


def test_who_is_who() -> None:
    plain = ("none", "classical", "classical+identity", "classical+gan")
    roles = roles_of(arms_of(*plain, "all-labels", "classical+gan+all-labels", CEILING), "classical")
    assert roles is not None
    assert roles.tested == ("classical+gan",)
    assert roles.controls == ("none", "classical")
    assert roles.ceiling == CEILING
    other = roles_of(arms_of("none", "gan", "classical+gan+all-labels", CEILING), "none")
    assert other is not None
    assert other.ceiling == CEILING
    assert roles_of(arms_of("classical", "gan", "classical+gan+all-labels"), "classical") is None
    assert roles_of(arms_of("classical", "classical+duplicate", CEILING), "classical") is None


def test_fitted_scans_are_held_against_the_others_and_the_generator_against_them() -> None:
    means = {"classical": 0.7, "classical+atlas": 0.8, "classical+gan": 0.75, "classical+gan+atlas": 0.85, CEILING: 0.9}
    rows = found(runs_of(means))
    assert {name: row.best for name, row in rows.items()} == {
        "classical+atlas": "classical",
        "classical+gan": "classical+atlas",
        "classical+gan+atlas": "classical+atlas",
    }
    assert [rows[name].closed for name in rows] == pytest.approx([0.5, -0.5, 0.5])


def test_an_arm_added_later_makes_its_comparisons_exploratory() -> None:
    runs = runs_of({"classical": 0.8, "gan": 0.8, "classical+gan": 0.85, CEILING: 0.9})
    rows = found(runs, question(exploratory=frozenset({"gan"})))
    assert [row.exploratory for row in rows.values()] == [True, False]
    rows = found(runs, question(exploratory=frozenset({CEILING})))
    assert [row.exploratory for row in rows.values()] == [True, True]


def classified(arm: str, seed: int, fold: int, signal: float) -> RunRecord:
    # The same noise in every arm: more signal, a higher AUC.
    rng = np.random.default_rng([seed, fold])
    scores: list[Score] = []
    for i in range(30):
        malignant = i % 2
        p = float(1 / (1 + math.exp(-rng.normal(signal * malignant, 1))))
        case, patient = f"c{fold}-{i}", f"p{fold}-{i}"
        scores += [
            Score(case, patient, "test", "probability", "benign", 1 - p),
            Score(case, patient, "test", "probability", "malignant", p),
            Score(case, patient, "test", "true_class", CLASSES.class_names[malignant], 1.0),
        ]
    return RunRecord("", arm, 8, fold, seed, scores=tuple(scores))


def test_in_classification_the_gap_is_in_auc_over_folds_and_seeds() -> None:
    signals = {"classical": 0.5, "classical+gan": 1.0, "gan": 0.5, "classical+consensus": 2.0, CEILING: 2.0}
    runs = {
        arm: [classified(arm, seed, fold, signal) for seed in range(3) for fold in range(2)]
        for arm, signal in signals.items()
    }
    rows = found(runs, question(CLASSES))
    assert (rows["gan"].closed, rows["gan"].closed_low, rows["gan"].closed_high) == (0, 0, 0)
    same = rows["classical+consensus"]
    assert (same.closed, same.closed_low, same.closed_high) == (1, 1, 1)
    means = {}
    for arm in signals:
        areas = [
            roc_auc_score(
                [s.structure == "malignant" for s in r.scores if s.metric == "true_class"],
                [s.value for s in r.scores if (s.metric, s.structure) == ("probability", "malignant")],
            )
            for r in runs[arm]
        ]
        means[arm] = float(np.mean(areas))
    row = rows["classical+gan"]
    expected = (means["classical+gan"] - means["classical"]) / (means[CEILING] - means["classical"])
    assert row.closed == pytest.approx(expected)
    assert row.closed_low < expected < row.closed_high
    assert (row.metric, row.replicates, row.patients) == ("auc", 6, 60)


def test_the_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    assert read_gaps(tmp_path) == []
    rows = list(found(runs_of({"classical": 0.8, "classical+gan": 0.85, CEILING: 0.9}, noise=0.02)).values())
    rows.append(replace(rows[0], closed_high=math.inf, exploratory=True))
    write_table(tmp_path / GAP, [asdict(row) for row in rows], GAP_COLUMNS)
    assert read_gaps(tmp_path) == rows
    write_table(tmp_path / GAP, [asdict(replace(rows[0], closed=math.nan))], GAP_COLUMNS)
    assert math.isnan(read_gaps(tmp_path)[0].closed)
