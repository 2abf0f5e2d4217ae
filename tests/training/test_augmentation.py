from __future__ import annotations

import pytest
import torch

from medgan.training.augmentation import LEADS, adapted, augment_pair

SPAN = 240


def moved(probability: float, accuracies: list[float], target: float) -> float:
    return adapted(probability, [2 * a - 1 for a in accuracies], target, 6, SPAN)[0]


def test_the_augmentation_follows_the_discriminators_lead() -> None:
    assert moved(0.5, [1.0] * 4, 0.6) == pytest.approx(0.6)
    assert moved(0.5, [0.5] * 4, 0.6) == pytest.approx(0.4)
    assert moved(0.5, [0.75] * 4, 0.5) == 0.5
    assert moved(0.98, [1.0] * 4, 0.6) == 1
    assert moved(0.02, [0.0] * 4, 0.6) == 0


def test_it_is_the_mean_of_four_steps_that_counts() -> None:
    assert moved(0.5, [1.0, 1.0, 0.5, 1.0], 0.6) > 0.5 > moved(0.5, [1.0, 1.0, 0.5, 0.5], 0.6)
    leads: list[float] = []
    for _ in range(LEADS - 1):
        probability, leads = adapted(0.5, [*leads, 1.0], 0.6, 6, SPAN)
        assert probability == 0.5
    assert adapted(0.5, [*leads, 1.0], 0.6, 6, SPAN) == (pytest.approx(0.6), [])


def test_with_small_batches_it_settles_where_the_lead_is_the_target() -> None:
    rng = torch.Generator().manual_seed(0)
    probability, leads, settled = 0.0, [], []
    for _ in range(6000):
        true = 0.95 - 0.3 * probability  # of a discriminator for which augmentation makes it harder: 0.8 at 0.5
        accuracy = float((torch.rand(6, generator=rng) < true).float().mean())
        probability, leads = adapted(probability, [*leads, 2 * accuracy - 1], 0.6, 6, 3000)
        settled.append(2 * true - 1)
    # The sign of each batch of six by itself settles at a lead of 0.47.
    assert sum(settled[2000:]) / 4000 == pytest.approx(0.6, abs=0.05)


def test_both_of_a_pair_are_moved_alike_and_nothing_is_at_probability_0() -> None:
    volumes = torch.rand(3, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    source, candidate = augment_pair(volumes, volumes, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(source, candidate)
    assert all(float((a - b).abs().mean()) > 0.01 for a, b in zip(source, volumes, strict=True))
    assert torch.equal(augment_pair(volumes, volumes, 0.0, torch.Generator().manual_seed(1))[0], volumes)
