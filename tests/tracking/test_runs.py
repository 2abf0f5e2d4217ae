from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medgan.config import TrackingConfig, parse_config
from medgan.errors import InputFault, TrainingFailure
from medgan.tracking import Dataset, MLflowTracker, NoTracker, PackedModel, open_tracker, recordable
from medgan.tracking.runs import reason_of

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> MLflowTracker:
    return MLflowTracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "facts")


@pytest.fixture
def client(tracker: MLflowTracker) -> Any:
    return mlflow.MlflowClient(tracking_uri=tracker.uri)


def test_every_metric_of_a_run_arrives_in_order(tracker: MLflowTracker, client: Any) -> None:
    with tracker.run("many", {}) as run:
        for step in range(1500):
            run.log_metrics({"loss": 1 / (step + 1)}, step)
    history = client.get_metric_history(run.run_id, "loss")
    assert [m.step for m in sorted(history, key=lambda m: m.step)] == list(range(1500))
    assert client.get_run(run.run_id).data.metrics["loss"] == pytest.approx(1 / 1500)


def test_a_child_names_its_parent_and_siblings_stay_apart(tracker: MLflowTracker, client: Any) -> None:
    with tracker.run("study", {}) as parent:
        with tracker.run("a", {}, nested=True) as first:
            first.log_metrics({"dice": 0.1}, 0)
        with tracker.run("b", {}, nested=True) as second:
            second.log_metrics({"dice": 0.2}, 0)
        with tracker.run("elsewhere", {}) as apart:
            pass
    tags = {run.run_id: client.get_run(run.run_id).data.tags for run in (parent, first, second, apart)}
    assert tags[first.run_id]["mlflow.parentRunId"] == tags[second.run_id]["mlflow.parentRunId"] == parent.run_id
    assert "mlflow.parentRunId" not in tags[parent.run_id]
    assert "mlflow.parentRunId" not in tags[apart.run_id]
    assert client.get_run(first.run_id).data.metrics == {"dice": 0.1}
    assert client.get_run(second.run_id).data.metrics == {"dice": 0.2}


def test_a_run_that_raises_is_failed_and_keeps_its_metrics(tracker: MLflowTracker, client: Any) -> None:
    with pytest.raises(ZeroDivisionError), tracker.run("breaks", {}) as run:  # noqa: PT012
        run.log_metrics({"loss": 2.0}, 3)
        _ = 1 / 0
    with tracker.run("ends", {}) as good:
        pass
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.metrics == {"loss": 2.0}
    assert client.get_run(good.run_id).info.status == "FINISHED"


def test_nested_params_are_flattened_and_long_ones_cut(tracker: MLflowTracker, client: Any) -> None:
    params = {"compare": {"gan": {"strength": 1.5}}, "long": "x" * 7000, **{f"p{i}": i for i in range(120)}}
    with tracker.run("params", params, {"kind": "test"}) as run:
        pass
    stored = client.get_run(run.run_id).data
    assert stored.params["compare.gan.strength"] == "1.5"
    assert len(stored.params["long"]) == 6000
    assert stored.params["long"].endswith("…")
    assert stored.params["p119"] == "119"
    assert stored.tags["kind"] == "test"


def test_names_mlflow_refuses_are_mended(tracker: MLflowTracker, client: Any) -> None:
    with tracker.run("names", {}) as run:
        run.log_metrics({"tpr@0.01": 0.5, "dice/left (é)": 0.25, "dice/classical+gan": 0.3, "/x//y": float("nan")}, 0)
    names = set(client.get_run(run.run_id).data.metrics)
    assert len(names) == 4
    assert "dice/classical-and-gan" in names
    assert "tpr_at_0.01" in names
    assert "x/y" in names


