from __future__ import annotations

import math

import pytest
import torch

from medgan.training import losses

KINDS = ["relativistic", "nonsaturating", "hinge", "wgan-gp"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_discriminator_prefers_reals_above_fakes_and_the_generator_the_reverse(kind: str) -> None:
    high, low = torch.full((4,), 0.8), torch.full((4,), -0.8)
    assert losses.discriminator_loss(kind, high, low) < losses.discriminator_loss(kind, low, high)
    assert losses.generator_loss(kind, real=low, fake=high) < losses.generator_loss(kind, real=high, fake=low)


def test_the_relativistic_loss_of_equal_scores_is_log_2() -> None:
    scores = torch.randn(5)
    assert float(losses.discriminator_loss("relativistic", scores, scores)) == pytest.approx(math.log(2))


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        losses.discriminator_loss("nonsense", torch.zeros(1), torch.zeros(1))


def test_r1_of_a_linear_score_is_its_squared_weight() -> None:
    weight = torch.randn(1, 2, 3, 3, 3)
    penalty = losses.squared_gradient(lambda v: (v * weight).sum(dim=(1, 2, 3, 4)), torch.randn(4, 2, 3, 3, 3))
    assert float(penalty) == pytest.approx(float(weight.square().sum()), rel=1e-5)


def test_the_gradient_penalty_of_a_unit_slope_is_zero() -> None:
    weight = torch.randn(1, 1, 3, 3, 3)
    weight /= weight.norm()
    real, fake = torch.randn(2, 4, 1, 3, 3, 3)
    mix = torch.rand(4, 1, 1, 1, 1)
    penalty = losses.gradient_penalty(lambda v: (v * weight).sum(dim=(1, 2, 3, 4)), real, fake, mix)
    assert float(penalty) == pytest.approx(0, abs=1e-9)


def test_beyond_an_affine_map_nothing_is_left_of_one_and_all_of_a_wave() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in (8, 10, 12)], indexing="ij"))[None]
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    affine = torch.einsum("ij,bjxyz->bixyz", matrix, grid) + 3
    assert losses.beyond_affine(affine).abs().max() < 1e-4
    wave = torch.cos(2 * torch.pi * 2 * (grid + 0.5) / torch.tensor([8.0, 10, 12]).reshape(1, 3, 1, 1, 1))
    assert torch.allclose(losses.beyond_affine(wave + affine), wave, atol=1e-4)


def test_the_alignment_is_one_over_the_number_of_directions() -> None:
    one = torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([1.0, -2.0, 0.5, 3.0]).reshape(4, 1, 1, 1, 1)
    assert float(losses.alignment_loss(one * scales)) == pytest.approx(1, abs=1e-5)
    assert float(losses.alignment_loss(torch.eye(6).reshape(6, 3, 2, 1, 1))) == pytest.approx(0, abs=1e-6)
    two = torch.eye(2).repeat(50, 1).reshape(100, 1, 2, 1, 1)
    assert float(losses.alignment_loss(two)) == pytest.approx(0.5, abs=0.01)
    assert float(losses.alignment_loss(one)) == 0
    assert float(losses.alignment_loss(torch.zeros(3, 3, 2, 2, 2))) == 0


def test_the_spread_loss_ends_where_the_wanted_distance_is_reached() -> None:
    a = torch.zeros(2, 3, 4, 4, 4)
    assert float(losses.spread_loss(a, a, wanted=1.0)) == pytest.approx(1, abs=1e-3)
    assert float(losses.spread_loss(a, a + 0.5, wanted=1.0)) == pytest.approx(0.25, abs=1e-3)
    assert float(losses.spread_loss(a, a + 1.2, wanted=1.0)) == 0


def test_a_mismatched_pair_ranked_above_the_real_one_costs_more() -> None:
    high, low = torch.ones(3), -torch.ones(3)
    assert losses.mismatch_loss(high, low) < losses.mismatch_loss(low, high)
    assert float(losses.mismatch_loss(torch.zeros(0), torch.zeros(0))) == 0
