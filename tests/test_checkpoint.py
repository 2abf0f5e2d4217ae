from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medgan import checkpoint as module
from medgan.checkpoint import RECORD, WEIGHTS, file_digest, load_checkpoint, save_checkpoint
from medgan.errors import InputFault
from medgan.measures.critic import fit_critic


@pytest.fixture
def folder(checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "generator"))


def test_what_was_saved_is_loaded(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    weights = load_file(folder / WEIGHTS)
    assert all(torch.equal(value, weights[name]) for name, value in checkpoint.generator.state_dict().items())
    assert checkpoint.origin.label_names == {1: "ball"}
    assert len(checkpoint.digest) == 64


def test_changed_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["velocity.bias"] += 1
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(InputFault, match="CHECKPOINT_HASH"):
        load_checkpoint(folder)


def test_weights_of_other_shapes_are_refused_by_their_header(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["velocity.bias"] = torch.zeros(1000)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(InputFault, match="CHECKPOINT_SHAPES"):
        load_checkpoint(folder)


def with_critic(folder: Path, **changes: torch.Tensor) -> Path:
    """Save the checkpoint again with a critic, some of its arrays changed."""
    checkpoint = load_checkpoint(folder)
    critic = fit_critic(np.random.default_rng(0).normal(size=(20, 5)))
    assert critic is not None
    weights = checkpoint.generator.state_dict()
    save_checkpoint(folder, weights, checkpoint.config, checkpoint.origin, critic)
    tensors = load_file(folder / WEIGHTS) | {f"critic/{name}": value for name, value in changes.items()}
    save_file(tensors, folder / WEIGHTS)
    record = json.loads((folder / RECORD).read_text())
    record["sha256"][WEIGHTS] = file_digest(folder / WEIGHTS)
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def test_the_critic_travels_with_the_weights(folder: Path) -> None:
    assert load_checkpoint(folder).critic is None
    critic = load_checkpoint(with_critic(folder)).critic
    assert critic is not None
    assert critic.quality(np.zeros((1, 5)))[0] > critic.quality(np.full((1, 5), 9.0))[0]


def test_a_critic_that_does_not_fit_or_is_enormous_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputFault, match="CHECKPOINT_SHAPES"):
        load_checkpoint(with_critic(folder, mean=torch.zeros(3, dtype=torch.float64)))
    monkeypatch.setattr(module, "MAX_CRITIC_VALUES", 10)
    with pytest.raises(InputFault, match="CHECKPOINT_SHAPES"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 a pickle", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(InputFault, match="CHECKPOINT_WEIGHTS"):
        load_checkpoint(folder)


@pytest.mark.parametrize("record", ["[]", "{", '{"format_version": 1}', '"text"'])
def test_what_is_no_record_is_refused(folder: Path, record: str) -> None:
    (folder / RECORD).write_text(record)
    with pytest.raises(InputFault, match="CHECKPOINT_RECORD"):
        load_checkpoint(folder)


def test_a_record_that_asks_for_an_enormous_network_takes_no_memory(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    for preprocessing in (record["config"]["preprocess"], record["preprocessing"]):
        preprocessing["shape"] = [80000, 80000, 80000]
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputFault, match="CHECKPOINT_SHAPES"):
        load_checkpoint(folder)


@pytest.mark.parametrize("change", [{"training_cases": 5}, {"metrics": {"a": "b"}}, {"channels": 0}, {"created": ...}])
def test_a_record_of_other_types_is_refused(folder: Path, change: dict[str, object]) -> None:
    record = json.loads((folder / RECORD).read_text())
    record = {k: v for k, v in (record | change).items() if v is not ...}
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputFault, match="CHECKPOINT_RECORD"):
        load_checkpoint(folder)


def test_another_format_version_is_named(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text()) | {"format_version": 99}
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputFault, match="FORMAT_VERSION: format 99"):
        load_checkpoint(folder)


def test_an_endless_format_version_is_still_one_short_line(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text()) | {"format_version": "x" * 100_000}
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputFault, match="FORMAT_VERSION") as fault:
        load_checkpoint(folder)
    assert len(str(fault.value)) < 500


@pytest.mark.parametrize("value", [{"_target_": "os.system"}, [[[]]], None])
def test_a_preprocessing_that_is_not_the_configurations_is_refused(folder: Path, value: object) -> None:
    record = json.loads((folder / RECORD).read_text()) | {"preprocessing": value}
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputFault, match="CHECKPOINT_RECORD: its preprocessing is not that of its configuration"):
        load_checkpoint(folder)


def test_missing_folders_and_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="MISSING_FILE"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(InputFault, match="NO_CHECKPOINT"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("crash_after", [0, 1, 2, 3])
def test_a_crash_between_any_two_writes_leaves_the_old_or_the_new(
    crash_after: int, folder: Path, make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load_checkpoint(folder)
    changed = old.config.model_copy(update={"name": "new"})
    real_replace, done = Path.replace, []

    def dying_replace(self: Path, target: Path) -> Path:
        if len(done) == crash_after:
            raise KeyboardInterrupt
        done.append(target)
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", dying_replace)
    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(folder, changed)
    monkeypatch.setattr(Path, "replace", real_replace)
    assert load_checkpoint(folder).config.name == (old.config.name if crash_after < 2 else "new")


def test_the_digest_is_that_of_the_record(folder: Path) -> None:
    assert load_checkpoint(folder).digest == module.file_digest(folder / RECORD)
