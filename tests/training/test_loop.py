from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medgan.checkpoint import load_checkpoint
from medgan.config import Config
from medgan.data.cohort import open_cohort
from medgan.data.loaders import Prepared
from medgan.data.split import split_cohort
from medgan.errors import InputFault, TrainingFailure
from medgan.training import loop
from medgan.training.loop import train
from medgan.training.state import has_state
from medgan.training.steps import PastRows, StepBatch


def with_training(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


@pytest.fixture(scope="module")
def trained(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config, tmp_path_factory.mktemp("trained") / "generator")


def test_a_training_leaves_a_verified_checkpoint_and_no_state(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    assert checkpoint.origin.class_names == ("small", "large")
    assert [case["case_id"] for case in checkpoint.origin.training_cases] == [f"case{i:02d}" for i in range(6)]
    assert all(len(case["content_sha256"]) == 64 for case in checkpoint.origin.training_cases)
    assert checkpoint.origin.metrics["fold_share"] == 0
    assert checkpoint.critic is not None
    assert not has_state(trained)


def test_a_picture_of_siblings_is_there(trained: Path) -> None:
    assert (trained / "pictures" / "step-000006.png").stat().st_size > 5000


def test_nothing_in_the_folder_is_a_pickle(trained: Path) -> None:
    assert {p.suffix for p in trained.rglob("*") if p.is_file()} <= {".safetensors", ".json", ".png"}


def test_the_networks_have_learned_something(trained: Path, tiny_config: Config, tmp_path: Path) -> None:
    short = train(with_training(tiny_config, steps=1), tmp_path / "short")
    assert not torch.equal(
        load_file(trained / "generator.safetensors")["velocity.weight"],
        load_file(short / "generator.safetensors")["velocity.weight"],
    )


def test_an_interrupted_training_ends_bit_identical(
    trained: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step, calls = loop._Trainer._step, []

    def dying_step(self: loop._Trainer) -> dict[str, float]:
        calls.append(self.state.step)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real_step(self)

    monkeypatch.setattr(loop._Trainer, "_step", dying_step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config, tmp_path / "run")
    assert has_state(tmp_path / "run")
    train(tiny_config, tmp_path / "run")
    assert calls == [0, 1, 2, 3, 4, 5, 4, 5]
    a, b = (load_file(folder / "generator.safetensors") for folder in (trained, tmp_path / "run"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_training_with_all_that_goes_on_from_step_to_step_resumes_bit_identical(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_training(tiny_config, pair=1.0, augment=0.5, augment_target=0.6, augment_pairs=20, fake_buffer=2)
    config = config.model_copy(update={"model": config.model.model_copy(update={"batch_diversity": True})})
    real_step, seen = loop._Trainer._step, []

    def dying_step(self: loop._Trainer) -> dict[str, float]:
        if self.state.step == 2 and len(seen) == 6 + 2:
            seen.append({})
            raise KeyboardInterrupt
        seen.append(real_step(self))
        return seen[-1]

    monkeypatch.setattr(loop._Trainer, "_step", dying_step)
    whole = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert seen[:6] == [figures for figures in seen[6:] if figures]
    assert [figures["discriminator/augment"] == 0.5 for figures in seen[:6]] == [True] * 4 + [False] * 2
    assert all(figures["pair/difference"] > 0 for figures in seen[:6])
    a, b = (load_file(folder / "generator.safetensors") for folder in (whole, tmp_path / "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_folder_is_not_overwritten_unless_asked(trained: Path, tiny_config: Config) -> None:
    before = (trained / "checkpoint.json").read_bytes()
    with pytest.raises(InputFault, match="FINISHED_RUN"):
        train(tiny_config, trained)
    assert (trained / "checkpoint.json").read_bytes() == before


@pytest.fixture
def unfinished(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "remove_states", lambda _: None)
        return train(with_training(tiny_config, steps=2), tmp_path / "run")


def test_another_configuration_does_not_resume(tiny_config: Config, unfinished: Path) -> None:
    with pytest.raises(InputFault, match=r"OTHER_RUN.*training\.batch"):
        train(with_training(tiny_config, steps=4, batch=3), unfinished)
    wider = tiny_config.model_copy(update={"model": tiny_config.model.model_copy(update={"width": 8})})
    with pytest.raises(InputFault, match=r"OTHER_RUN.*model\.width"):
        train(wider, unfinished)


def test_other_data_does_not_resume(tiny_config: Config, unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "content_hash", lambda _: "0" * 64)
    with pytest.raises(InputFault, match="OTHER_DATA"):
        train(with_training(tiny_config, steps=4), unfinished)


def test_damaged_states_are_not_passed_over_in_silence(tiny_config: Config, unfinished: Path) -> None:
    for path in unfinished.glob("training_state/*/state.safetensors"):
        path.write_bytes(b"x")
    with pytest.raises(InputFault, match="STATE_DAMAGED"):
        train(with_training(tiny_config, steps=4), unfinished)


def test_starting_over_with_a_wrong_root_destroys_nothing(tiny_config: Config, unfinished: Path) -> None:
    wrong = tiny_config.model_copy(update={"data": tiny_config.data.model_copy(update={"root": Path("nowhere")})})
    with pytest.raises(InputFault, match="MISSING_FILE"):
        train(wrong, unfinished, fresh=True)
    assert has_state(unfinished)


def test_a_run_killed_before_its_first_state_is_unfinished(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: loop._Trainer, run: object) -> None:
        raise KeyboardInterrupt

    config = with_training(tiny_config, validate_every=1, state_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_picture", dies)
        with pytest.raises(KeyboardInterrupt):
            train(with_training(config, picture_every=2), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.json").exists()
    with pytest.raises(InputFault, match="OTHER_RUN"):
        train(config, tmp_path / "run")
    train(with_training(config, picture_every=2), tmp_path / "run")


def test_half_precision_trains_with_its_penalty_in_full(tiny_config: Config, tmp_path: Path) -> None:
    config = with_training(tiny_config, precision="bf16-mixed", steps=2, penalty_every=1)
    # On 2³ voxels the CPU's bfloat16 convolution can give a NaN gradient, which the training then reports.
    wide = config.model_copy(
        update={
            "model": config.model.model_copy(update={"width": 16}),
            "preprocess": config.preprocess.model_copy(update={"shape": (32, 32, 32)}),
        }
    )
    assert load_checkpoint(train(wide, tmp_path / "run")).origin.steps == 2


def test_two_training_cases_train_without_validation(
    tiny_config: Config, cohort_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (cohort_folder / "manifest.csv").read_text().splitlines()
    few = [lines[0], *(line for line in lines[1:] if line.split(",")[0] in ("case01", "case03", "case06", "case07"))]
    (cohort_folder / "few.csv").write_text("\n".join(few) + "\n")
    data = tiny_config.data.model_copy(update={"root": cohort_folder / "few.csv"})
    train(tiny_config.model_copy(update={"data": data}), tmp_path / "run")
    assert "no validation" in caplog.text


def test_a_loss_that_is_not_a_number_stops_with_the_reason_and_keeps_the_state(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step = loop._Trainer._step

    def poisoned(self: loop._Trainer) -> dict[str, float]:
        figures = real_step(self)
        return figures | {"generator/loss": float("nan")} if self.state.step == 5 else figures

    monkeypatch.setattr(loop._Trainer, "_step", poisoned)
    with pytest.raises(TrainingFailure, match="generator/loss is not a number at step 6"):
        train(tiny_config, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "training_state").iterdir()) == ["step-00000002", "step-00000004"]


STILL = {
    "discriminator/loss": 0.7, "discriminator/margin": 0.1, "generator/adversarial": 0.7, "diversity/shape_voxels": 1.0,
}  # fmt: skip


def test_the_best_generator_is_kept_and_patience_ends_the_run(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0, 3.0, 2.0, 2.0, 9.0, 9.0])

    def moves(self: loop._Trainer) -> dict[str, float]:
        with torch.no_grad():
            self.state.average.average.velocity.bias.fill_(float(self.state.step + 1))
        return STILL

    monkeypatch.setattr(loop._Trainer, "_step", moves)
    monkeypatch.setattr(loop, "Validator", lambda *_: lambda _: {"score": next(scores)})
    checkpoint = load_checkpoint(train(with_training(tiny_config, validate_every=1, patience=2), tmp_path / "run"))
    assert checkpoint.origin.steps == 2
    assert checkpoint.origin.metrics["score"] == 3
    assert torch.equal(checkpoint.generator.velocity.bias, torch.full_like(checkpoint.generator.velocity.bias, 2.0))
    assert next(scores) == 9  # that of the fifth step, which is not taken


def test_the_discriminator_meets_fakes_of_earlier_steps_with_their_own_sources(
    tiny_config: Config,
    cohort_folder: Path,
    balls: Callable[[int, int], list[Prepared]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = open_cohort(tiny_config.data)
    config = with_training(tiny_config, batch=6, fake_buffer=32)
    training = balls(120, 0)
    trainer = loop._Trainer(config, tmp_path, cohort, split_cohort(cohort, config.data), training, [])
    images, classes = trainer.volumes.images, trainer.volumes.class_index
    met: list[int] = []

    def judge(
        _discriminator: object, _generator: object, batch: StepBatch, *_: object, past: PastRows | None, **__: object
    ) -> dict[str, float]:
        for row in [] if past is None else past.rows.nonzero().flatten().tolist():
            # A sibling of step s is its source, s + 1 brighter.
            made = float((past.fakes[row] - batch.source[row]).mean()) - 1  # type: ignore[union-attr]
            assert torch.allclose(past.fakes[row], batch.source[row] + made + 1)  # type: ignore[union-attr]
            assert round(made) < trainer.state.step
            (index,) = [i for i in range(120) if torch.equal(images[i], batch.source[row])]
            assert classes[index] == batch.class_index[row]
            met.append(trainer.state.step)
        return STILL

    def make(_generator: object, _discriminator: object, batch: StepBatch, *_: object) -> tuple[dict[str, float], Any]:
        return STILL, batch.source + trainer.state.step + 1

    monkeypatch.setattr(loop, "discriminator_step", judge)
    monkeypatch.setattr(loop, "generator_step", make)
    for step in range(60):
        trainer.state.step = step
        trainer._step()
    assert len(trainer.state.past_fakes.fakes) == 32
    assert sum(step >= 20 for step in met) / (6 * 40) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("loss", ["nonsaturating", "hinge", "wgan-gp"])
def test_every_selectable_loss_trains(loss: str, tiny_config: Config, tmp_path: Path) -> None:
    config = with_training(tiny_config, loss=loss, steps=2, fake_buffer=4)
    assert (
        json.loads((train(config, tmp_path / loss) / "checkpoint.json").read_text())["config"]["training"]["loss"]
        == loss
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_on_the_gpu_gives_a_checkpoint_that_loads_on_the_cpu(tiny_config: Config, tmp_path: Path) -> None:
    assert load_checkpoint(train(tiny_config, tmp_path / "run")).generator.velocity.weight.device.type == "cpu"
