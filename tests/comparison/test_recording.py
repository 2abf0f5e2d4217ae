from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from finished_studies import Recipe, plan_of

from medgan.checkpoint import load_checkpoint
from medgan.comparison.account import champion_of, datasets, plan_params, verdict_line
from medgan.comparison.design import Cell
from medgan.comparison.gap_table import GAP_COLUMNS, GapRow
from medgan.comparison.recording import StudyRecorder
from medgan.comparison.results import CurvePoint, write_table
from medgan.comparison.summary import COLUMNS
from medgan.errors import TrainingFailure
from medgan.tracking import MLflowTracker, NoTracker

mlflow = pytest.importorskip("mlflow")

CANARIES = ("canary-case-7", "canary-patient-7")
COUNTS = {"cases": 9, "patients": 8, "used_cases": 7, "used_patients": 6}
ARMS = [
    {"name": "none", "parts": [], "generator": None, "exploratory": False},
    {"name": "classical", "parts": ["classical"], "generator": None, "exploratory": False},
    {"name": "gan", "parts": ["gan"], "generator": "dagan", "probability": 0.5, "exploratory": False},
]
PLAN: dict[str, Any] = {
    **plan_of(Recipe(name="hippocampus", labelled=(4, 0), seeds=2), ARMS),
    "exploratory": False,
    "external_digest": "c" * 64,
    "cohort": dict.fromkeys(("training", "validation", "test", "external"), COUNTS),
}


def row(arm: str, verdict: str = "", difference: float = math.nan, **changes: object) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(COLUMNS, math.nan)
    values |= {"labelled": 0, "split": "test", "arm": arm, "metric": "dice", "structure": "", "mean": 0.8, "low": 0.7}
    values |= {"high": 0.9, "difference": difference, "difference_low": difference, "difference_high": difference}
    values |= {"verdict": verdict, "replicates": 2, "patients": 6, "missing": 0, "seconds": 1.5, "exploratory": False}
    return values | {"p_holm": 0.03 if verdict else math.nan} | changes


ROWS = [
    row("classical"),
    row("gan", "gain", 0.03),
    row("none", "loss", -0.05),
    row("gan", "no gain shown", 0.01, labelled=4),
    row("gan", structure="anterior", difference=0.02),
    row("gan", split="external", difference=0.02, mean=0.75),
]


NAN = math.nan
GAP_ROW = GapRow(
    0, "gan", "dice", 0.8, "none", 0.78, "reference", 0.83, 0.02, 0.01, 0.03, 0.05, 0.02, 0.08, 0.4, 0.1, math.inf, 8, 6
)
GAPS = [GAP_ROW, replace(GAP_ROW, labelled=4, closed=NAN, closed_low=NAN, closed_high=NAN)]


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> MLflowTracker:
    return MLflowTracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "studies")


@pytest.fixture(scope="module")
def client(tracker: MLflowTracker) -> Any:
    return mlflow.MlflowClient(tracking_uri=tracker.uri)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study's folder; its results and gallery name a patient and a case."""
    folder = tmp_path_factory.mktemp("study")
    write_table(folder / "summary.csv", ROWS, COLUMNS)
    write_table(folder / "gap.csv", [asdict(gap) for gap in GAPS], GAP_COLUMNS)
    (folder / "results.csv").write_text(f"arm,case_id,patient_id\ngan,{CANARIES[0]},{CANARIES[1]}\n")
    (folder / "gallery.json").write_text(json.dumps(CANARIES))
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "report.md").write_text("# report")
    (folder / "figures").mkdir()
    (folder / "figures" / "forest.png").write_bytes(b"png")
    return folder


@dataclass(frozen=True)
class Finished:
    parent: Any
    children: dict[str, Any]
    registered: dict[str, str]


