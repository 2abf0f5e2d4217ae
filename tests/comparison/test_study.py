from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from cubes import PATIENTS, study_tree, write_cohort
from mlflow import MlflowClient

from medgan import cli
from medgan.checkpoint import Origin, save_checkpoint
from medgan.comparison import execution, study
from medgan.comparison.cost import describe
from medgan.comparison.downstream import Trained
from medgan.comparison.engines import attempts
from medgan.comparison.kept import KeptModel, KeptModels
from medgan.comparison.metrics import METRICS
from medgan.comparison.plan import require_own_folder
from medgan.comparison.report import write_report
from medgan.comparison.results import CurvePoint, load_run, read_runs, read_table
from medgan.config import Config, parse_config
from medgan.data.cohort import open_cohort
from medgan.data.split import Split, content_hash, split_cohort
from medgan.errors import InputFault, TrainingFailure
from medgan.models.generator import Generator
from medgan.tracking import MLflowTracker, NoTracker

compare = partial(study.compare, workers=1)  # a process of its own takes seconds to start
SEEN, UNSEEN = {"patient_id": "p00", "case_id": "c00"}, {"patient_id": "elsewhere", "case_id": "elsewhere"}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> MLflowTracker:
    return MLflowTracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "study")


@pytest.fixture(scope="module")
def finished(
    config: Callable[..., Config], tracker: MLflowTracker, tmp_path_factory: pytest.TempPathFactory
) -> study.StudyResult:
    return compare(config(), tmp_path_factory.mktemp("study") / "out", tracker)


def checkpoint(folder: Path, config: Config, **case: str) -> Path:
    case = {**UNSEEN, "content_sha256": "0" * 64, **case}
    generator = Generator(config.model, 1, 0, config.preprocess.shape)
    save_checkpoint(folder, generator.state_dict(), config, Origin((), {3: "cube"}, 1, [case], "d", 5))
    return folder


def test_results_hold_every_arm_seed_and_case(finished: study.StudyResult) -> None:
    rows = read_table(finished.output / "results.csv")
    columns = ["arm", "labelled", "fold", "seed", "case_id", "patient_id", "split", "metric", "structure", "value"]
    assert list(rows[0]) == columns
    found = {(r["arm"], r["seed"], r["case_id"], r["metric"], r["structure"]) for r in rows if r["split"] == "test"}
    expected = {
        (arm, str(seed), f"c{i:02}", metric, "cube")
        for arm in ("none", "classical")
        for seed in (0, 1)
        for i in range(4)
        for metric in ("dice", "hd95", "assd")
    }
    assert found == expected
    assert all(0 <= float(r["value"]) <= 1 for r in rows if r["metric"] == "dice")
    assert {r["case_id"] for r in rows if r["split"] == "validation"} == {"c04", "c05"}


def test_the_summary_is_the_mean_of_the_results(finished: study.StudyResult) -> None:
    rows = read_table(finished.output / "results.csv")
    summary = {(r["arm"], r["metric"]): r for r in read_table(finished.output / "summary.csv")}
    means = {}
    for arm in ("none", "classical"):
        values = [float(r["value"]) for r in rows if (r["arm"], r["split"], r["metric"]) == (arm, "test", "dice")]
        means[arm] = sum(values) / len(values)
        row = summary[arm, "dice"]
        assert float(row["mean"]) == pytest.approx(means[arm])
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    row = summary["none", "dice"]
    assert float(row["difference"]) == pytest.approx(means["none"] - means["classical"])
    assert row["verdict"].startswith("exploratory")
    assert math.isnan(float(summary["classical", "dice"]["difference"]))
    assert summary["classical", "dice"]["verdict"] == ""
    assert {r.metric for r in finished.summary} == {"dice", "hd95", "assd"}


