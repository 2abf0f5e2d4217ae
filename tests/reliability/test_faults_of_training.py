"""Faults 29 and 30, by the command: memory that is short, numbers that are none, networks that do nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from reliability_helpers import fingerprint
from safetensors.torch import load_file
from torch import Tensor

from medgan.checkpoint import load_checkpoint
from medgan.models.discriminator import Discriminator
from medgan.models.generator import Generator
from medgan.training import loop, steps
from medgan.training.watch import STEPS

Step = Callable[[loop._Trainer], dict[str, float]]
BEGINS = 7
"""The first update that a fault touches; states are written every second one."""


@pytest.fixture
def config_file(tiny_tree: dict[str, object], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return path


def before_each_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[loop._Trainer], None]) -> None:
    step = loop._Trainer._step

    def changed(self: loop._Trainer) -> dict[str, float]:
        act(self)
        return step(self)

    monkeypatch.setattr(loop._Trainer, "_step", changed)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, pairs: int) -> list[int]:
    """Let the discriminator hold so many pairs at a time; return the numbers that it is asked for."""
    forward, asked = Discriminator.forward, []

    def limited(self: Discriminator, source: Tensor, candidate: Tensor, class_index: Tensor) -> Tensor:
        asked.append(len(source))
        if len(source) > pairs:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return forward(self, source, candidate, class_index)

    monkeypatch.setattr(Discriminator, "forward", limited)
    return asked


def test_29_short_memory_halves_the_batch_says_so_and_trains_on(config_file, tmp_path, medgan, monkeypatch):
    asked = short_of_memory(monkeypatch, pairs=2)
    ended = medgan("train", config_file, "training.batch=5", "training.mismatch=0", "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert asked[:2] == [5, 3]
    assert set(asked[2:]) == {2, 1}  # found once; every later update begins with what fitted
    said = [line for line in ended.err.splitlines() if "out of memory" in line]
    assert ["computed 3 at a time" in said[0], "computed 2 at a time" in said[1], len(said)] == [True, True, 2]
    assert load_checkpoint(tmp_path / "run").origin.steps > 0


def test_29_a_resumed_run_goes_on_with_what_fitted(config_file, tmp_path, medgan, monkeypatch):
    asked = short_of_memory(monkeypatch, pairs=1)
    train = ("train", config_file, "training.batch=3", "--output")
    assert medgan(*train, tmp_path / "whole").code == 0

    def dies(trainer: loop._Trainer) -> None:
        if trainer.state.step == 5:
            raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        before_each_step(patch, dies)
        assert medgan(*train, tmp_path / "run").code == 1
    asked.clear()
    assert medgan(*train, tmp_path / "run").code == 0
    assert set(asked) == {1}
    whole, resumed = (load_file(tmp_path / name / "generator.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_29_one_pair_that_is_too_much_ends_in_one_line(config_file, tmp_path, medgan, monkeypatch):
    short_of_memory(monkeypatch, pairs=0)
    ended = medgan("train", config_file, "--output", tmp_path / "run")
    assert ended.code == 1
    line = ended.err.splitlines()[-1]
    assert "OUT_OF_MEMORY: one pair of volumes" in line
    assert "lower preprocess.shape or model.width" in line
    assert state_steps(tmp_path / "run") == [0]


def state_steps(run: Path) -> list[int]:
    return sorted(
        json.loads((folder / "state.json").read_text())["step"] for folder in (run / "training_state").iterdir()
    )


def nan_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = loop._Trainer._draw

    def poisoned(self: loop._Trainer, rng: torch.Generator):
        batch, sources = draw(self, rng)
        if self.state.step >= BEGINS:
            batch.source[0, 0, 3, 3, 3] = float("nan")
        return batch, sources

    monkeypatch.setattr(loop._Trainer, "_draw", poisoned)


def nan_in_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, calls = steps.losses.generator_loss, []

    def poisoned(kind: str, real: Tensor, fake: Tensor) -> Tensor:
        calls.append(kind)
        return loss(kind, real, fake) * (float("nan") if len(calls) > BEGINS else 1)

    monkeypatch.setattr(steps.losses, "generator_loss", poisoned)


def nan_in_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(trainer: loop._Trainer) -> None:
        if trainer.state.step == BEGINS:
            with torch.no_grad():
                next(trainer.generator.parameters()).fill_(float("nan"))

    before_each_step(monkeypatch, poison)


def collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Siblings differ well, until the head that moves voxels falls silent."""

    def silence(trainer: loop._Trainer) -> None:
        network = trainer.state.networks["generator"]
        assert isinstance(network, Generator)
        with torch.no_grad():
            for head in (network.velocity, network.affine):
                if trainer.state.step == 0:
                    head.weight.mul_(15)
                elif trainer.state.step >= BEGINS:
                    head.weight.zero_()

    before_each_step(monkeypatch, silence)