def test_files_lie_beside_the_database(tracker: MLflowTracker, client: Any, tmp_path: Path) -> None:
    picture = tmp_path / "siblings.png"
    picture.write_bytes(b"png")
    with tracker.run("files", {}) as run:
        run.log_picture(picture, "pictures")
        run.log_file(picture)
    assert [a.path for a in client.list_artifacts(run.run_id, "pictures")] == ["pictures/siblings.png"]
    store = Path(tracker.uri.removeprefix("sqlite:///")).parent
    assert (store / "mlartifacts" / run.run_id / "artifacts" / "siblings.png").read_bytes() == b"png"


def test_a_store_that_fails_midway_does_not_end_the_run(
    tracker: MLflowTracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    with tracker.run("unlucky", {}) as run:
        monkeypatch.setattr(tracker._client, "log_batch", refuse)
        run.log_metrics({"loss": 1.0}, 0)
    assert "disk full" in caplog.text


@pytest.mark.parametrize(
    "uri", ["file:///nowhere/mlruns", "mlruns", "bogus://host/x", "sqlite:////proc/nowhere/mlflow.db"]
)
def test_an_unusable_store_is_one_line_with_a_remedy(uri: str) -> None:
    with pytest.raises(InputFault, match="TRACKING_STORE") as fault:
        open_tracker(TrackingConfig(uri=uri))
    assert "\n" not in str(fault.value)
    assert "tracking.uri" in str(fault.value)


def test_a_password_in_the_uri_is_not_shown() -> None:
    with pytest.raises(InputFault) as fault:
        open_tracker(TrackingConfig(uri="bogus://me:secret@host/x"))
    assert "secret" not in fault.value.path


def test_the_store_is_config_then_environment_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("medgan.tracking.runs.MLflowTracker", lambda uri, *_, **__: opened.append(uri))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "environment")
    open_tracker(TrackingConfig(uri="config"), default_uri="default")
    open_tracker(TrackingConfig(), default_uri="default")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    open_tracker(TrackingConfig(), default_uri="default")
    open_tracker(TrackingConfig())
    assert opened == ["config", "environment", "default", "sqlite:///mlflow.db"]


def test_no_tracker_takes_everything(tmp_path: Path) -> None:
    tracker = open_tracker(TrackingConfig(kind="none"))
    assert isinstance(tracker, NoTracker)
    with tracker.run("x", {"a": 1}) as outer, tracker.run("y", {}, nested=True) as inner:
        inner.log_metrics({"loss": 1.0}, 0)
        inner.log_picture(tmp_path / "missing.png")
        inner.log_file(tmp_path / "missing.txt")
        inner.log_params({"a": 1})
        inner.log_text("a", "a.txt")
        inner.log_table([{"a": 1}], "a.json")
        inner.log_dataset(Dataset("a", "b", "training"))
        inner.set_tags({"a": "b"})
        inner.describe("a")
        inner.fail("a")
    assert tracker.register(PackedModel("a", tmp_path, "m", 1, {}, "d"), alias="champion") is None
    assert outer.run_id == inner.run_id == ""


def test_children_of_a_given_parent_may_overlap_and_end_in_any_order(tracker: MLflowTracker, client: Any) -> None:
    with tracker.run("study", {}) as parent:
        first = tracker.run("a", {}, parent=parent.run_id)
        second = tracker.run("b", {}, parent=parent.run_id)
        a, b = first.__enter__(), second.__enter__()
        a.log_metrics({"dice": 0.1}, 0)
        b.log_metrics({"dice": 0.2}, 0)
        first.__exit__(None, None, None)
        with tracker.run("inside", {}, nested=True) as inside:
            pass
        second.__exit__(None, None, None)
    for run, dice in ((a, 0.1), (b, 0.2)):
        stored = client.get_run(run.run_id)
        assert stored.data.tags["mlflow.parentRunId"] == parent.run_id
        assert stored.data.metrics == {"dice": dice}
    assert client.get_run(inside.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_threads_record_children_side_by_side(tracker: MLflowTracker, client: Any) -> None:
    def record(number: int) -> str:
        with tracker.run(f"child {number}", {"number": number}, parent=parent.run_id) as run:
            for step in range(200):
                run.log_metrics({"loss": number + step / 1000}, step)
        return run.run_id

    with tracker.run("study", {}) as parent, ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(record, range(4)))
    for number, run_id in enumerate(ids):
        values = {m.step: m.value for m in client.get_metric_history(run_id, "loss")}
        assert values == {step: pytest.approx(number + step / 1000) for step in range(200)}
        assert client.get_run(run_id).info.status == "FINISHED"