def test_the_plan_is_hashed_and_says_who_was_used(finished: study.StudyResult, config: Callable[..., Config]) -> None:
    frozen = json.loads((finished.output / "plan.json").read_text())
    plan = frozen["plan"]
    assert plan["cohort"]["training"] == {"cases": 8, "patients": 8, "used_cases": 7, "used_patients": 7, "classes": {}}
    assert plan["exploratory"] is True
    assert plan["generators"] == []
    data = config().data
    assert plan["split_digests"] == [split_cohort(open_cohort(data), data).digest]
    first = [records[0] for records in finished.runs[0].values()]
    assert all(load_run(finished.output / "runs", r.arm, 0, 0, 0, r.key) for r in first)
    assert load_run(finished.output / "runs", "none", 0, 0, 0, "other content") is None


def test_tracked_runs_are_nested_and_hold_every_step(finished: study.StudyResult, tracker: MLflowTracker) -> None:
    client = tracker._client
    runs = client.search_runs([tracker.experiment_id])
    (parent,) = [r for r in runs if r.data.tags["medgan.kind"] == "study"]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {(r.data.params["arm"], r.data.params["seed"]) for r in children} == {
        (arm, seed) for arm in ("none", "classical") for seed in "01"
    }
    assert {r.info.status for r in (parent, *children)} == {"FINISHED"}
    for child in children:
        assert [m.step for m in client.get_metric_history(child.info.run_id, "loss")] == [1, 2, 3, 4]
        assert [m.step for m in client.get_metric_history(child.info.run_id, "validation/dice")] == [2, 4]
        arm, seed = child.data.params["arm"], int(child.data.params["seed"])
        assert child.data.metrics["test/dice"] == pytest.approx(finished.runs[0][arm][seed].headline["dice"])
    assert {"report.html", "summary.csv"} <= {a.path for a in client.list_artifacts(parent.info.run_id)}


def test_the_report_is_one_file_that_needs_nothing(finished: study.StudyResult) -> None:
    page = (finished.output / "report.html").read_text()
    assert "exploratory" in page
    assert "data:image/png;base64," in page
    assert not re.search(r"""(src|href)=["']?https?:""", page)
    assert (finished.output / "report.md").is_file()


def test_the_report_can_be_written_again_from_the_files_alone(finished: study.StudyResult) -> None:
    before = (finished.output / "report.html").read_bytes()
    (finished.output / "report.html").unlink()
    assert write_report(finished.output).read_bytes() == before


def test_results_read_back_are_the_runs(finished: study.StudyResult) -> None:
    again = read_runs(finished.output)
    for arm, records in finished.runs[0].items():
        assert [r.scores for r in again[0][arm]] == [r.scores for r in records]
        assert [r.curve for r in again[0][arm]] == [r.curve for r in records]


def test_finished_runs_are_not_run_again(
    finished: study.StudyResult, config: Callable[..., Config], made: list[str]
) -> None:
    results = (finished.output / "results.csv").read_bytes()
    again = compare(config(), finished.output, NoTracker())
    assert made == []
    assert again.reused == 4
    assert (finished.output / "results.csv").read_bytes() == results
    # A run that is missing or damaged is made again, and comes out the same.
    runs = finished.output / "runs"
    next(runs.glob("none-*seed1.json")).unlink()
    next(runs.glob("classical-*seed0.json")).write_text('{"key":')
    again = compare(config(), finished.output, NoTracker())
    assert sorted(made) == ["classical", "none"]
    assert again.reused == 2
    assert (finished.output / "results.csv").read_bytes() == results


