from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medgan.config import TrackingConfig
from medgan.errors import InputFault
from medgan.tracking import MLflowTracker, NoTracker, open_tracker

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
        run.log_metrics({"tpr@0.01": 0.5, "dice/left (é)": 0.25, "/x//y": float("nan")}, 0)
    names = set(client.get_run(run.run_id).data.metrics)
    assert len(names) == 3
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
    monkeypatch.setattr("medgan.tracking.MLflowTracker", lambda uri, _: opened.append(uri))
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
    assert outer.run_id == inner.run_id == ""
