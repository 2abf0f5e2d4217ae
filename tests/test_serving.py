from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medgan
from medgan.checkpoint import RECORD, WEIGHTS, load_checkpoint, save_without_identifiers
from medgan.data.cohort import Case, read_cohort
from medgan.errors import InputFault
from medgan.evaluation.cases import part_cases
from medgan.serving import register_generator
from medgan.tracking import MLflowTracker
from medgan.transforms.handle import SamplerHandle

mlflow = pytest.importorskip("mlflow")

CANARIES = ("canary-case-7", "canary-patient-7", "canary-place")


@pytest.fixture(scope="module")
def canary(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose record names a patient, a case and, in its configuration, places."""
    folder = tmp_path_factory.mktemp("canary") / "checkpoint"
    image = folder.parent / "scan.nii.gz"
    image.write_bytes(b"scan")
    case = Case(CANARIES[0], CANARIES[1], (image,))
    make_checkpoint(folder, seen=[case, case])
    record = json.loads((folder / RECORD).read_text())
    record["config"]["data"]["root"] = f"/{CANARIES[2]}/scans"
    record["config"]["compare"]["checkpoint"] = f"/{CANARIES[2]}/model"
    record["config"]["tracking"]["uri"] = f"http://{CANARIES[2]}"
    (folder / RECORD).write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MLflowTracker:
    return MLflowTracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "models")


@pytest.fixture
def registry(store: MLflowTracker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowTracker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        patch.delenv("MLFLOW_REGISTRY_URI", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield store


@pytest.fixture(scope="module")
def version(store: MLflowTracker, canary: Path) -> str | None:
    with store.run("study", {}) as run:
        return register_generator(store, load_checkpoint(canary), "ball:gan", run_id=run.run_id, alias="challenger")


def test_a_copy_without_identifiers_is_the_same_generator(canary: Path, tmp_path: Path) -> None:
    original = load_checkpoint(canary)
    digest = save_without_identifiers(original, tmp_path / "copy")
    copy = load_checkpoint(tmp_path / "copy")
    assert copy.digest == digest != original.digest
    assert copy.record["original_digest"] == original.digest
    assert (tmp_path / "copy" / WEIGHTS).read_bytes() == (canary / WEIGHTS).read_bytes()
    assert copy.config.preprocess == original.config.preprocess
    assert copy.identifiers_withheld
    assert not original.identifiers_withheld
    text = (tmp_path / "copy" / RECORD).read_text()
    assert not any(word in text for word in CANARIES)
    # Two cases of one patient stay two cases of one patient, known by their content.
    cases = copy.origin.training_cases
    assert len({case["case_id"] for case in cases}) == 2
    assert len({case["patient_id"] for case in cases}) == 1
    assert cases[0]["content_sha256"] == original.origin.training_cases[0]["content_sha256"]


def test_a_copy_of_a_copy_still_names_the_original(canary: Path, tmp_path: Path) -> None:
    save_without_identifiers(load_checkpoint(canary), tmp_path / "first")
    save_without_identifiers(load_checkpoint(tmp_path / "first"), tmp_path / "second")
    assert load_checkpoint(tmp_path / "second").record["original_digest"] == load_checkpoint(canary).digest


def test_training_cases_are_recognised_by_content_where_ids_are_withheld(
    cohort_folder: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    cohort = read_cohort(cohort_folder, class_key="size")
    original = load_checkpoint(make_checkpoint(tmp_path / "original", seen=cohort.cases[:6]))
    save_without_identifiers(original, tmp_path / "copy")
    expected, found = (part_cases(cohort, c) for c in (original, load_checkpoint(tmp_path / "copy")))
    assert [c.case_id for c in found.training] == [c.case_id for c in expected.training]
    assert len(found.training) == 6
    assert [c.case_id for c in found.held_out] == [c.case_id for c in expected.held_out]


def test_a_registered_generator_is_loaded_by_alias_and_by_version(
    registry: MLflowTracker, version: str, canary: Path, volume: torch.Tensor
) -> None:
    original = medgan.load(canary)
    expected = original.sample(volume, seed=3)[0].volume
    assert not torch.equal(expected, volume)
    for uri in ("models:/ball_gan@challenger", f"models:/ball_gan/{version}", Path("models:/ball_gan@challenger")):
        sampler = medgan.load(uri)
        assert sampler.checkpoint.record["original_digest"] == original.checkpoint.digest
        assert torch.equal(sampler.sample(volume, seed=3)[0].volume, expected)


def test_a_version_is_downloaded_once(registry: MLflowTracker, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = medgan.load("models:/ball_gan@challenger")

    def refuse(**_: object) -> None:
        raise OSError("downloaded again")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", refuse)
    assert medgan.load("models:/ball_gan@challenger") is first


def test_a_transform_keeps_the_folder_of_an_alias_that_may_move(registry: MLflowTracker, version: str) -> None:
    handle = SamplerHandle("models:/ball_gan@challenger")
    assert Path(handle.path).is_dir()


def test_the_same_checkpoint_is_registered_once_and_the_alias_moves(
    registry: MLflowTracker, version: str, canary: Path, checkpoint_folder: Path
) -> None:
    assert register_generator(registry, load_checkpoint(canary), "ball:gan", alias="champion") == version
    other = register_generator(registry, load_checkpoint(checkpoint_folder), "ball:gan", alias="champion")
    assert other == str(int(version) + 1)
    client = mlflow.MlflowClient(tracking_uri=registry.uri)
    assert client.get_registered_model("ball_gan").aliases == {"challenger": int(version), "champion": int(other)}


def test_mlflow_serves_siblings_with_signature_and_params(
    registry: MLflowTracker, version: str, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mlflow.pyfunc.load_model(f"models:/ball_gan/{version}")
    batch = np.random.default_rng(0).uniform(0, 800, (2, 1, 16, 16, 16)).astype(np.float32)
    assert model.predict(batch, params={"strength": 4.0}).shape == batch.shape
    with pytest.raises(Exception, match=r"strength must be in \[0, 4\]"):
        model.predict(batch, params={"strength": 4.1})
    same = model.predict(batch, params={"strength": 0.0})
    assert np.array_equal(same, batch)
    siblings = model.predict(batch, params={"seed": 5, "class_name": "large"})
    expected = medgan.load(canary).sample(batch[1], seed=5, class_name="large")[0].volume
    assert siblings.dtype == np.float32
    assert np.array_equal(siblings[1], expected)
    assert not np.array_equal(siblings, batch)
    signature = model.metadata.signature
    assert signature.inputs.inputs[0].shape == (-1, 1, -1, -1, -1)
    assert {p.name: p.default for p in signature.params.params} == {"seed": 0, "strength": 1.0, "class_name": ""}
    with pytest.raises(mlflow.exceptions.MlflowException):
        model.predict(batch.astype(np.float64)[0])


def test_the_stored_model_is_small_pickled_nowhere_and_says_what_it_needs(
    registry: MLflowTracker, version: str, tmp_path: Path
) -> None:
    folder = Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"models:/ball_gan/{version}", dst_path=str(tmp_path), tracking_uri=registry.uri
        )
    )
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".py"))]
    assert {"MLmodel", "requirements.txt", f"data/checkpoint/{RECORD}", f"data/checkpoint/{WEIGHTS}"} <= files
    requirements = (folder / "requirements.txt").read_text()
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    assert sum(p.stat().st_size for p in folder.rglob("*example*")) < 500_000


def test_no_identifier_and_no_place_is_in_the_store(registry: MLflowTracker, version: str) -> None:
    folder = Path(registry.uri.removeprefix("sqlite:///")).parent
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert any(p.name == RECORD for p in files)
    for path in files:
        content = path.read_bytes()
        assert not [word for word in CANARIES if word.encode() in content], path


@pytest.mark.parametrize(
    ("uri", "code", "mention"),
    [
        ("models:/ball_gan@nobody", "UNKNOWN_MODEL", "@challenger"),
        ("models:/ball_gan/999", "UNKNOWN_MODEL", "1"),
        ("models:/nothing@champion", "UNKNOWN_MODEL", "ball_gan"),
        ("models:/ball_gan", "MODEL_URI", "models:/name@alias"),
        ("models:/ball_gan/latest-or-so", "MODEL_URI", "models:/name/1"),
        ("models:/foreign/1", "NO_GENERATOR", "not a generator"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    registry: MLflowTracker, version: str, uri: str, code: str, mention: str
) -> None:
    client: Any = mlflow.MlflowClient(tracking_uri=registry.uri)
    if "foreign" in uri:
        client.create_registered_model("foreign")
        client.create_model_version("foreign", "mlflow-artifacts:/somewhere")
    with pytest.raises(InputFault, match=code) as fault:
        medgan.load(uri)
    assert mention in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("place", ["http://127.0.0.1:9", "sqlite:////nowhere/at/all.db"])
def test_a_registry_out_of_reach_is_one_line(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    with pytest.raises(InputFault, match="MODEL_REGISTRY") as fault:
        medgan.load("models:/ball_gan@champion")
    assert "MLFLOW_TRACKING_URI" in str(fault.value)
    assert not os.path.exists("/nowhere")  # noqa: PTH110
