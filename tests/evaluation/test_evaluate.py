from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medgan.checkpoint import Origin, load_checkpoint, save_checkpoint
from medgan.cli import app
from medgan.config import Config
from medgan.data.cohort import Case, Cohort, read_cohort
from medgan.data.split import content_hash, split_cohort
from medgan.errors import InputFault
from medgan.evaluation.cases import part_cases
from medgan.evaluation.evaluate import evaluate
from medgan.evaluation.privacy import STATEMENT


def with_cases(folder: Path, source: Path, cases: list[dict[str, str]], digest: str = "0") -> Path:
    """Write the generator of ``source`` as one that was trained on ``cases``."""
    loaded = load_checkpoint(source)
    origin = Origin(loaded.origin.class_names, loaded.origin.label_names, 1, cases, digest)
    save_checkpoint(folder, loaded.generator.state_dict(), loaded.config, origin)
    return folder


def record(case: Case) -> dict[str, str]:
    return {"case_id": case.case_id, "patient_id": case.patient_id, "content_sha256": content_hash(case)}


@pytest.fixture(scope="module")
def cohort(cohort_folder: Path) -> Cohort:
    return read_cohort(cohort_folder, class_key="size", classes=("small", "large"), labels={1: "ball"})


@pytest.fixture(scope="module")
def trained(
    cohort: Cohort, checkpoint_folder: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that was trained on the cohort's training split, and knows it."""
    split = split_cohort(cohort, tiny_config.data)
    cases = [record(case) for case in split.training]
    return with_cases(tmp_path_factory.mktemp("trained"), checkpoint_folder, cases, split.digest)


@pytest.fixture(scope="module")
def evaluated(
    trained: Path, cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("evaluation") / "of" / "tiny"
    return evaluate(trained, cohort_folder, output, siblings=2, task_steps=2), output


def test_the_report_returned_is_the_one_written(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, output = evaluated
    assert json.loads((output / "report.json").read_text()) == report
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_never_scrolls_sideways(evaluated: tuple[dict[str, Any], Path], browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((evaluated[1] / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("img").count() > 0
    page.close()


def test_no_picture_is_wider_than_a_printed_page(evaluated: tuple[dict[str, Any], Path], browser: Any) -> None:
    page = browser.new_page(viewport={"width": 640, "height": 900})  # A4 without its margins
    page.emulate_media(media="print")
    page.goto((evaluated[1] / "report.html").as_uri())
    widths = page.evaluate("[...document.images].map((picture) => picture.getBoundingClientRect().right)")
    assert widths
    assert max(widths) <= 640
    page.close()


def test_the_report_has_every_figure_next_to_its_floor(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, _ = evaluated
    assert [gap["figures"] for gap in report["left_out"]] == [
        "agreement of an independent network with the class small, large"
    ]
    assert report["cohort"]["training"] == {"cases": 6, "patients": 6, "label_maps": 5}
    assert report["cohort"]["held_out"]["cases"] == 6
    for name in ("frechet", "kernel", "histogram", "spectrum"):
        siblings, real = report["fidelity"][name]["siblings"], report["fidelity"][name]["real"]
        assert siblings["low"] <= siblings["value"] <= siblings["high"]
        assert real["low"] <= real["value"] <= real["high"]
    for column in ("siblings", "real", "ratio"):
        assert set(report["diversity"]["neighbourhoods"][column]) == {"precision", "recall", "density", "coverage"}
    assert report["diversity"]["unit"] == "mm"
    assert report["preservation"]["jacobian_min"]["count"] == 12
    assert report["preservation"]["labels"][0]["name"] == "ball"
    assert report["preservation"]["labels"][0]["sources"] == 5
    privacy = report["privacy"]
    link = privacy["linkage"]
    assert link["chance"] == pytest.approx(1 / 6)
    assert link["share"] == max(link["voxels"], link["features"], key=lambda figure: figure["value"])
    assert link["share"] == link[link["by"]]
    assert privacy["closest_record"]["chance"] == 0.5
    assert 0 <= privacy["copies"]["share"]["value"] <= 1
    assert privacy["neighbour_ratio"]["held_out"]["count"] == 6
    assert privacy["adversarial"]["size"] == 6
    assert set(privacy["membership"]) == {"voxels", "features"}
    (agreement,) = report["preservation"]["agreement"]
    assert (agreement["kind"], agreement["sources"], agreement["held_out_cases"]) == ("segmentation", 5, 6)
    assert -1 <= agreement["difference"]["value"] <= 1
    assert [target["name"] for target in report["targets"]] == ["mask_agreement", "folds", "coverage", "visible_noise"]


def test_volumes_as_they_come_stand_beside_those_interpolated_once(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, _ = evaluated
    assert report["raw"]["note"].startswith("Includes the smoothing of one interpolation")
    assert set(report["raw"]["fidelity"]) == set(report["fidelity"])
    assert report["raw"]["fidelity"]["spectrum"] != report["fidelity"]["spectrum"]


def test_cases_the_weights_were_chosen_by_are_named(evaluated: tuple[dict[str, Any], Path]) -> None:
    assert any(note.startswith("2 of the 6 held-out cases are the validation cases") for note in evaluated[0]["notes"])


def test_the_page_stands_alone_and_carries_the_statement(evaluated: tuple[dict[str, Any], Path]) -> None:
    page = (evaluated[1] / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*.(?!data:)", page)
    assert "http" not in page
    assert page.count("data:image/png;base64,") >= 4
    assert "treat it as that patient" in page
    assert STATEMENT.split(";")[2].strip() in page
    for words in ("Not measured here", "Targets", "Membership attack", "Adversarial accuracy", "in one board"):
        assert words in page
    # Of six unseen volumes none may be mistaken: one in seven members is found by chance.
    assert "14.3\u00a0%<small>by chance, with so few unseen" in page
    assert not re.search(r"\bnan\b|\bNone\b|Undefined", re.sub(r"base64,[^\"]*", "", page))


def test_a_run_again_gives_the_same_bytes(trained: Path, cohort_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate(trained, cohort_folder, tmp_path / name, siblings=2, seed=3, limit=4, task_steps=2)
    for file in ("report.json", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_weaker_siblings_move_less_and_the_page_says_how_strong_they_are(
    trained: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    whole, half = (
        evaluate(trained, cohort_folder, tmp_path / str(s), siblings=2, limit=4, task_steps=0, strength=s)
        for s in (1.0, 0.5)
    )
    assert half["settings"]["strength"] == 0.5
    assert half["diversity"]["shape_spread"]["value"] < 0.8 * whole["diversity"]["shape_spread"]["value"]
    assert half["preservation"]["jacobian_min"]["min"] > whole["preservation"]["jacobian_min"]["min"]
    page = (tmp_path / "0.5" / "report.html").read_text()
    top, bottom = page.index("Not anonymous"), page.index("How this was made")
    for words in ("it made 2 siblings of each", "siblings at strength 0.5", "with seed 0"):
        assert words in page[:top]
    assert "<code>medgan generate --seed 0 --strength 0.5</code> makes the same siblings" in page[bottom:]


def test_too_few_cases_for_a_feature_space_leave_its_figures_out(
    trained: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    report = evaluate(trained, cohort_folder, tmp_path, siblings=2, limit=2, task_steps=0)
    assert report["cohort"]["training"]["cases"] == report["cohort"]["held_out"]["cases"] == 2
    assert report["fidelity"] is None
    assert report["diversity"]["neighbourhoods"] is None
    assert report["privacy"]["closest_record"] is None
    assert report["privacy"]["copies"] is not None
    assert "at least 3" in report["left_out"][0]["reason"]
    assert report["preservation"]["agreement"] == []
    assert report["left_out"][1]["reason"] == "no steps were allowed for it"
    assert report["targets"][0]["met"] is None
    assert any("Only 2 training and 2 held-out" in note for note in report["notes"])


def test_without_held_out_cases_the_figures_that_need_them_are_left_out(
    cohort: Cohort, checkpoint_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    everything = with_cases(tmp_path / "g", checkpoint_folder, [record(case) for case in cohort.cases])
    report = evaluate(everything, cohort_folder, tmp_path / "out", siblings=2, task_steps=0)
    assert report["cohort"]["held_out"]["cases"] == 0
    assert report["fidelity"] is None
    assert report["privacy"]["copies"] is None
    assert "no case of this cohort is held out" in report["left_out"][0]["reason"]
    assert report["privacy"]["linkage"]["chance"] == pytest.approx(1 / 12)
    assert "Fréchet" not in (tmp_path / "out" / "report.html").read_text()


def test_of_an_unseen_cohort_siblings_are_made_and_it_is_said(
    checkpoint_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    stranger = with_cases(
        tmp_path / "g", checkpoint_folder, [{"case_id": "x", "patient_id": "x", "content_sha256": "x"}]
    )
    report = evaluate(stranger, cohort_folder, tmp_path / "out", siblings=2, limit=3, task_steps=0)
    assert report["cohort"]["sources"] == "held_out"
    assert report["preservation"]["jacobian_min"]["count"] == 6
    assert report["fidelity"] is None
    assert report["privacy"]["copies"] is None
    assert "no case of this cohort was trained on" in report["left_out"][0]["reason"]
    assert "none of which it was trained on" in (tmp_path / "out" / "report.html").read_text()


def test_held_out_by_name_only_is_not_held_out(cohort: Cohort, checkpoint_folder: Path, tmp_path: Path) -> None:
    first, second, third, fourth, *others = cohort.cases
    other_scan = replace(fourth, patient_id=third.patient_id)
    twin = replace(first, case_id="twin", patient_id="twin")
    cohort = replace(cohort, cases=(first, second, third, other_scan, *others, twin))
    cases = [
        record(first),
        {"case_id": "old scan", "patient_id": second.patient_id, "content_sha256": "x"},
        {"case_id": "old name", "patient_id": "old name", "content_sha256": content_hash(third)},
    ]
    parts = part_cases(cohort, load_checkpoint(with_cases(tmp_path, checkpoint_folder, cases)))
    assert [case.case_id for case in parts.training] == [first.case_id, third.case_id]
    assert [case.case_id for case in parts.held_out] == [case.case_id for case in others]
    assert parts.notes[0].startswith("3 cases were left out")


def test_the_cohort_of_training_under_other_ids_is_the_cohort_of_training(
    cohort: Cohort, checkpoint_folder: Path, tmp_path: Path
) -> None:
    cases = [
        record(case) | {"case_id": f"old {case.case_id}", "patient_id": f"old {case.patient_id}"}
        for case in cohort.cases
        if case.split == "training"
    ]
    parts = part_cases(cohort, load_checkpoint(with_cases(tmp_path, checkpoint_folder, cases)))
    assert [case.case_id for case in parts.training] == [c.case_id for c in cohort.cases if c.split == "training"]
    assert len(parts.held_out) == 6
    assert parts.notes[0].startswith("6 cases are training cases by their bytes")


def test_training_cases_with_other_bytes_are_reported(cohort: Cohort, checkpoint_folder: Path, tmp_path: Path) -> None:
    cases = [record(case) | {"content_sha256": "before"} for case in cohort.cases if case.split == "training"]
    parts = part_cases(cohort, load_checkpoint(with_cases(tmp_path, checkpoint_folder, cases)))
    assert len(parts.training) == 6
    assert any(note.startswith("6 cases bear the id of a training case") for note in parts.notes)


def test_a_cohort_of_nothing_but_other_scans_of_training_patients_is_refused(
    cohort: Cohort, cohort_folder: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    cases = [{"case_id": f"old {c.case_id}", "patient_id": c.patient_id, "content_sha256": "x"} for c in cohort.cases]
    with pytest.raises(InputFault, match="NO_SOURCES"):
        evaluate(with_cases(tmp_path / "g", checkpoint_folder, cases), cohort_folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"siblings": 1}, "SIBLINGS"),
        ({"limit": 0}, "LIMIT"),
        ({"task_steps": -1}, "TASK_STEPS"),
        ({"strength": 0}, "STRENGTH"),
        ({"strength": 4.1}, "STRENGTH"),
    ],
)
def test_arguments_out_of_range_are_refused(
    arguments: dict[str, int], code: str, trained: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputFault, match=code):
        evaluate(trained, cohort_folder, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_generator_that_copies_is_found_out(
    cohort: Cohort, make_identity: Callable[..., Path], cohort_folder: Path, tmp_path: Path
) -> None:
    cases = [record(case) for case in cohort.cases if case.split == "training"]
    copying = make_identity(tmp_path / "g", cases)
    report = evaluate(copying, cohort_folder, tmp_path / "out", siblings=2, task_steps=0)
    privacy, spread = report["privacy"], report["diversity"]
    assert privacy["linkage"]["share"]["value"] == privacy["copies"]["share"]["value"] == 1
    assert privacy["membership"]["voxels"]["auc"]["value"] == privacy["membership"]["features"]["auc"]["value"] == 1
    assert privacy["closest_record"]["share"]["value"] == 1
    assert privacy["adversarial"]["training"]["value"] == 0
    assert spread["shape_spread"]["value"] == spread["volume_spread"]["siblings"]["value"] == 0
    met = {target["name"]: target["met"] for target in report["targets"]}
    assert met["visible_noise"] is False
    assert met["folds"] is True


def test_json_on_stdout_is_the_report_alone(trained: Path, cohort_folder: Path, tmp_path: Path) -> None:
    arguments = ["--data", cohort_folder, "--output", tmp_path / "o", "--siblings", 2, "--limit", 3, "--task-steps", 0]
    result = CliRunner().invoke(app, ["evaluate", str(trained), *map(str, arguments), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((tmp_path / "o" / "report.json").read_text())


def test_a_damaged_case_leaves_no_half_a_report(trained: Path, cohort_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(cohort_folder, tmp_path / "cohort")
    damaged = broken / "images" / "case09.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(InputFault, match=r"case09\.nii\.gz"):
        evaluate(trained, broken, tmp_path / "out", siblings=2, task_steps=0)
    assert not (tmp_path / "out").exists()
