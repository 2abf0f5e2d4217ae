"""A tracking server, as several people share one: everything goes through HTTP, artifacts too."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import medgan
from medgan.checkpoint import load_checkpoint
from medgan.config import TrackingConfig
from medgan.serving import register_generator
from medgan.tracking import Dataset, open_tracker

mlflow = pytest.importorskip("mlflow")
START_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NO_PROXY": "127.0.0.1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        if not _answers(url, process):
            pytest.skip(f"mlflow server did not come up within {START_SECONDS} s")
        yield url
    finally:
        # Its workers are in the session that was started for it.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with opener.open(f"{url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.3)
    return False


@pytest.fixture(autouse=True)
def environment(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_a_run_with_child_files_tables_and_data_goes_through_the_server(server: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("<p>report</p>")
    tracker = open_tracker(TrackingConfig(system_seconds=0.2))
    with tracker.run("study", {"seed": 1}) as parent:
        parent.log_file(file)
        parent.log_table([{"arm": "gan", "dice": 0.5}], "tables/summary.json")
        parent.log_dataset(Dataset("cohort", "a" * 64, "training", counts={"cases": 3}))
        with tracker.run("gan", {}, parent=parent.run_id) as child:
            for step in range(1200):
                child.log_metrics({"loss": 1 / (step + 1)}, step)
            time.sleep(1)
    client = mlflow.MlflowClient(tracking_uri=server)
    stored = client.get_run(parent.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert {f.path for f in client.list_artifacts(parent.run_id)} == {"report.html", "tables"}
    assert stored.inputs.dataset_inputs[0].dataset.name == "cohort"
    below = client.get_run(child.run_id).data
    assert below.tags["mlflow.parentRunId"] == parent.run_id
    assert below.metrics["loss"] == pytest.approx(1 / 1200)
    assert below.metrics["system/system_memory_usage_megabytes"] > 0
    # Nothing is left beside the caller: no database, no artifacts.
    assert {p.name for p in tmp_path.iterdir()} <= {"report.html", "cache"}


def test_a_generator_is_registered_and_loaded_through_the_server(
    server: str, checkpoint_folder: Path, volume: torch.Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = open_tracker(TrackingConfig(system_seconds=0))
    with tracker.run("study", {}) as run:
        checkpoint = load_checkpoint(checkpoint_folder)
        version = register_generator(tracker, checkpoint, "served", run_id=run.run_id, alias="challenger")
        assert register_generator(tracker, checkpoint, "served", run_id=run.run_id, alias="challenger") == version
    expected = medgan.load(checkpoint_folder).sample(volume, seed=2)[0].volume
    for uri in ("models:/served@challenger", f"models:/served/{version}"):
        assert torch.equal(medgan.load(uri).sample(volume, seed=2)[0].volume, expected)
    # Standard output belongs to the caller.
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("alias", "code"), [("challenger", 0), ("nobody", 2)])
def test_the_command_line_takes_a_registered_generator(
    server: str, checkpoint_folder: Path, alias: str, code: int
) -> None:
    register_generator(open_tracker(TrackingConfig()), load_checkpoint(checkpoint_folder), "named", alias="challenger")
    result = subprocess.run(
        [sys.executable, "-m", "medgan.cli", "info", f"models:/named@{alias}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(medgan.__file__).parents[1],
    )
    assert result.returncode == code, result.stderr
    if code:
        assert "UNKNOWN_MODEL" in result.stderr.strip().splitlines()[-1]
        assert "@challenger" in result.stderr
    else:
        assert "0 cases of 0 patients" in result.stdout