@pytest.fixture(scope="module")
def finished(
    tracker: MLflowTracker,
    client: Any,
    output: Path,
    make_checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    checkpoint = load_checkpoint(make_checkpoint(tmp_path_factory.mktemp("generator")))
    with StudyRecorder(tracker, PLAN, "d" * 64) as study:
        with study.child(Cell(4, 0, 0, "none")) as first, study.child(Cell(0, 0, 1, "gan")) as second:
            for step in (20, 40):
                first.on_step(step, {"loss": 1 / step})
                second.on_step(step, {"loss": 2 / step, "validation/dice": step / 100})
            first.result({"dice": 0.7}, 3.0)
            second.result({"dice": 0.8, "hd95": 2.0}, 4.0, teacher_seconds=1.0)
        study.record_again(Cell(0, 0, 0, "classical"), {"dice": 0.75}, [CurvePoint(20, "dice", 0.6)], 2.0)
        with study.child(Cell(0, 0, 1, "classical")) as failing:
            failing.fail("NOT_FINITE")
        registered = study.finish(output, {"dagan": checkpoint})
    runs = client.search_runs([tracker.experiment_id])
    parent = next(run for run in runs if run.info.run_id == study.run.run_id)
    children = {run.info.run_name: run for run in runs if run.info.run_id != study.run.run_id}
    return Finished(parent, children, registered)


def test_every_training_is_a_child_of_the_study_with_its_coordinates(finished: Finished) -> None:
    assert sorted(finished.children) == [
        "classical, all labelled, seed 0",
        "classical, all labelled, seed 1",
        "gan, all labelled, seed 1",
        "none, 4 labelled, seed 0",
    ]
    for run in finished.children.values():
        assert run.data.tags["mlflow.parentRunId"] == finished.parent.info.run_id
        assert run.data.tags["medgan.plan"] == "d" * 64
    gan = finished.children["gan, all labelled, seed 1"].data
    assert (gan.params["arm"], gan.params["labelled"], gan.params["fold"], gan.params["seed"]) == ("gan", "0", "0", "1")
    assert gan.params["generator"] == "dagan"
    assert gan.metrics == {
        "loss": 0.05,
        "validation/dice": 0.4,
        "test/dice": 0.8,
        "test/hd95": 2.0,
        "seconds": 4.0,
        "teacher_seconds": 1.0,
    }


def test_a_reused_training_says_so(finished: Finished) -> None:
    reused = {name for name, run in finished.children.items() if run.data.tags.get("medgan.reused") == "true"}
    assert reused == {"classical, all labelled, seed 0"}
    assert finished.children["classical, all labelled, seed 0"].data.metrics["validation/dice"] == 0.6


def test_a_failed_training_is_failed_with_its_reason_and_the_study_is_not(finished: Finished) -> None:
    failed = finished.children["classical, all labelled, seed 1"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["medgan.error"] == "NOT_FINITE"
    assert finished.parent.info.status == "FINISHED"


def test_the_study_holds_plan_verdict_and_learning_curve(finished: Finished, client: Any) -> None:
    data = finished.parent.data
    assert finished.parent.info.run_name == "hippocampus: study"
    assert data.params["compare.baseline"] == "classical"
    assert data.params["arm.gan.probability"] == "0.5"
    assert data.tags["medgan.kind"] == "study"
    assert data.tags["medgan.verdict"] == (
        "gain: gan (all labelled); loss: none (all labelled); no gain shown: gan (4 labelled)"
    )
    history = client.get_metric_history(finished.parent.info.run_id, "dice_difference/gan")
    # The step is the number of labelled training cases; all of them are 7.
    assert {m.step: m.value for m in history} == {4: 0.01, 7: 0.03}
    assert data.metrics["external/dice/gan"] == 0.75
    note = data.tags["mlflow.note.content"]
    assert "| gan | all | 0.800 (0.700 to 0.900) | +0.030 (+0.030 to +0.030) | 0.030 | gain |" in note
    assert "| classical | all | 0.800 (0.700 to 0.900) |  |  | baseline |" in note
    assert "test 7 cases of 6 patients" in note


def test_the_study_names_its_data_by_digest(finished: Finished, client: Any) -> None:
    inputs = client.get_run(finished.parent.info.run_id).inputs.dataset_inputs
    found = {tag.value: entry.dataset for entry in inputs for tag in entry.tags}
    assert set(found) == {"training", "validation", "test", "external"}
    assert len({dataset.digest for dataset in found.values()}) == 4
    assert found["external"].digest == "c" * 36
    assert json.loads(found["test"].profile)["used_cases"] == 7


def test_files_and_tables_of_the_study_are_stored_but_not_those_with_ids(
    finished: Finished, tracker: MLflowTracker, client: Any
) -> None:
    run_id = finished.parent.info.run_id
    top = {f.path for f in client.list_artifacts(run_id)}
    assert top == {"plan.json", "summary.csv", "gap.csv", "report.html", "report.md", "figures", "tables"}
    store = Path(tracker.uri.removeprefix("sqlite:///")).parent
    tables = store / "mlartifacts" / run_id / "artifacts" / "tables"
    replicates = json.loads((tables / "replicates.json").read_text())
    rows = [dict(zip(replicates["columns"], values, strict=True)) for values in replicates["data"]]
    assert [(r["arm"], r["status"], r["dice"]) for r in rows] == [
        ("none", "finished", 0.7),
        ("gan", "finished", 0.8),
        ("classical", "finished", 0.75),
        ("classical", "failed", None),
    ]
    summary = json.loads((tables / "summary.json").read_text())
    assert len(summary["data"]) == len(ROWS)
    assert summary["columns"][:5] == ["arm", "metric", "mean", "difference", "verdict"]
    assert sorted(summary["columns"]) == sorted(COLUMNS)


def test_the_gap_closed_is_a_metric_by_labelled_cases_and_stands_in_the_description(
    finished: Finished, client: Any
) -> None:
    run_id, all_cases = finished.parent.info.run_id, COUNTS["used_cases"]

    def points(name: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in client.get_metric_history(run_id, name)]

    assert points("gap_closed/gan") == [(all_cases, 0.4)]
    assert points("gap_closed_low/gan") == [(all_cases, 0.1)]
    assert points("gap_closed_high/gan") == []  # without a bound
    assert sorted(points("gap/gan")) == sorted([(all_cases, 0.05), (4, 0.05)])
    note = client.get_run(run_id).data.tags["mlflow.note.content"]
    assert "gan (all labelled): 0.40 (0.10 to no bound) of the way from none to reference" in note
    assert "gan (4 labelled): none, reference is not reliably above none" in note


def test_no_patient_and_no_case_is_in_the_store(finished: Finished, tracker: MLflowTracker) -> None:
    for path in Path(tracker.uri.removeprefix("sqlite:///")).parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in CANARIES if word.encode() in content], path


def test_a_generator_with_a_gain_becomes_champion(finished: Finished, client: Any) -> None:
    assert finished.registered == {"dagan@champion": "1"}
    assert client.get_model_version_by_alias("dagan", "champion").run_id == finished.parent.info.run_id


def test_a_study_that_raises_is_failed_and_so_is_the_training_that_did(tracker: MLflowTracker, client: Any) -> None:
    study = StudyRecorder(tracker, PLAN, "e" * 64)
    message = "/out/study: NOT_FINITE: loss is not a number"
    with pytest.raises(TrainingFailure), study, study.child(Cell(0, 0, 0, "none")) as child:
        raise TrainingFailure(message)
    for run_id in (study.run.run_id, child.run.run_id):
        stored = client.get_run(run_id)
        assert stored.info.status == "FAILED"
        assert stored.data.tags["medgan.error"] == "… NOT_FINITE: loss is not a number"


def test_without_a_store_the_same_calls_do_nothing(output: Path, checkpoint_folder: Path) -> None:
    with StudyRecorder(NoTracker(), PLAN, "d" * 64) as study:
        with study.child(Cell(0, 0, 0, "gan")) as child:
            child.on_step(1, {"loss": 1.0})
            child.result({"dice": 0.5}, 1.0)
        assert study.finish(output, {"dagan": load_checkpoint(checkpoint_folder)}) == {}


@pytest.mark.parametrize(
    ("rows", "champion"),
    [
        ([row("gan", "gain", 0.03)], "dagan"),
        ([row("gan", "gain", 0.03), row("other", "gain", 0.05)], "other-gan"),
        ([row("gan", "no gain shown", 0.03)], None),
        ([row("gan", "gain (exploratory)", 0.03)], None),
        ([row("gan", "gain", 0.03), row("gan", "loss", -0.02, labelled=4)], None),
        ([row("gan", "gain", 0.03, split="external")], None),
        ([row("gan", "gain", 0.03, structure="anterior")], None),
        ([row("none", "gain", 0.03)], None),
        ([row("late", "gain", 0.03)], None),
        ([row("control", "gain", 0.03)], None),
        ([], None),
    ],
)
def test_only_a_gain_on_the_test_makes_a_champion(rows: list[dict[str, object]], champion: str | None) -> None:
    arms = [
        *ARMS,
        {"name": "other", "parts": ["gan"], "generator": "other-gan"},
        {"name": "control", "parts": ["random-deformation"], "generator": "dagan"},
        {"name": "late", "parts": ["gan"], "generator": "late-gan", "exploratory": True},
    ]
    assert champion_of(rows, arms) == champion


def test_a_digest_of_data_changes_with_split_and_content() -> None:
    def digests(**changes: object) -> list[str]:
        return [d.digest for d in datasets({**PLAN, **changes})]

    before = digests()
    assert digests() == before
    assert all(a != b for a, b in zip(before[:3], digests(content_digest="x"), strict=False))
    assert all(a != b for a, b in zip(before[:3], digests(split_digests=["x"]), strict=False))


def test_parameters_leave_out_what_stands_elsewhere() -> None:
    params = plan_params(PLAN)
    assert not {"cohort", "arms", "name"} & set(params)
    assert params["arm"] == {
        "none": {},
        "classical": {"parts": ["classical"]},
        "gan": {"parts": ["gan"], "generator": "dagan", "probability": 0.5},
    }


def test_a_study_without_a_comparison_says_so() -> None:
    assert verdict_line([row("classical")]) == "no comparison"
