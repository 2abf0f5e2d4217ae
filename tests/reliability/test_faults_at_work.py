"""Faults 24 to 33 and the promises beside them: what happens to days of work when something breaks."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from reliability_helpers import fingerprint
from safetensors.torch import load_file, save

from medgan.checkpoint import load_checkpoint
from medgan.config import Config
from medgan.errors import InputFault
from medgan.training import loop
from medgan.training.loop import train
from medgan.training.state import TrainingState, has_state, recorded_run


@pytest.fixture
def config_file(tiny_tree: dict[str, object], cohort_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return path


@pytest.fixture(scope="module")
def unfinished(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a checkpoint and two states, as a killed training leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "remove_states", lambda _: None)
        return train(tiny_config, tmp_path_factory.mktemp("unfinished") / "run")


def test_01_all_commands_share_the_gate(config_file, cohort_folder, checkpoint_folder, tmp_path, medgan):
    cohort = shutil.copytree(cohort_folder, tmp_path / "cohort")
    path = cohort / "images" / "case02.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    before = fingerprint(cohort)
    data = f"data.root={cohort}"
    commands = {
        "train": ("train", config_file, data),
        "generate": ("generate", checkpoint_folder, "--data", cohort, "--sources", "all", "--count", 12),
        "evaluate": ("evaluate", checkpoint_folder, "--data", cohort),
        "compare": ("compare", config_file, data, "compare.arms=[none]", "compare.baseline=none"),
    }
    for name, command in commands.items():
        medgan(*command, "--output", tmp_path / name).require_fault("TRUNCATED", "case02.nii.gz")
        left = [p for p in (tmp_path / name).rglob("*") if p.is_file() and ".tmp" in p.name]
        assert not left
    assert "TRUNCATED" in medgan("check", cohort).out
    assert not (tmp_path / "train").exists()
    assert not (tmp_path / "compare").exists()
    assert fingerprint(cohort) == before


def test_24_a_class_of_one_patient_is_named_and_the_others_train(config_file, cohort_folder, tmp_path, medgan):
    cohort = shutil.copytree(cohort_folder, tmp_path / "cohort")
    lines = (cohort / "manifest.csv").read_text().splitlines()
    rare = [line.replace("large", "small") for line in lines]
    rare[2] = lines[2].replace("small", "large")
    (cohort / "manifest.csv").write_text("\n".join(rare) + "\n")
    ended = medgan("train", config_file, f"data.root={cohort}", "training.steps=1", "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "left out of training: large has one patient" in ended.err


def test_25_a_full_disk_keeps_the_old_checkpoint_and_names_folder_and_bytes(
    tiny_config, unfinished, tmp_path, monkeypatch
):
    run = shutil.copytree(unfinished, tmp_path / "run")
    state = TrainingState({"net": torch.nn.Linear(300, 300)}, _Average(torch.nn.Linear(2, 2)), {}, step=99)
    before = fingerprint(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputFault, match=r"training_state: NOT_WRITABLE: could not write the 361224 bytes"):
            state.save(run, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert fingerprint(run) == before
    assert load_checkpoint(run).generator is not None


def test_25_a_full_disk_ends_a_training_in_one_line_and_loses_nothing(config_file, unfinished, tmp_path, medgan):
    run = shutil.copytree(unfinished, tmp_path / "run")
    checkpoint = (run / "generator.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        ended = medgan("train", config_file, "training.steps=8", "--output", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ended.require_fault("NOT_WRITABLE", f"{run / 'training_state'}: ", "bytes of the training state", "free some space")
    assert (run / "generator.safetensors").read_bytes() == checkpoint
    assert not list(run.rglob(".*.tmp"))
    assert medgan("train", config_file, "training.steps=8", "--output", run).code == 0


def test_25_a_full_disk_while_a_picture_is_drawn_is_named_too(config_file, unfinished, tmp_path, medgan, monkeypatch):
    run = shutil.copytree(unfinished, tmp_path / "run")
    before = fingerprint(run)
    monkeypatch.setattr(loop._Trainer, "_validate", lambda *_, **__: None)  # the picture is all that is to be written
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        ended = medgan("train", config_file, "training.steps=7", "--output", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ended.require_fault("NOT_WRITABLE", f"{run / 'pictures'}: ", "bytes of step-000007.png")
    assert fingerprint(run) == before


class _Average:
    def __init__(self, average: torch.nn.Module) -> None:
        self.average = average


def test_26_a_state_half_written_is_passed_over_for_the_one_before(config_file, unfinished, tmp_path, medgan):
    run = shutil.copytree(unfinished, tmp_path / "run")
    states = sorted((run / "training_state").iterdir())
    assert [json.loads((state / "state.json").read_text())["step"] for state in states] == [4, 6]
    (run / "training_state" / ".step-00000099.tmp").mkdir()
    weights = states[-1] / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert recorded_run(run)["config"]["name"] == "tiny"
    # The same command makes the lost updates again and ends with the same weights.
    assert medgan("train", config_file, "--output", run).code == 0
    again, wanted = (load_file(folder / "generator.safetensors") for folder in (run, unfinished))
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)


def test_26_a_save_that_was_killed_leaves_a_checkpoint_that_loads(unfinished, tmp_path, medgan):
    run = shutil.copytree(unfinished, tmp_path / "run")
    (run / ".generator.safetensors.1.tmp").write_bytes(b"half")
    (run / "generator.safetensors.new").write_bytes(b"half")
    assert medgan("info", run).code == 0


def start(*arguments: object, script: str = "") -> subprocess.Popen[str]:
    code = script + "\nfrom medgan.cli import main\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SLOW = """