def test_a_failed_run_is_tracked_with_the_code_of_its_own_failure(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempts.execute
    failures = {"none": torch.OutOfMemoryError("CUDA out of memory"), "classical": TrainingFailure("loss became nan")}

    def failing(material: Any, cell: Any, *rest: Any) -> Any:
        if cell.seed == 1:
            raise failures[cell.arm]
        return run(material, cell, *rest)

    monkeypatch.setattr(attempts, "execute", failing)
    store = MLflowTracker(f"sqlite:///{tmp_path}/mlflow.db", "failures")
    assert len(compare(config(), tmp_path / "out", store).failed) == 2
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs([store.experiment_id])
    said = {r.data.tags["medgan.arm"]: r.data.tags["medgan.error"] for r in runs if r.info.status == "FAILED"}
    assert said == {"none": "OUT_OF_MEMORY", "classical": "NOT_FINITE"}


def test_runs_in_processes_of_their_own_give_the_same_figures(
    finished: study.StudyResult, config: Callable[..., Config], tmp_path: Path
) -> None:
    apart = compare(config(), tmp_path / "out", NoTracker(), workers=2)
    assert apart.reused == 0
    assert (tmp_path / "out" / "results.csv").read_bytes() == (finished.output / "results.csv").read_bytes()


def test_an_arm_added_later_is_exploratory_and_the_others_stay(
    finished: study.StudyResult, config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = shutil.copytree(finished.output, tmp_path / "out")
    result = compare(config(arms=["none", "classical", "classical+duplicate"]), folder, NoTracker())
    assert result.reused == 4
    assert {r.arm for r in result.summary if r.exploratory} == {"classical+duplicate"}
    frozen = json.loads((folder / "plan.json").read_text())
    assert len(frozen["earlier"]) == 1
    assert [arm["exploratory"] for arm in frozen["plan"]["arms"]] == [False, False, True]


def test_a_reference_is_trained_with_all_labels_and_changes_nothing_else(
    finished: study.StudyResult, config: Callable[..., Config], tmp_path: Path
) -> None:
    few = {"labelled": 2}
    before = compare(config(few), tmp_path / "out", NoTracker())
    rows = {name: read_table(before.output / name) for name in ("results.csv", "summary.csv")}
    arms = ["none", "classical", "classical+all-labels"]
    after = compare(config(few, arms=arms), before.output, NoTracker())
    assert after.reused == 4
    for name, earlier in rows.items():
        kept = [row for row in read_table(after.output / name) if row["arm"] != "classical+all-labels"]
        assert kept == earlier
    # With every annotation it is the classical arm of the study that takes none away, to the last digit.
    ceiling, whole = after.runs[2]["classical+all-labels"], finished.runs[0]["classical"]
    assert [r.scores for r in ceiling] == [r.scores for r in whole]
    assert [r.scores for r in ceiling] != [r.scores for r in after.runs[2]["classical"]]
    (row,) = [r for r in after.summary if (r.arm, r.metric, r.structure) == ("classical+all-labels", "dice", "")]
    assert row.verdict == "reference: all labels"
    plan = json.loads((after.output / "plan.json").read_text())["plan"]
    assert [arm.get("annotated_cases") for arm in plan["arms"]] == [None, None, [7]]
    page = (after.output / "report.md").read_text()
    assert "trained with the annotations of all 7 annotated training cases" in page
    assert "2 arms were compared" in page


def test_the_gap_is_measured_when_a_reference_is_added_to_a_finished_study(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    arms = ["classical", "classical+gan"]
    settings = config({"labelled": 2}, arms=arms, steps=2, checkpoint=str(checkpoint(tmp_path / "generator", config())))
    assert compare(settings, tmp_path / "out", NoTracker()).gaps == ()
    assert not (tmp_path / "out" / "gap.csv").exists()
    more = settings.compare.model_copy(update={"arms": (*arms, "classical+all-labels")})
    after = compare(settings.model_copy(update={"compare": more}), tmp_path / "out", NoTracker())
    assert after.reused == 4
    (row,) = after.gaps
    assert (row.labelled, row.arm, row.best, row.ceiling) == (2, "classical+gan", "classical", "classical+all-labels")
    assert row.exploratory
    means = {r.arm: r.mean for r in after.summary if (r.metric, r.structure) == ("dice", "")}
    assert row.difference == pytest.approx(means["classical+gan"] - means["classical"])
    assert row.room == pytest.approx(means["classical+all-labels"] - means["classical"])
    assert len(read_table(tmp_path / "out" / "gap.csv")) == 1
    assert "Gap closed" in (tmp_path / "out" / "report.html").read_text()


def test_a_reference_in_classification_and_folds(config: Callable[..., Config], tmp_path: Path) -> None:
    settings = config(
        {"class_key": "kind", "folds": 3}, arms=["classical", "all-labels"], task="classification", labelled=[4, 5],
        splits=2, seeds=1, steps=2,
    )  # fmt: skip
    result = compare(settings, tmp_path / "out", NoTracker())
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())["plan"]
    numbers = [part["training"]["used_cases"] for part in plan["cohort_folds"]]
    assert numbers == [4, 4, 5, 5]
    assert all(annotated > 5 for annotated in plan["arms"][1]["annotated_cases"])
    for n in (4, 5):
        # Whatever the block takes away, the reference has it.
        assert [r.scores for r in result.runs[n]["all-labels"]] == [r.scores for r in result.runs[4]["all-labels"]]


def test_a_reference_without_further_labels_is_refused(config: Callable[..., Config], tmp_path: Path) -> None:
    arms = ["classical", "classical+all-labels"]
    for data, compared in (({}, {}), ({"labelled": 7}, {}), ({}, {"labelled": [2, 7]})):
        with pytest.raises(InputFault, match=r"NO_FURTHER_LABELS.*beyond the 7 that every arm"):
            compare(config(data, arms=arms, **compared), tmp_path / "out", NoTracker())
    assert not (tmp_path / "out").exists()


def test_every_seed_can_have_other_labelled_cases(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: dict[str, list[list[str]]] = {"none": [], "classical": []}
    train = execution.train_downstream

    def recorded(task: Any, training: Any, validation: Any, arm: Any, transform: Any, *rest: Any) -> Any:
        learned[arm.name].append([p.case.case_id for p in training])
        return train(task, training, validation, arm, transform, *rest)

    monkeypatch.setattr(execution, "train_downstream", recorded)
    settings = config({"labelled": 2}, arms=list(learned), seeds=4, steps=1, redraw=True)
    result = compare(settings, tmp_path / "out", NoTracker())
    assert learned["none"] == learned["classical"]  # paired
    assert {len(cases) for cases in learned["none"]} == {2}
    assert len({tuple(cases) for cases in learned["none"]}) > 1
    assert "4 paired seeds on one fixed split by patient, each with other" in (tmp_path / "out/report.md").read_text()
    assert "(4 seeds, each with other labelled cases" in (tmp_path / "out/report.html").read_text()
    assert "seeds 4, each with other labelled cases: 8 runs" in describe(settings, workers=1)
    again = compare(settings, tmp_path / "out", NoTracker())
    assert again.reused == 8
    assert again.summary == result.summary


def test_a_generator_that_knows_classes_is_refused_where_they_are_drawn_anew(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    settings = config({"class_key": "kind", "labelled": 4}, arms=["classical", "gan"], task="classification",
                      redraw=True, checkpoint=str(tmp_path / "gan"))  # fmt: skip
    generator = Generator(settings.model, 1, 2, settings.preprocess.shape)
    origin = Origin(("a", "b"), {}, 1, [{**UNSEEN, "content_sha256": "0" * 64}], "d", 5)
    save_checkpoint(tmp_path / "gan", generator.state_dict(), settings, origin)
    with pytest.raises(InputFault, match=r"LEAK.*those of the first draw"):
        compare(settings, tmp_path / "out", NoTracker())


def test_a_plan_changed_by_hand_is_noticed(
    finished: study.StudyResult, config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = shutil.copytree(finished.output, tmp_path / "out")
    (folder / "plan.json").write_text((folder / "plan.json").read_text().replace('"steps": 4', '"steps": 400'))
    with pytest.raises(InputFault, match="changed after it was frozen"):
        compare(config(), folder, NoTracker())


def test_controls_blocks_and_folds_in_one_study(config: Callable[..., Config], tmp_path: Path) -> None:
    arms = ["classical", "classical+identity", "classical+random-deformation", "classical+self-training"]
    settings = config(
        {"folds": 2}, arms=arms, labelled=[2, 4], splits=2, seeds=1, steps=2,
        checkpoint=str(tmp_path / "generator-{fold}"),
    )  # fmt: skip
    for fold in range(2):
        checkpoint(tmp_path / f"generator-{fold}", settings)
    result = compare(settings, tmp_path / "out", NoTracker())
    rows = {(r.labelled, r.arm): r for r in result.summary if (r.metric, r.structure) == ("dice", "")}
    assert sorted(rows) == sorted((n, arm) for n in (2, 4) for arm in arms)
    for n in (2, 4):
        # Strength 0 changes nothing: the control of the study's own machinery.
        assert rows[n, "classical+identity"].difference == 0
        assert rows[n, "classical+identity"].replicates == 2
        assert math.isfinite(rows[n, "classical+self-training"].p_corrected)
    teachers = {row["arm"]: float(row["teacher_seconds"]) for row in read_table(tmp_path / "out" / "runs.csv")}
    assert teachers["classical+self-training"] > 0
    assert teachers["classical"] == 0


def test_another_site_is_tested_on_as_well(config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    manifest = write_cohort(tmp_path / "site", seed=5)
    result = compare(config(test={"root": str(manifest)}, seeds=1), tmp_path / "out", NoTracker())
    external = [r for r in result.summary if r.split == "external" and (r.metric, r.structure) == ("dice", "")]
    assert [r.patients for r in external] == [PATIENTS - 1] * 2
    assert {r.verdict for r in external} == {""}


def test_another_site_with_scans_that_were_trained_on_is_refused(
    config: Callable[..., Config], manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputFault, match="LEAK"):
        compare(config(test={"root": str(manifest)}), tmp_path / "out", NoTracker())


def test_a_scan_saved_anew_under_another_name_is_refused(config: Callable[..., Config], tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    image = nibabel.load(tmp_path / "i10.nii.gz")
    # Other bytes, the same voxels: another dtype and scale.
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() * 3, image.affine), tmp_path / "i00.nii.gz")
    with pytest.raises(InputFault, match=r"LEAK.*voxel for voxel"):
        compare(config({"root": str(manifest)}), tmp_path / "out", NoTracker())


def test_left_and_right_of_one_person_stay_on_one_side(config: Callable[..., Config], tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    manifest.write_text(manifest.read_text().replace("c00,p00", "c00,p10"))
    with pytest.raises(InputFault, match="PATIENT_IN_TWO_SPLITS"):
        compare(config({"root": str(manifest)}), tmp_path / "out", NoTracker())


def test_a_generator_that_knew_more_classes_than_the_models_is_refused(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    settings = config({"class_key": "kind"})
    case = {**UNSEEN, "content_sha256": "0" * 64}
    weights = Generator(settings.model, 1, 2, settings.preprocess.shape).state_dict()
    origin = Origin(("bright", "dark"), {3: "cube"}, 1, [case], "d", 5)
    save_checkpoint(tmp_path / "generator", weights, settings, origin)
    few = config(
        {"class_key": "kind", "labelled": 4}, arms=["none", "gan"], baseline="none", task="classification",
        checkpoint=str(tmp_path / "generator"),
    )  # fmt: skip
    with pytest.raises(InputFault, match=r"LEAK.*all classes"):
        compare(few, tmp_path / "out", NoTracker())


@pytest.mark.parametrize(
    ("preprocess", "code"),
    [
        ({"intensity": {"kind": "unit"}}, "OTHER_INTENSITY"),
        ({"spacing": [2, 2, 2]}, "OTHER_GRID"),
    ],
)
def test_a_generator_of_another_grid_or_range_is_refused(
    preprocess: dict[str, Any], code: str, config: Callable[..., Config], tmp_path: Path
) -> None:
    settings = config(arms=["none", "gan"], baseline="none", checkpoint=str(tmp_path / "generator"))
    grid = settings.preprocess.model_dump() | preprocess
    checkpoint(tmp_path / "generator", parse_config({**settings.model_dump(mode="json"), "preprocess": grid}))
    with pytest.raises(InputFault, match=code):
        compare(settings, tmp_path / "out", NoTracker())


def test_a_quality_without_a_critic_is_refused_before_the_start(config: Callable[..., Config], tmp_path: Path) -> None:
    folder = str(tmp_path / "generator")
    settings = config(arms=["none", "gan"], baseline="none", checkpoint=folder, gan={"min_quality": 0.05})
    checkpoint(tmp_path / "generator", settings)
    with pytest.raises(InputFault, match="NO_CRITIC") as caught:
        compare(settings, tmp_path / "out", NoTracker())
    assert "min_quality of arm 'gan'" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_it_will_cost_and_writes_nothing(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = describe(config(), workers=1)
    assert "4 runs of 4 steps, 1 at a time" in words
    assert "classical: about" in words
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_warns_of_too_few_seeds_as_the_study_does(
    config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    describe(config(), workers=1)
    assert "compare.seeds is 2: with 1 comparisons no difference can be shown under 6 seeds" in caplog.text


def test_fits_are_counted_once_and_apart(config: Callable[..., Config]) -> None:
    words = describe(config(arms=["classical", "classical+atlas"], baseline="classical"), workers=1)
    assert "fitting scans to scans: about" in words
    assert "fitting" not in describe(config(), workers=1)


def test_an_arm_with_fitted_scans_runs_and_is_the_same_again(config: Callable[..., Config], tmp_path: Path) -> None:
    chosen = config(arms=["classical", "classical+self-training", "classical+atlas"], baseline="classical", seeds=1)
    tables = []
    for name in ("a", "b"):
        compare(chosen, tmp_path / name, NoTracker())
        tables.append((tmp_path / name / "results.csv").read_bytes())
    assert tables[0] == tables[1]
    of = {
        arm: [line for line in tables[0].splitlines() if line.startswith(arm)]
        for arm in (b"classical+self", b"classical+atlas")
    }
    values = {arm: [line.rsplit(b",", 1)[-1] for line in lines] for arm, lines in of.items()}
    assert values[b"classical+self"] != values[b"classical+atlas"]


def test_a_teacher_is_trained_once_whatever_arms_it_teaches(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = execution.train_downstream

    def counted(*arguments: Any, **keywords: Any) -> Any:
        trained.append("+".join(arguments[3].parts))
        return train(*arguments, **keywords)

    monkeypatch.setattr(execution, "train_downstream", counted)
    arms = ["classical+self-training", "classical", "classical+atlas", "none"]
    compare(config(arms=arms, baseline="classical", seeds=1), tmp_path / "kept", NoTracker())
    assert trained == ["classical", "none", "classical+self-training", "classical+atlas"]
    assert not (tmp_path / "kept" / "kept").exists()
    # The same to the byte where every teacher is trained anew.
    monkeypatch.setattr("medgan.comparison.kept.KeptModels.recall", lambda *_: None)
    compare(config(arms=arms, baseline="classical", seeds=1), tmp_path / "anew", NoTracker())
    assert len(trained) == 4 + 6
    tables = [(tmp_path / name / "results.csv").read_bytes() for name in ("kept", "anew")]
    assert tables[0] == tables[1]


def test_what_was_kept_comes_back_whole_and_is_trained_again_where_nobody_can_read_it(tmp_path: Path) -> None:
    kept, network = KeptModels(tmp_path / "kept"), torch.nn.Linear(2, 3)
    model = KeptModel(
        Trained(network, (CurvePoint(2, "dice", 0.5),), 1.5), 0.5, ((1, {"loss": 0.25}), (2, {"loss": 0.125}))
    )
    kept.keep("key", model)  # before there is a folder: nothing is kept, nothing is harmed
    assert kept.recall("key", network) is None
    kept.open()
    kept.keep("key", model)
    kept.keep("key", KeptModel(Trained(torch.nn.Linear(2, 3), (), 9.0)))  # tells less: the other stays
    other = torch.nn.Linear(2, 3)
    again = kept.recall("key", other)
    assert again is not None
    assert again.trained.network is other
    assert torch.equal(other.weight, network.weight)
    assert (again.trained.curve, again.trained.seconds) == (model.trained.curve, 1.5)
    assert (again.teacher_seconds, again.steps) == (0.5, model.steps)
    kept.keep("another", model)
    kept.keep_only({"key"})
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["key.safetensors"]
    (tmp_path / "kept" / "key.safetensors").write_bytes(b"not a network")
    assert kept.recall("key", other) is None
    kept.keep("key", KeptModel(Trained(network, (), 9.0)))
    assert kept.recall("key", other) is not None  # what nobody could read is no obstacle
    # A network that lists the same weights twice, as MONAI's DynUNet does.
    twice = torch.nn.ModuleDict({"first": network, "again": torch.nn.Sequential(network)})
    kept.keep("twice", KeptModel(Trained(twice, (), 1.0)))
    other = torch.nn.Linear(2, 3)
    assert kept.recall("twice", torch.nn.ModuleDict({"first": other, "again": torch.nn.Sequential(other)})) is not None
    assert torch.equal(other.weight, network.weight)
    assert KeptModels().recall("key", other) is None
    kept.close()
    assert not list(tmp_path.iterdir())


def test_another_plan_is_refused_the_folder(finished: study.StudyResult, config: Callable[..., Config]) -> None:
    with pytest.raises(InputFault, match=r"OUTPUT_IN_USE.*compare"):
        compare(config(steps=5), finished.output, NoTracker())
    assert json.loads((finished.output / "plan.json").read_text())["plan"]["compare"]["steps"] == 4


def test_a_folder_that_something_else_filled_is_refused_before_anything_is_read(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputFault, match="OUTPUT_IN_USE"):
        compare(config({"root": str(tmp_path / "no cohort")}), tmp_path, NoTracker())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_start_that_was_interrupted_while_it_wrote_its_plan_does_not_bar_the_next(tmp_path: Path) -> None:
    (tmp_path / ".plan.json.123.tmp").write_text("{")
    require_own_folder(tmp_path)
    require_own_folder(tmp_path / "new")


@pytest.mark.parametrize("met", ["patient_id", "case_id", "content_sha256"])
def test_a_generator_that_saw_a_test_patient_is_refused(
    met: str, config: Callable[..., Config], tmp_path: Path
) -> None:
    case = next(c for c in open_cohort(config().data).cases if c.case_id == "c00")
    known = {**SEEN, "content_sha256": content_hash(case)}
    folder = checkpoint(tmp_path / "generator", config(), **{met: known[met]})
    with pytest.raises(InputFault, match="LEAK") as fault:
        compare(config(arms=["gan"], baseline="gan", checkpoint=str(folder)), tmp_path / "out", NoTracker())
    assert "p00" not in str(fault.value)
    assert "c00" not in str(fault.value)
    assert not (tmp_path / "out").exists()


def test_a_generator_that_was_chosen_by_test_patients_is_refused(
    manifest: Path,
    config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort = open_cohort(config().data)
    mine = split_cohort(cohort, config().data)
    tested = {case.patient_id for case in mine.test}
    held_out = tested | {case.patient_id for case in mine.validation}

    def trained_with(seed: int) -> tuple[Config, Split]:
        theirs = config({"given_split": False, "validation": 0.35, "test": 0.35, "split_seed": seed})
        return theirs, split_cohort(cohort, theirs.data)

    # Drawn anew, so that the generator was trained with none of the study's held-out patients but chosen by some.
    theirs, split = next(
        (theirs, split)
        for theirs, split in map(trained_with, range(2000))
        if not {case.patient_id for case in split.training} & held_out
        and {case.patient_id for case in split.validation} & tested
    )
    seen = [
        {"case_id": c.case_id, "patient_id": c.patient_id, "content_sha256": content_hash(c)} for c in split.training
    ]
    weights = Generator(theirs.model, 1, 0, theirs.preprocess.shape).state_dict()
    folder = tmp_path / "generator"
    save_checkpoint(folder, weights, theirs, Origin((), {3: "cube"}, 1, seen, split.digest, 5))
    arms = {"arms": ["none", "gan"], "baseline": "none", "checkpoint": str(folder)}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study_tree(manifest, **arms)))
    command = ["medgan", "compare", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(rf"{re.escape(str(folder))}: LEAK: the generator was chosen by \d of this study's test", line)
    assert not (tmp_path / "out").exists()


def test_copies_across_the_split_are_refused(config: Callable[..., Config], tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    (tmp_path / "i00.nii.gz").write_bytes((tmp_path / "i10.nii.gz").read_bytes())
    (tmp_path / "l00.nii.gz").write_bytes((tmp_path / "l10.nii.gz").read_bytes())
    with pytest.raises(InputFault, match="LEAK"):
        compare(config({"root": str(manifest)}), tmp_path / "out", NoTracker())


def test_arms_with_a_generator_run_with_one_that_saw_nobody_tested(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "generator", config())
    arms = ["classical", "gan", "classical+gan"]
    settings = config(arms=arms, checkpoint=str(folder), seeds=1, steps=2, gan={"probability": 1.0})
    result = compare(settings, tmp_path / "out", NoTracker())
    assert [r.arm for r in result.summary if r.metric == "dice"] == arms
    assert len(list((tmp_path / "out" / "runs").glob("classical-and-gan-*seed0.json"))) == 1
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())["plan"]
    assert plan["generators"][0]["steps"] == 5
    page = (tmp_path / "out" / "report.html").read_text()
    assert plan["generators"][0]["sha256"] in page


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_an_arm_without_its_generator_names_the_remedy(
    folder: str | None, config: Callable[..., Config], tmp_path: Path
) -> None:
    settings = config(arms=["classical", "gan"], checkpoint=folder and str(tmp_path / folder))
    with pytest.raises(InputFault, match=r"NO_CHECKPOINT.*medgan train.*compare\.checkpoint"):
        compare(settings, tmp_path / "out", NoTracker())


def test_classification_end_to_end(config: Callable[..., Config], tmp_path: Path) -> None:
    settings = config({"class_key": "kind"}, task="classification", seeds=1)
    result = compare(settings, tmp_path / "out", NoTracker())
    assert {r.metric for r in result.summary} == set(METRICS["classification"])
    assert all(0 <= r.low <= r.mean <= r.high <= 1 for r in result.summary if r.metric == "auc")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())["plan"]
    assert plan["cohort"]["training"]["classes"] == {"bright": 3, "dark": 4}
    assert "Classification has no pictures of failures" in (tmp_path / "out" / "report.html").read_text()


def test_siblings_of_binary_shapes_are_shown_without_grey_edges(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    for image, label in zip(sorted(tmp_path.glob("i*")), sorted(tmp_path.glob("l*")), strict=True):
        image.write_bytes(label.read_bytes())
    tree = study_tree(manifest, {"modality": "mask"}, arms=["none", "gan"], baseline="none", seeds=1, steps=1)
    tree["model"] |= {"max_gain": 0.0, "max_offset": 0.0}
    shapes = parse_config(tree)
    generator = Generator(shapes.model, 1, 0, shapes.preprocess.shape)
    with torch.no_grad():
        generator.velocity.weight.mul_(15)  # untrained, it hardly moves anything
    tree["compare"]["checkpoint"] = str(tmp_path / "generator")
    origin = Origin((), {3: "cube"}, 1, [{**UNSEEN, "content_sha256": "0" * 64}], "d", 5)
    save_checkpoint(tmp_path / "generator", generator.state_dict(), shapes, origin)
    compare(parse_config(tree), tmp_path / "out", NoTracker())
    with np.load(tmp_path / "out" / "gallery.npz") as arrays:
        siblings = [arrays[name] for name in arrays.files if "sibling" in name and name.endswith("image")]
    assert len(siblings) == 9
    assert all(set(np.unique(sibling)) <= {0, 255} for sibling in siblings)


def test_too_little_to_train_or_to_tell_apart_is_refused(config: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="NO_CLASSES"):
        compare(config(task="classification"), tmp_path / "out", NoTracker())
    with pytest.raises(InputFault, match=r"compare\.batch"):
        compare(config({"class_key": "kind"}, task="classification", batch=1), tmp_path / "out", NoTracker())


def test_a_study_without_test_cases_is_refused(config: Callable[..., Config], tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    manifest.write_text(manifest.read_text().replace(",test", ",training"))
    with pytest.raises(InputFault, match="NO_TEST"):
        compare(config({"root": str(manifest)}), tmp_path / "out", NoTracker())
