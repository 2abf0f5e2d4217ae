"""A generator from a model registry: the sidecar knows its name, so that a volume outlives the registry's cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from generated import sidecars

from medgan.checkpoint import load_checkpoint
from medgan.errors import InputFault
from medgan.generate.batch import generate
from medgan.generate.reproduce import reproduce
from medgan.serving import register_generator
from medgan.tracking import MLflowTracker

URI = "models:/balls@champion"


def test_a_registered_generator_makes_volumes_that_can_be_made_again(
    make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tracker = MLflowTracker(f"sqlite:///{tmp_path}/mlflow.db", "models")
    first, second = (make_checkpoint(tmp_path / name, classes=(name,)) for name in ("first", "second"))
    register_generator(tracker, load_checkpoint(first), "balls", alias="champion")
    generate(URI, cohort_folder, tmp_path / "out", count=1)
    (name,) = sidecars(tmp_path / "out")
    assert sidecars(tmp_path / "out")[name]["checkpoint"]["uri"] == URI
    sidecar = tmp_path / "out" / "images" / f"{name}.json"
    assert reproduce(sidecar, tmp_path / "again.nii.gz")
    shutil.rmtree(tmp_path / "cache")
    assert reproduce(sidecar, tmp_path / "again.nii.gz")
    register_generator(tracker, load_checkpoint(second), "balls", alias="champion")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputFault, match="OTHER_CHECKPOINT"):
        reproduce(sidecar, tmp_path / "again.nii.gz")