def constant_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, silent = Discriminator.forward, []
    before_each_step(monkeypatch, lambda trainer: silent.append(1) if trainer.state.step >= BEGINS else None)
    monkeypatch.setattr(Discriminator, "forward", lambda self, *args: forward(self, *args) * (0 if silent else 1))


@pytest.mark.parametrize(
    ("fault", "code", "within"),
    [
        (nan_in_a_batch, "NOT_FINITE", 1),
        (nan_in_a_loss, "NOT_FINITE", 1),
        (nan_in_the_weights, "NOT_FINITE", 1),
        (collapse, "COLLAPSED", STEPS),
        (constant_discriminator, "DISCRIMINATOR_CONSTANT", STEPS),
    ],
)
def test_30_a_training_that_cannot_succeed_stops_in_time_at_its_last_good_state(
    fault, code, within, config_file, tmp_path, medgan, monkeypatch
):
    run = tmp_path / "run"
    often = [f"training.steps={BEGINS + 3 * STEPS}", "training.validate_every=5", "training.picture_every=1000"]
    fault(monkeypatch)
    done: list[int] = []
    before_each_step(monkeypatch, lambda trainer: done.append(trainer.state.step))
    ended = medgan("train", config_file, *often, "--output", run)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith(f"{run}: {code}: ")
    assert "rolled back to step 6, the last good state, which is kept" in line
    assert len(done) == BEGINS + within
    # Nothing of what came after the fault's beginning has stayed.
    assert state_steps(run) == [4, 6]
    assert load_checkpoint(run).origin.steps == 5
    assert all(torch.isfinite(value).all() for value in load_file(run / "generator.safetensors").values())
    # With the cause mended the same command goes on from there.
    monkeypatch.undo()
    monkeypatch.setenv("MEDGAN_QUIET", "1")
    before = fingerprint(run / "training_state" / "step-00000006")
    assert before
    done.clear()
    before_each_step(monkeypatch, lambda trainer: done.append(trainer.state.step))
    assert medgan("train", config_file, *often, "training.steps=8", "--output", run).code == 0
    assert done == [6, 7]


def test_30_weights_that_became_none_are_not_made_a_checkpoint(config_file, tmp_path, medgan, monkeypatch):
    """A last update may end in NaN though every figure before it was a number."""
    update = loop.MovingAverage.update

    def poisoned(self, *args):
        update(self, *args)
        with torch.no_grad():
            next(self.average.parameters()).fill_(float("nan"))

    monkeypatch.setattr(loop.MovingAverage, "update", poisoned)
    often = ("training.validate_every=1", "training.state_every=1")
    ended = medgan("train", config_file, *often, "--output", tmp_path / "run")
    assert ended.code == 1
    assert "NOT_FINITE: average/" in ended.err.splitlines()[-1]
    assert not (tmp_path / "run" / "checkpoint.json").exists()
    assert state_steps(tmp_path / "run") == [0]
