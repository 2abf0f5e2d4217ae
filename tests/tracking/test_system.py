from __future__ import annotations

import sys
import threading
import time

import pytest

from medgan.tracking import MLflowTracker

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def watchers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "SystemMetricsMonitor"]


def test_the_load_is_recorded_while_the_run_is_open_and_the_thread_ends_with_it(uri: str) -> None:
    tracker = MLflowTracker(uri, "system", system_seconds=0.1)
    with tracker.run("watched", {}) as run:
        assert len(watchers()) == 1
        time.sleep(1)
    assert not watchers()
    stored = mlflow.MlflowClient(tracking_uri=tracker.uri).get_run(run.run_id)
    assert 0 <= stored.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert stored.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert stored.info.status == "FINISHED"


def test_a_long_interval_does_not_hold_the_end_of_the_run(uri: str) -> None:
    tracker = MLflowTracker(uri, "system", system_seconds=600)
    started = time.monotonic()
    with tracker.run("watched", {}):
        pass
    assert time.monotonic() - started < 5
    assert not watchers()


def test_zero_seconds_watch_nothing(uri: str) -> None:
    tracker = MLflowTracker(uri, "system", system_seconds=0)
    with tracker.run("not watched", {}):
        assert not watchers()


def test_a_machine_that_cannot_be_watched_does_not_end_the_run(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MLflowTracker(uri, "system", system_seconds=0.1)
    monkeypatch.setitem(sys.modules, "mlflow.system_metrics.system_metrics_monitor", None)
    with tracker.run("blind", {}) as run:
        assert not watchers()
    assert mlflow.MlflowClient(tracking_uri=tracker.uri).get_run(run.run_id).info.status == "FINISHED"
