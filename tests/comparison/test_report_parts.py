from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_studies import Recipe, arms_of, plan_of, write_study
from PIL import Image
from sklearn.metrics import roc_auc_score

from medgan.comparison.arms import PARTS
from medgan.comparison.design import Cell
from medgan.comparison.report import figures, words
from medgan.comparison.report.derived import (
    patient_differences,
    reliability,
    replicate_differences,
    replicate_values,
    sweeps,
)
from medgan.comparison.report.finished import FinishedStudy, Replicate, ScoreLine, read_study
from medgan.comparison.report.sprites import image_sprite, layout_of, outline_sprite
from medgan.comparison.summary import SummaryRow

PLAN = plan_of(Recipe(), arms_of(Recipe()))
ROW = SummaryRow(
    labelled=0, split="test", arm="gan", metric="dice", structure="", mean=0.83, low=0.81, high=0.85, difference=0.02,
    difference_low=0.01, difference_high=0.03, p=0.008, p_holm=0.03, p_wilcoxon=0.01, p_corrected=math.nan,
    verdict="gain", replicates=8, patients=24, missing=0, seconds=45.0, detectable=0.012, exploratory=False,
)  # fmt: skip


def study_of(scores: dict[Cell, list[ScoreLine]], **plan: Any) -> FinishedStudy:
    return FinishedStudy("", [], {**PLAN, **plan}, [], [], scores, {})


def test_every_part_of_an_arm_has_its_words():
    assert set(words.PARTS) == set(PARTS)


def test_curves_are_marked_where_they_were_measured() -> None:
    styles = figures.arm_styles(["classical"], "classical")

    def ticks(steps: list[float]) -> list[float]:
        curves = {"classical": [(np.array(steps), np.zeros(len(steps)))]}
        return [float(at) for at in figures.curve_figure(curves, styles, "Dice").axes[0].get_xticks()]

    assert ticks([25, 50, 75, 100]) == [25, 50, 75, 100]
    assert len(ticks([float(step) for step in range(1, 41)])) <= figures.MOST_TICKS + 2


@pytest.mark.parametrize(
    ("arms", "columns"),
    [
        (["classical", "classical+gan"], 2),
        (["classical+random-deformation", "classical+gan", "classical+random-deformation+self-training"], 1),
    ],
)
def test_the_names_of_the_curves_are_not_cut_off(arms: list[str], columns: int) -> None:
    styles = figures.arm_styles(arms, arms[0])
    curves = {arm: [(np.array([1.0, 2.0]), np.zeros(2))] for arm in arms}
    figure = figures.curve_figure(curves, styles, "Dice")
    figure.canvas.draw()
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert legend._ncols == columns
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width


def test_the_line_at_zero_does_not_strike_out_an_arms_name() -> None:
    differences = {"a-name-that-is-as-long-as-half-the-chart": np.array([-0.01, 0.0, 0.01])}
    styles = figures.arm_styles(["classical", *differences], "classical")
    axes = figures.difference_figure(differences, {}, styles, "difference").axes[0]
    name, zero = axes.texts[0], axes.lines[-1]
    assert name.get_bbox_patch().get_facecolor()[:3] == (1, 1, 1)
    assert name.get_zorder() > zero.get_zorder()


def test_gain_names_what_it_rests_on() -> None:
    found = words.finding(ROW, PLAN)
    assert (found.kind, found.verdict) == ("gain", "gain")
    numbers = found.numbers.replace(words.SPACE, " ")
    assert numbers == "Dice 0.830: +0.020 against classical (95 % CI +0.010 to +0.030; Holm-adjusted p = 0.030)."
    assert "reaches the margin of 0.010" in found.meaning


def test_gain_without_a_margin_leaves_its_size_to_the_reader() -> None:
    plan = {**PLAN, "compare": {**PLAN["compare"], "margin": 0.0}}
    assert "No margin was set" in words.finding(ROW, plan).meaning


def test_loss_is_said_plainly() -> None:
    row = replace(ROW, verdict="loss", difference=-0.02, difference_low=-0.03, difference_high=-0.01)
    found = words.finding(row, PLAN)
    assert found.kind == "loss"
    assert "The arm does worse" in found.meaning


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"difference_low": -0.001}, "the interval includes 0"),
        ({"p_holm": 0.06}, "the adjusted test does not reach p < 0.05"),
        ({"difference": 0.009}, "the difference does not reach the margin of 0.010"),
    ],
)
def test_no_gain_shown_says_why_and_what_it_does_not_say(changed: dict[str, float], reason: str) -> None:
    found = words.finding(replace(ROW, verdict="no gain shown", **changed), PLAN)
    meaning = found.meaning.replace(words.SPACE, " ")
    assert meaning == f"Not shown because {reason}. This does not say that there is no gain."


