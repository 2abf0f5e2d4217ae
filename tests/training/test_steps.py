from __future__ import annotations

import pytest
import torch

from medgan.config import ModelConfig, TrainingConfig
from medgan.models.discriminator import Discriminator
from medgan.models.generator import Generator
from medgan.models.posterior import PairEncoder
from medgan.training.losses import coarse_difference, normal_divergence
from medgan.training.steps import StepBatch, generator_step

SHAPE = (16, 16, 16)
MODEL = ModelConfig(width=4, latent=8, basis=4)


def blobs(centres: torch.Tensor) -> torch.Tensor:
    grid = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in SHAPE), indexing="ij"))
    squared = (grid[None] - centres.reshape(-1, 3, 1, 1, 1)).square().sum(dim=1, keepdim=True)
    return torch.exp(-squared / 18)


def test_noise_encoded_from_a_pair_rebuilds_the_partner() -> None:
    torch.manual_seed(0)
    generator, encoder = Generator(MODEL, 1, 0, SHAPE), PairEncoder(MODEL, 1, SHAPE)
    discriminator = Discriminator(MODEL, 1, 0).requires_grad_(False)
    # Patients whose blob lies here or there along one axis: what differs between them is where it lies.
    source, partner = (
        blobs(torch.tensor([[7.5, 7.5, 7.5]] * 4)),
        blobs(torch.tensor([[7.5, y, 7.5] for y in (6, 9) * 2])),
    )
    settings = TrainingConfig(
        pair=20, pair_divergence=0.001, mode_seeking_shape=0, mode_seeking_appearance=0, augment=0
    )
    optimiser = torch.optim.Adam([*generator.parameters(), *encoder.parameters()], 2e-3)
    known = torch.zeros(4, dtype=torch.long)
    figures: dict[str, float] = {}
    for step in range(60):
        rng = torch.Generator().manual_seed(step)
        z = torch.randn(3, 4, MODEL.latent, generator=rng)
        batch = StepBatch(source, partner, partner, known.bool(), known, *z)
        optimiser.zero_grad()
        figures, _ = generator_step(generator, discriminator, batch, settings, rng, torch.Tensor.backward, encoder)
        optimiser.step()
    assert figures["pair/difference"] < 0.5 * figures["pair/before"]


def test_the_divergence_of_a_standard_normal_is_zero_and_known_for_others() -> None:
    zero = torch.zeros(3, 5)
    assert float(normal_divergence(zero, zero)) == 0
    assert float(normal_divergence(zero + 2, zero)) == pytest.approx(2)
    assert float(normal_divergence(zero, zero + 1)) == pytest.approx((torch.e - 2) / 2)


def test_what_differs_from_voxel_to_voxel_alone_counts_little() -> None:
    checks = (torch.stack(torch.meshgrid(*[torch.arange(8)] * 3, indexing="ij")).sum(dim=0) % 2).float()[None, None]
    assert float(coarse_difference(checks, 1 - checks)) == 0
    assert float(coarse_difference(checks, checks + 0.5)) == pytest.approx(0.5)


def test_a_discriminator_of_batches_sees_that_all_candidates_are_alike() -> None:
    torch.manual_seed(0)
    one = torch.rand(1, 1, *SHAPE)
    source, index = torch.rand(4, 1, *SHAPE), torch.zeros(4, dtype=torch.long)

    def scores(batch_diversity: bool, candidates: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        config = MODEL.model_copy(update={"batch_diversity": batch_diversity})
        with torch.no_grad():
            result: torch.Tensor = Discriminator(config, 1, 0)(source, candidates, index)
        return result

    alike, varied = one.expand(4, -1, -1, -1, -1), torch.cat([one, torch.rand(3, 1, *SHAPE)])
    assert torch.equal(scores(False, alike)[:1], scores(False, varied)[:1])
    assert not torch.equal(scores(True, alike)[:1], scores(True, varied)[:1])


def test_noise_that_is_asked_for_it_does_more_than_one_thing() -> None:
    def alignment(weight: float) -> float:
        torch.manual_seed(0)
        generator, discriminator = Generator(MODEL, 1, 0, SHAPE), Discriminator(MODEL, 1, 0).requires_grad_(False)
        source = blobs(torch.tensor([[7.5, 7.5, 7.5]] * 6))
        settings = TrainingConfig(mode_seeking_directions=weight, mode_seeking_appearance=0, augment=0)
        optimiser = torch.optim.Adam(generator.parameters(), 5e-3)
        known, figures = torch.zeros(6, dtype=torch.long), []
        for step in range(60):
            rng = torch.Generator().manual_seed(step)
            z = torch.randn(3, 6, MODEL.latent, generator=rng)
            optimiser.zero_grad()
            batch = StepBatch(source, source, source, known.bool(), known, *z)
            figures.append(generator_step(generator, discriminator, batch, settings, rng, torch.Tensor.backward)[0])
            optimiser.step()
        assert figures[-1]["diversity/shape_voxels"] > 0.5  # and it still moves
        return sum(f["diversity/alignment"] for f in figures[-10:]) / 10

    assert alignment(2.0) < 0.6 * alignment(0.0)
