from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from medgan.data.loaders import Prepared, stack_images
from medgan.models.fields import Fields
from medgan.training.validation import NOISE_SHARE, Validator

Balls = Callable[[int, int], list[Prepared]]


class Mover:
    """A generator that moves a ball, and brightens it: by the noise, or as ``blind`` to it."""

    config = SimpleNamespace(latent=3)

    def __init__(self, voxels: float = 0.0, *, blind: bool = False, bright: float = 0.0) -> None:
        self.voxels, self.blind, self.bright = voxels, blind, bright

    def __call__(self, volume: Tensor, z: Tensor, _class_index: Tensor) -> Fields:
        if self.blind:  # a move of its own for every volume, as likely as any that noise would give
            seeds = [int(1e6 * v.double().mean()) for v in volume]
            z = torch.stack([torch.randn(3, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        generators = torch.zeros(len(volume), 4, 4)
        generators[:, :3, 3] = (z * self.voxels).clamp(-2 * self.voxels, 2 * self.voxels)
        still = torch.zeros(len(volume), 3, 4, 4, 4)
        return Fields(still, generators, still[:, :1] + self.bright, still[:, :1])


@pytest.fixture(scope="module")
def validator(balls: Balls) -> Validator:
    """Balls that lie within two voxels of the middle."""
    training, held_out = balls(24, 0), balls(8, 100)
    return Validator(stack_images(training), torch.tensor([p.class_index for p in training]), stack_images(held_out), 0)


PARTS = ("reach", "change", "coverage", "precision")


def score(validator: Validator, generator: Mover) -> float:
    return validator(generator)["score"]  # type: ignore[arg-type]


def test_siblings_as_patients_are_score_above_copies_and_above_those_far_away(validator: Validator) -> None:
    good, copies, far = (score(validator, g) for g in (Mover(1.0), Mover(0.0), Mover(6.0, bright=-1.5)))
    assert good > copies + 0.3
    assert good > far + 0.3


def test_each_part_of_the_score_is_there(validator: Validator) -> None:
    figures = validator(Mover(1.0))  # type: ignore[arg-type]
    parts = [figures[name] for name in PARTS]
    assert figures["score"] == pytest.approx(sum(parts))
    assert min(parts) > 0
    assert figures["fold_share"] == 0


def test_a_generator_that_knows_one_good_sibling_of_each_volume_scores_nothing(validator: Validator) -> None:
    blind = validator(Mover(1.0, blind=True))  # type: ignore[arg-type]
    assert sum(blind[name] for name in PARTS) > score(validator, Mover(1.0)) - 0.3  # nothing else gives it away
    assert blind["noise"] < 0.01
    assert blind["score"] == 0


def test_noise_that_works_is_far_from_the_bound(validator: Validator) -> None:
    assert all(validator(Mover(voxels))["noise"] > 5 * NOISE_SHARE for voxels in (0.3, 1.0))  # type: ignore[arg-type]


def test_the_same_generator_gets_the_same_score(validator: Validator) -> None:
    assert score(validator, Mover(1.0)) == score(validator, Mover(1.0))