def test_arm_added_later_is_exploratory_whatever_its_verdict() -> None:
    found = words.finding(replace(ROW, exploratory=True), PLAN)
    assert (found.kind, found.verdict) == ("exploratory", "gain (exploratory)")
    assert "added after the plan had been frozen" in found.meaning


def test_detectable_difference_in_words() -> None:
    assert "about 0.012 would" in words.detectable([ROW, ROW])
    assert "0.012 to 0.020, by arm, would" in words.detectable([ROW, replace(ROW, detectable=0.02)])
    assert "could not have shown a gain" in words.detectable([replace(ROW, detectable=math.inf)])
    assert "For 1 arm no difference" in words.detectable([ROW, replace(ROW, detectable=math.inf)])
    assert words.detectable([replace(ROW, detectable=math.nan)]) == ""


def test_an_interval_of_the_gap_without_a_bound_goes_on_beyond_the_axis() -> None:
    estimates = {"gan": figures.Estimate(0.5, -3.0, math.inf), "x": figures.Estimate(0.2, 0.1, 0.3)}
    (axes,) = figures.gap_figure(estimates, figures.arm_styles(["b", "gan", "x"], "b"), "share").axes
    left, right = axes.get_xlim()
    assert (left, right) == (-1, 2)
    ends = [(line.get_marker(), float(line.get_xdata()[0])) for line in axes.lines if line.get_marker() in ("<", ">")]
    assert ends == [("<", left), (">", right)]


def test_a_reference_is_called_one_and_is_no_part_of_the_headline() -> None:
    gain = words.finding(ROW, PLAN)
    for later in (False, True):
        row = replace(ROW, arm="all", verdict="reference: all labels", p_holm=math.nan, exploratory=later)
        ceiling = words.finding(row, PLAN)
        assert (ceiling.kind, ceiling.verdict) == ("reference", "reference: all labels")
        assert "ceiling, not a comparison" in ceiling.meaning
        assert words.headline([gain, ceiling], "b") == words.headline([gain], "b")
        assert words.headline([ceiling], "b").startswith("Only the baseline and the reference “all” were run")


def test_headline_counts_arms() -> None:
    gain, none = words.finding(ROW, PLAN), words.finding(replace(ROW, arm="x", verdict="no gain shown"), PLAN)
    assert words.headline([gain, none], "b") == "Gain shown for “gan” compared with b. No gain shown for the other one."
    assert words.headline([none], "b") == "No gain shown for “x” compared with b."
    assert words.headline([none, none], "b") == "No gain shown for any of the 2 arms compared with b."
    assert words.headline([], "b").startswith("Only the baseline was run")


def test_numbers_as_text() -> None:
    assert words.figure(math.nan) == words.UNKNOWN
    assert words.figure(math.inf) == "none"
    assert words.signed(-0.0001) == f"{words.MINUS}0.000"
    assert words.figure(1.234, "hd95") == "1.23"
    assert words.p_value(0.0004).replace(words.SPACE, " ") == "< 0.001"
    assert words.seconds(None) == words.seconds(math.nan) == words.UNKNOWN
    assert [words.seconds(t) for t in (5, 45, 90, 5400)] == ["5.0 s", "45 s", "1.5 min", "1.5 h"]
    assert words.plural(12345, "case") == "12\u202f345 cases"
    assert words.listed(["a", "b", "c"]) == "a, b and c"


def test_distances_are_in_mm_only_where_the_grid_has_a_spacing() -> None:
    assert words.metric_name(PLAN, "assd").endswith("(mm)")
    assert words.metric_name({**PLAN, "spacing": None}, "assd").endswith("(voxels of the grid)")


def dice(patient: str, structure: str, value: float) -> ScoreLine:
    return ScoreLine(f"case-{patient}", patient, "test", "dice", structure, value)


def test_patient_differences_average_structures_then_replicates() -> None:
    scores = {
        Cell(0, 0, 0, "classical"): [dice("a", "x", 0.5), dice("a", "y", 0.7), dice("b", "x", 0.4)],
        Cell(0, 0, 1, "classical"): [dice("a", "x", 0.6), dice("b", "x", 0.4)],
        Cell(0, 0, 0, "gan"): [dice("a", "x", 0.7), dice("a", "y", 0.9), dice("b", "x", 0.4), dice("b", "y", math.nan)],
        Cell(0, 0, 1, "gan"): [dice("a", "x", 0.9), dice("b", "x", 0.6)],
    }
    study = study_of(scores)
    assert patient_differences(study, "gan", 0) == pytest.approx([0.25, 0.1])
    assert replicate_differences(study, "gan", 0) == pytest.approx({Replicate(0, 0): 0.1, Replicate(0, 1): 0.25})