def test_a_run_can_fail_without_raising(tracker: MLflowTracker, client: Any) -> None:
    with tracker.run("fails", {}) as run:
        run.fail("NOT_FINITE")
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.tags["medgan.error"] == "NOT_FINITE"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputFault("/scans/Mueller", "TRUNCATED", "Mueller.nii.gz ends early", "copy it again"), "TRUNCATED"),
        (TrainingFailure("/out/study: NOT_FINITE: loss is not a number at step 3"), "… NOT_FINITE: loss is not a num"),
        (FileNotFoundError(2, "No such file", "/scans/Mueller.nii.gz"), "FileNotFoundError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_the_reason_of_a_failure_names_no_file_and_no_patient(error: BaseException, reason: str) -> None:
    assert reason_of(error).startswith(reason)
    assert "Mueller" not in reason_of(error)
    assert "/" not in reason_of(error)


def test_a_dataset_is_recorded_with_its_digest_context_and_counts(tracker: MLflowTracker, client: Any) -> None:
    counts = {"cases": 12, "classes": {"small": 5, "large": 7}}
    with tracker.run("data", {}) as run:
        run.log_dataset(Dataset("hippocampus training", "ab" * 32, "training", "training part, by patient", counts))
    stored = client.get_run(run.run_id).inputs.dataset_inputs[0]
    assert stored.dataset.name == "hippocampus training"
    assert stored.dataset.digest == ("ab" * 32)[:36]
    profile = json.loads(stored.dataset.profile)
    assert profile == {"cases": 12, "classes.small": 5, "classes.large": 7, "sha256": "ab" * 32}
    assert "by patient" in stored.dataset.source
    assert {tag.key: tag.value for tag in stored.tags} == {"mlflow.data.context": "training"}


def test_text_table_tags_and_description_arrive(tracker: MLflowTracker, client: Any) -> None:
    rows = [{"arm": "none", "dice": 0.5}, {"arm": "gan", "dice": float("nan")}]
    with tracker.run("words", {}) as run:
        run.log_text("# Plan", "notes/plan.md")
        run.log_table(rows, "tables/summary.json")
        run.log_table([], "tables/empty.json")
        run.set_tags({"medgan.verdict": "no gain shown"})
        run.describe("**Verdict**")
    stored = client.get_run(run.run_id)
    assert stored.data.tags["mlflow.note.content"] == "**Verdict**"
    assert stored.data.tags["medgan.verdict"] == "no gain shown"
    assert [f.path for f in client.list_artifacts(run.run_id, "tables")] == ["tables/summary.json"]
    store = Path(tracker.uri.removeprefix("sqlite:///")).parent
    table = json.loads((store / "mlartifacts" / run.run_id / "artifacts" / "tables" / "summary.json").read_text())
    assert table == {"columns": ["arm", "dice"], "data": [["none", 0.5], ["gan", None]]}
    assert "tables/summary.json" in stored.data.tags["mlflow.loggedArtifacts"]


def test_recordable_settings_hold_no_path_and_no_store() -> None:
    tree = {
        "data": {"root": "/scans/secret", "labels": {1: "ball"}},
        "compare": {"checkpoint": "/models/secret"},
        "tracking": {"uri": "http://me:secret@host"},
    }
    settings = recordable(parse_config(tree))
    assert "secret" not in json.dumps(settings)
    assert settings["data"]["labels"] == {"1": "ball"}
    assert settings["compare"]["baseline"] == "classical"


def test_an_unreachable_server_is_a_fault_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(InputFault, match="TRACKING_STORE"):
        open_tracker(TrackingConfig(uri="http://127.0.0.1:9"))
    assert time.monotonic() - started < 20
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
