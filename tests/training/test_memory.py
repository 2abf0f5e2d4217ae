from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medgan.config import ModelConfig, TrainingConfig
from medgan.errors import TrainingFailure
from medgan.models.discriminator import Discriminator
from medgan.models.generator import Generator
from medgan.training import steps
from medgan.training.memory import fitting, in_parts, rows_of
from medgan.training.steps import StepBatch, discriminator_step, generator_step

SHAPE = (16, 16, 16)
MODEL = ModelConfig(width=4, latent=8, basis=4)
BATCH = 5


@pytest.fixture
def batch() -> StepBatch:
    rng = torch.Generator().manual_seed(1)
    source, partner, stranger = torch.rand(3, BATCH, 1, *SHAPE, generator=rng)
    z = torch.randn(3, BATCH, MODEL.latent, generator=rng)
    classes = torch.tensor([0, 1, 0, 1, 1])
    return StepBatch(source, partner, stranger, torch.ones(BATCH, dtype=torch.bool), classes, *z)


def gradients(*networks: nn.Module) -> list[Tensor]:
    return [value.grad.clone() for n in networks for value in n.parameters() if value.grad is not None]


@pytest.mark.parametrize("part", [1, 2, 3])
def test_gradients_and_figures_of_the_parts_are_those_of_the_whole(
    part: int, batch: StepBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is drawn differs between a part and the whole, so here nothing is.
    monkeypatch.setattr(steps, "resample_slightly", lambda volumes, _: volumes)
    settings = TrainingConfig(augment=0, instance_noise=0)
    torch.manual_seed(0)
    generator, discriminator = Generator(MODEL, 1, 2, SHAPE), Discriminator(MODEL, 1, 2)
    found = {}
    for size in (BATCH, part):
        generator.zero_grad()
        discriminator.zero_grad()
        rng = torch.Generator().manual_seed(0)

        def judge(rows: slice, share: float, rng: torch.Generator = rng) -> dict[str, float]:
            return discriminator_step(
                discriminator, generator, rows_of(batch, rows), settings, rng,
                lambda loss: (loss * share).backward(), penalised=discriminator,
            )  # fmt: skip

        def make(rows: slice, share: float, rng: torch.Generator = rng) -> dict[str, float]:
            return generator_step(
                generator, discriminator, rows_of(batch, rows), settings, rng, lambda loss: (loss * share).backward()
            )[0]

        figures = in_parts(judge, BATCH, size)
        judged = gradients(discriminator)
        figures |= in_parts(make, BATCH, size)
        found[size] = figures, judged + gradients(generator)
    (figures, whole), (added_figures, added) = found[BATCH], found[part]
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in whole)
    for one, other in zip(whole, added, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)
    for name in ("discriminator/loss", "discriminator/mismatch", "discriminator/penalty", "generator/loss"):
        assert added_figures[name] == pytest.approx(figures[name], rel=1e-3), name


def test_what_did_not_fit_is_halved_until_it_does_and_said(caplog: pytest.LogCaptureFixture) -> None:
    rng = torch.Generator().manual_seed(3)
    tried: list[int] = []
    drawn: list[float] = []
    starts: list[None] = []

    def work(rows: slice, share: float) -> dict[str, float]:
        tried.append(rows.stop - rows.start)
        drawn.append(float(torch.rand(1, generator=rng)))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"loss": rows.start}

    with caplog.at_level(logging.WARNING):
        figures, part = fitting(work, 7, 7, rng=rng, start=lambda: starts.append(None), output=Path("run"))
    assert (tried, part) == ([7, 4, 2, 2, 2, 1], 2)
    assert len(starts) == 3
    assert drawn[0] == drawn[1] == drawn[2]  # each try draws the same
    assert figures == {"loss": pytest.approx((2 * 0 + 2 * 2 + 2 * 4 + 6) / 7)}
    assert "a batch of 7 pairs is computed 4 at a time" in caplog.text
    assert "a batch of 7 pairs is computed 2 at a time from here on, gradients added up" in caplog.text


def test_one_pair_that_does_not_fit_is_the_end(tmp_path: Path) -> None:
    def work(rows: slice, share: float) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    with pytest.raises(TrainingFailure, match=r"OUT_OF_MEMORY: .*Tried to allocate 20 GiB.*; lower preprocess\.shape"):
        fitting(work, 4, 4, rng=torch.Generator(), start=lambda: None, output=tmp_path)


def test_a_figure_that_some_parts_lack_is_the_mean_of_those_that_have_it() -> None:
    def work(rows: slice, share: float) -> dict[str, float]:
        return {"a": 1.0} | ({"b": 4.0} if rows.start == 0 else {})

    assert in_parts(work, 4, 2) == {"a": 1.0, "b": 4.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_fits_a_device_that_is_too_small_for_it(batch: StepBatch) -> None:
    device = torch.device("cuda")
    torch.cuda.set_per_process_memory_fraction(300e6 / torch.cuda.get_device_properties(device).total_memory)
    try:

        def work(rows: slice, share: float) -> dict[str, float]:
            held = torch.zeros(40_000_000 * (rows.stop - rows.start), device=device, dtype=torch.uint8)
            return {"bytes": float(held.numel())}

        _, part = fitting(work, 32, 32, rng=torch.Generator(), start=lambda: None, output=Path("run"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert part == 4