import time
from medgan.training import loop
step = loop._Trainer._step
def slow(self):
    print("step", self.state.step, flush=True)
    time.sleep(0.3)
    return step(self)
loop._Trainer._step = slow
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_27_a_signal_ends_within_ten_seconds_and_the_next_call_goes_on(
    number, code, config_file, tiny_config, tmp_path, medgan
):
    run = tmp_path / "run"
    process = start("train", config_file, "training.steps=8", "training.state_every=2", "--output", run, script=SLOW)
    assert process.stdout is not None
    while "step 3" not in process.stdout.readline():
        assert process.poll() is None
    asked = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert time.monotonic() - asked < 10 * busy
    assert process.returncode == code
    line = err.strip().splitlines()[-1]
    assert line.startswith("medgan: INTERRUPTED: ")
    assert "run the same command again to go on" in line
    assert "Traceback" not in err
    assert has_state(run)
    assert not list(run.rglob("*.tmp"))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


HOSTILE = {
    "pickle": (pickle.dumps(_Bomb()), "CHECKPOINT_WEIGHTS"),
    "enormous header": ((10**9).to_bytes(8, "little") + b"{}", "CHECKPOINT_WEIGHTS"),
    "wrong shapes": (save({"velocity.weight": torch.zeros(3)}), "CHECKPOINT_SHAPES"),
    "empty": (b"", "CHECKPOINT_WEIGHTS"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_31_a_hostile_checkpoint_is_refused_and_never_executed(
    name, checkpoint_folder, cohort_folder, tmp_path, medgan, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    content, code = HOSTILE[name]
    folder = shutil.copytree(checkpoint_folder, tmp_path / "hostile")
    (folder / "generator.safetensors").write_bytes(content)
    medgan("info", folder).require_fault(code)
    ended = medgan("generate", folder, "--data", cohort_folder, "--output", tmp_path / "o", "--count", 1)
    ended.require_fault(code)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "o").exists()


def test_31_a_record_cannot_lead_elsewhere(checkpoint_folder, tmp_path, medgan):
    folder = shutil.copytree(checkpoint_folder, tmp_path / "hostile")
    record = json.loads((folder / "checkpoint.json").read_text())
    record["sha256"] = {"../../../etc/passwd": "0" * 64}
    (folder / "checkpoint.json").write_text(json.dumps(record))
    medgan("info", folder).require_fault("CHECKPOINT_RECORD")


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("training.stpes=5", "CONFIG_UNKNOWN_KEY", ("training.stpes", "did you mean training.steps?")),
        ("training.steps=many", "CONFIG_VALUE", ("training.steps", "'many'")),
        ("training.steps=0", "CONFIG_VALUE", ("training.steps", "0")),
        ("training.steps=!!python/object/apply:os.system [id]", "CONFIG_OVERRIDE", ("training.steps",)),
        ("training.steps=$(touch executed)", "CONFIG_VALUE", ("training.steps",)),
    ],
)
def test_32_a_bad_key_or_value_is_named(override, code, words, config_file, tmp_path, medgan, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = medgan("train", config_file, override, "--output", tmp_path / "o")
    ended.require_fault(code, *words)
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "executed").exists()


def test_two_runs_cannot_share_an_output_folder(config_file, tmp_path, medgan):
    run = tmp_path / "run"
    process = start("train", config_file, "--output", run, script=SLOW)
    assert process.stdout is not None
    process.stdout.readline()
    medgan("train", config_file, "--output", run).require_fault("FOLDER_IN_USE", "another medgan run")
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", ["with space", "ümlaut 日本語", "n" * 120])
def test_folders_of_any_name_and_links_work(name, config_file, cohort_folder, tmp_path, medgan):
    home = tmp_path / name
    home.mkdir()
    cohort = shutil.copytree(cohort_folder, home / "cohort")
    (home / "link").symlink_to(cohort)
    assert medgan("check", home / "link").code == 0
    ended = medgan("train", config_file, f"data.root={home / 'link'}", "training.steps=1", "--output", home / "run")
    assert ended.code == 0, ended.err
    assert load_file(home / "run" / "generator.safetensors")


def test_an_output_that_cannot_be_is_one_line(config_file, tmp_path, medgan):
    (tmp_path / "file").touch()
    medgan("train", config_file, "--output", tmp_path / "file").require_fault("NOT_A_FOLDER")
    medgan("train", config_file, "--output", tmp_path / "file" / "x").require_fault("NOT_WRITABLE")
    medgan("train", config_file, "--output", tmp_path / ("n" * 300)).require_fault("NOT_WRITABLE")