def test_replicate_that_only_one_arm_has_is_not_compared() -> None:
    scores = {
        Cell(0, 0, 0, "classical"): [dice("a", "x", 0.5)],
        Cell(0, 0, 0, "gan"): [dice("a", "x", 0.7)],
        Cell(0, 0, 1, "gan"): [dice("a", "x", 0.1)],
    }
    assert replicate_differences(study_of(scores), "gan", 0) == pytest.approx({Replicate(0, 0): 0.2})
    assert patient_differences(study_of(scores), "gan", 0) == pytest.approx([0.2])


def test_replicate_value_of_a_classification_is_scikit_learns_auc(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, Recipe(task="classification", seeds=2, gallery=False)))
    lines = [line for line in study.scores[Cell(0, 0, 1, "gan")] if line.split == "test"]
    given = {
        line.case_id: line.value for line in lines if (line.metric, line.structure) == ("probability", "malignant")
    }
    truth = {line.case_id: line.structure == "malignant" for line in lines if line.metric == "true_class"}
    expected = roc_auc_score([truth[case] for case in given], list(given.values()))
    assert replicate_values(study, "gan", 0)[Replicate(0, 1)] == pytest.approx(expected)


def test_reliability_bins_have_equal_mass() -> None:
    predicted = np.array([0.1] * 10 + [0.9] * 10)
    happened = np.array([False] * 9 + [True] * 11)
    curve = reliability(predicted, happened, bins=2)
    assert curve.counts.tolist() == [10, 10]
    assert curve.predicted == pytest.approx([0.1, 0.9])
    assert curve.observed == pytest.approx([0.1, 1.0])


def test_reliability_of_a_calibrated_model_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(20_000)
    curve = reliability(predicted, rng.random(20_000) < predicted)
    assert len(curve.counts) == 10
    assert np.abs(curve.predicted - curve.observed).max() < 0.04


def test_reliability_of_few_predictions_has_few_bins() -> None:
    assert len(reliability(np.linspace(0, 1, 12), np.ones(12, dtype=bool)).counts) == 2


def test_sweeps_are_arms_that_differ_in_one_number() -> None:
    arms = arms_of(Recipe(probabilities=(0.25, 0.75)))
    stronger = {**arms[2], "name": "gan s=2", "strength": 2.0}
    gated = {**arms[2], "name": "gan q=0.1", "probability": 0.5, "min_quality": 0.1}
    found = sweeps({"arms": [*arms, stronger, gated]})
    assert [(s.parameter, s.arms) for s in found] == [
        ("probability", ((0.25, "gan p=0.25"), (0.75, "gan p=0.75"))),
        ("strength", ((1.0, "gan p=0.25"), (2.0, "gan s=2"))),
    ]
    assert sweeps({"arms": arms_of(Recipe())}) == []


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_sprite_tiles_slices_with_anterior_up() -> None:
    volume = np.zeros((16, 18, 20), np.uint8)
    volume[3, 17, 5] = 200  # slice 5, column 3, foremost row
    layout = layout_of(volume, None, None)
    assert (layout.slices, layout.columns, layout.width, layout.height) == (20, 5, 18, 20)
    sheet = decoded(image_sprite(volume, layout))
    assert sheet.shape == (4 * 20, 5 * 18)
    tile = sheet[20:40, 0:18][1:-1, 1:-1]
    assert tile[0, 3] == 200
    assert (tile > 0).sum() == 1


def test_viewer_begins_where_the_label_is_largest() -> None:
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:6, 4:6, 3], label[2:12, 2:12, 9] = 1, 1
    assert layout_of(np.ones_like(label), label, None).start == 9


def test_many_slices_are_thinned_and_spacing_gives_the_shape() -> None:
    layout = layout_of(np.zeros((32, 16, 100), np.uint8), None, (1.0, 2.0, 1.0))
    assert (layout.step, layout.slices) == (3, 34)
    assert layout.aspect == 1.0


def test_outline_encloses_its_mask_and_is_transparent_elsewhere() -> None:
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:9, 5:10, :] = 1
    layout = layout_of(mask, mask, None)
    picture = Image.open(io.BytesIO(outline_sprite([(mask, "#E69F00", False)], layout))).convert("RGBA")
    tile = np.asarray(picture)[: layout.height * 3, : layout.width * 3][3:-3, 3:-3]
    drawn = tile[..., 3] > 0
    assert set(map(tuple, tile[drawn][:, :3])) == {(0xE6, 0x9F, 0x00)}
    rows, columns = np.nonzero(drawn)
    assert (columns.min(), columns.max()) == (12, 26)  # 4..8 along R, three pixels a voxel
    assert (rows.min(), rows.max()) == ((16 - 10) * 3, (16 - 5) * 3 - 1)  # anterior up
    assert drawn.sum() == 4 * 14
    assert not drawn[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()].any()
