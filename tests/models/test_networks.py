from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medgan.config import ModelConfig
from medgan.models.discriminator import Discriminator
from medgan.models.ema import MovingAverage
from medgan.models.fields import Fields, apply_on_grid, without_folds
from medgan.models.generator import Generator

SHAPE = (16, 24, 16)
CONFIG = ModelConfig(width=4, latent=6, basis=3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 1, 4])
def test_a_recipe_for_any_number_of_channels_and_classes(channels: int, classes: int) -> None:
    generator = Generator(CONFIG, channels, classes, SHAPE)
    unit = torch.rand(2, channels, *SHAPE)
    fields = generator(unit, torch.randn(2, 6), torch.full((2,), classes))
    siblings, displacement = apply_on_grid(fields, unit)
    assert siblings.shape == unit.shape
    assert displacement.shape == (2, 3, *SHAPE)
    assert Discriminator(CONFIG, channels, classes)(unit, siblings, torch.full((2,), classes)).shape == (2,)


def test_the_noise_changes_shape_and_appearance() -> None:
    generator = Generator(CONFIG, 1, 0, SHAPE)
    unit = torch.rand(1, 1, *SHAPE)
    index = torch.zeros(1, dtype=torch.long)
    a, b = (generator(unit, torch.randn(1, 6), index) for _ in range(2))
    for name in ("velocity", "generators", "gain", "offset"):
        assert not torch.allclose(getattr(a, name), getattr(b, name))


def test_fields_stay_within_their_bounds() -> None:
    generator = Generator(CONFIG, 1, 0, SHAPE)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(50)
    fields = generator(torch.rand(2, 1, *SHAPE), torch.randn(2, 6), torch.zeros(2, dtype=torch.long))
    extent = torch.tensor(SHAPE).reshape(1, 3, 1, 1, 1)
    assert (fields.velocity.abs() <= CONFIG.max_velocity * extent + 1e-5).all()
    assert fields.gain.abs().max() <= CONFIG.max_gain + 1e-6
    assert fields.offset.abs().max() <= CONFIG.max_offset + 1e-6
    assert fields.texture is None


@pytest.mark.parametrize("max_texture", [0.0, 0.1])
def test_a_linear_generator_is_odd_in_the_noise(max_texture: float) -> None:
    generator = Generator(CONFIG.model_copy(update={"linear": True, "max_texture": max_texture}), 1, 2, SHAPE)
    with torch.no_grad():  # biases and mapping away from their start, where much is odd by chance
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    unit, z, index = torch.rand(2, 1, *SHAPE), torch.randn(2, 6), torch.tensor([0, 2])
    there, back, still = (generator(unit, noise, index) for noise in (z, -z, torch.zeros_like(z)))
    for name in ("velocity", "generators", "gain", "offset") + (("texture",) if max_texture else ()):
        moved = getattr(there, name)
        assert moved.abs().max() > 1e-4
        assert torch.equal(moved, -getattr(back, name))
        assert not getattr(still, name).any()


def test_a_linear_generator_adds_modes_that_belong_to_the_volume_and_its_class() -> None:
    generator = Generator(CONFIG.model_copy(update={"linear": True}), 1, 2, SHAPE)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    unit, index = torch.rand(1, 1, *SHAPE), torch.tensor([0])

    def before_bound(z: Tensor, volume: Tensor = unit, kind: Tensor = index) -> Tensor:
        extent = torch.tensor(SHAPE).reshape(1, 3, 1, 1, 1)
        velocity: Tensor = generator(volume, z, kind).velocity / (generator.config.max_velocity * extent)
        return velocity.atanh()

    with torch.no_grad():
        modes = [before_bound(row[None] * 0.01) for row in torch.eye(6)]
        z = torch.randn(1, 6) * 0.01
        summed = sum(float(w) * 100 * mode for w, mode in zip(z[0], modes, strict=True))
        assert torch.allclose(before_bound(z), summed, atol=1e-5)
        # Six numbers, six directions: none of the modes is a sum of the others.
        values = torch.linalg.svdvals(torch.cat(modes).flatten(1))
        assert values[-1] > values[0] / 100
        assert not torch.allclose(before_bound(z), before_bound(z, kind=torch.tensor([1])), rtol=0.05)
        assert not torch.allclose(before_bound(z), before_bound(z, torch.rand(1, 1, *SHAPE)), rtol=0.05)


def test_texture_is_there_only_when_asked_for() -> None:
    generator = Generator(CONFIG.model_copy(update={"max_texture": 0.1}), 1, 0, SHAPE)
    fields = generator(torch.rand(1, 1, *SHAPE), torch.randn(1, 6), torch.zeros(1, dtype=torch.long))
    assert fields.texture is not None
    assert 0 < fields.texture.abs().max() <= 0.1


def test_strength_zero_is_the_identity_on_the_grid() -> None:
    generator = Generator(CONFIG, 1, 0, SHAPE)
    unit = torch.rand(1, 1, *SHAPE)
    fields = generator(unit, torch.randn(1, 6), torch.zeros(1, dtype=torch.long)).scaled(0.0)
    siblings, displacement = apply_on_grid(fields, unit)
    assert displacement.abs().max() < 1e-4
    assert torch.allclose(siblings, unit, atol=1e-4)


def test_a_folding_velocity_is_halved_until_it_does_not_fold() -> None:
    torch.manual_seed(0)
    wild = Fields(
        torch.randn(1, 3, 4, 6, 4) * 40, torch.zeros(1, 4, 4), torch.zeros(1, 1, 4, 6, 4), torch.zeros(1, 1, 4, 6, 4)
    )
    from medgan.models.deformation import jacobian_determinant
    from medgan.models.fields import displacement_field

    assert jacobian_determinant(displacement_field(wild, SHAPE) / 2).min() <= 0
    tamed, displacement = without_folds(wild, SHAPE)
    assert jacobian_determinant(displacement / 2).min() > 0
    assert 0 < tamed.velocity.abs().max() < wild.velocity.abs().max()


def test_a_row_that_folds_leaves_the_others_as_they_are() -> None:
    torch.manual_seed(0)
    velocity = torch.randn(2, 3, 4, 6, 4) * torch.tensor([40.0, 0.2]).reshape(2, 1, 1, 1, 1)
    nothing = torch.zeros(2, 1, 4, 6, 4)
    tamed, displacement = without_folds(Fields(velocity, torch.zeros(2, 4, 4), nothing, nothing), SHAPE)
    alone = [
        without_folds(Fields(velocity[i : i + 1], torch.zeros(1, 4, 4), nothing[:1], nothing[:1]), SHAPE)
        for i in range(2)
    ]
    assert torch.equal(tamed.velocity[1], velocity[1])
    assert torch.equal(tamed.velocity, torch.cat([fields.velocity for fields, _ in alone]))
    assert torch.allclose(displacement, torch.cat([moved for _, moved in alone]), atol=1e-5)


def test_the_moving_average_is_halfway_after_its_halflife() -> None:
    network = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(network.weight)
    average = MovingAverage(network, halflife=8)
    torch.nn.init.ones_(network.weight)
    for _ in range(4):
        average.update(network, samples=2, seen=10**6)
    assert float(average.average.weight) == pytest.approx(0.5)
