"""Each remedy of docs/training.md does, in an update of the discriminator or the generator, what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medgan.config import ModelConfig, TrainingConfig
from medgan.models.discriminator import Discriminator
from medgan.models.fields import Fields
from medgan.models.generator import Generator
from medgan.training.steps import PastRows, StepBatch, discriminator_step, generator_step

SHAPE = (16, 16, 16)
MODEL = ModelConfig(width=4, latent=4, basis=4)
BATCH = 4
PLAIN = {"augment": 0, "instance_noise": 0, "mismatch": 0}


class Linear(nn.Module):
    """A discriminator that weighs the candidate's voxels, all alike, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.01))
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, source: Tensor, candidate: Tensor, _class_index: Tensor) -> Tensor:
        self.shown.append((source.detach(), candidate.detach()))
        return (candidate * self.weight).sum(dim=(1, 2, 3, 4))


class Shifter(nn.Module):
    """A generator whose noise moves the volume, as a whole, and brightens it."""

    def __init__(self, shift: float, brighten: float) -> None:
        super().__init__()
        self.shift, self.brighten = nn.Parameter(torch.tensor(shift)), nn.Parameter(torch.tensor(brighten))

    def forward(self, volume: Tensor, z: Tensor, _class_index: Tensor) -> Fields:
        still = torch.zeros(len(volume), 3, 4, 4, 4)
        generators = torch.zeros(len(volume), 4, 4)
        generators[:, 0, 3] = z[:, 0] * self.shift
        gain = z[:, 1].reshape(-1, 1, 1, 1, 1) * self.brighten * torch.ones(1, 1, 4, 4, 4)
        return Fields(still, generators, gain, still[:, :1])


@pytest.fixture
def batch() -> StepBatch:
    rng = torch.Generator().manual_seed(1)
    source, partner, stranger = torch.rand(3, BATCH, 1, *SHAPE, generator=rng)
    z = torch.randn(3, BATCH, MODEL.latent, generator=rng)
    return StepBatch(source, partner, stranger, torch.tensor([True, False, True, False]), torch.tensor([0, 1] * 2), *z)


def judged(
    batch: StepBatch, *, discriminator: nn.Module | None = None, penalised: bool = False,
    past: PastRows | None = None, **settings: Any,
) -> tuple[float, dict[str, float], Tensor]:  # fmt: skip
    """Return the loss of one update of the discriminator, its figures and its gradient."""
    torch.manual_seed(0)
    generator, found = Generator(MODEL, 1, 2, SHAPE), []
    network: Any = discriminator or Discriminator(MODEL, 1, 2)

    def backward(loss: Tensor) -> None:
        found.append(float(loss.detach()))
        loss.backward()

    figures = discriminator_step(
        network, generator, batch, TrainingConfig(**(PLAIN | settings)), torch.Generator().manual_seed(2), backward,
        penalised=network if penalised else None, past=past,
    )  # fmt: skip
    return found[0], figures, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def made(batch: StepBatch, generator: nn.Module, **settings: Any) -> float:
    """Return the loss of one update of the generator."""
    found: list[float] = []
    plain = PLAIN | {"mode_seeking_shape": 0, "mode_seeking_appearance": 0} | settings
    network: Any = Linear()
    generator_step(
        generator, network, batch, TrainingConfig(**plain), torch.Generator().manual_seed(2),  # type: ignore[arg-type]
        lambda loss: found.append(float(loss.detach())),
    )  # fmt: skip
    return found[0]


def test_rows_with_a_past_fake_are_judged_by_it_and_the_others_are_not(batch: StepBatch) -> None:
    rows = torch.tensor([False, True, False, True])
    fakes = torch.rand(BATCH, 1, *SHAPE, generator=torch.Generator().manual_seed(3))
    without, with_past = Linear(), Linear()
    losses = [
        judged(batch, discriminator=without)[0],
        judged(batch, discriminator=with_past, past=PastRows(rows, fakes))[0],
    ]
    (_, real), (_, fake) = without.shown
    (_, real_again), (_, mixed) = with_past.shown
    assert torch.equal(real, real_again)
    assert torch.equal(mixed[rows], fakes[rows])
    assert torch.equal(mixed[~rows], fake[~rows])
    assert losses[0] != losses[1]


def test_a_pair_of_two_classes_is_a_further_negative_by_its_weight(batch: StepBatch) -> None:
    without, _, gradient = judged(batch)
    loss, figures, other = judged(batch, mismatch=0.5)
    assert figures["discriminator/mismatch"] > 0
    assert loss == pytest.approx(without + 0.5 * figures["discriminator/mismatch"], rel=1e-5)
    assert not torch.allclose(gradient, other)


@pytest.mark.parametrize("loss", ["relativistic", "wgan-gp"])
def test_the_penalty_is_part_of_the_loss_and_moves_the_discriminator(loss: str, batch: StepBatch) -> None:
    without, _, gradient = judged(batch, loss=loss)
    value, figures, other = judged(batch, loss=loss, penalised=True, penalty=2.0, penalty_every=4)
    assert value == pytest.approx(without + 2 * 4 * figures["discriminator/penalty"], rel=1e-5)
    assert not torch.allclose(gradient, other, rtol=1e-3)


def test_the_penalty_of_known_slopes_is_r1_and_r2_or_the_distance_from_1(batch: StepBatch) -> None:
    squared = 0.01**2 * 16**3  # of the gradient, at any volume
    both = judged(batch, discriminator=Linear(), penalised=True)[1]
    assert both["discriminator/penalty"] == pytest.approx(2 * squared, rel=1e-4)
    distance = judged(batch, discriminator=Linear(), penalised=True, loss="wgan-gp")[1]
    assert distance["discriminator/penalty"] == pytest.approx((squared**0.5 - 1) ** 2, rel=1e-4)


@pytest.fixture(params=["discriminator", "generator"])
def shown(request: pytest.FixtureRequest, batch: StepBatch) -> Callable[..., list[tuple[Tensor, Tensor]]]:
    """What the discriminator sees in an update of either network, under given settings."""

    def show(**settings: Any) -> list[tuple[Tensor, Tensor]]:
        network: Any = Linear()
        generator: Any = Shifter(0.0, 0.0)
        config, rng = TrainingConfig(**(PLAIN | settings)), torch.Generator().manual_seed(2)
        if request.param == "discriminator":
            discriminator_step(network, generator, batch, config, rng, lambda _: None, penalised=None)
        else:
            generator_step(generator, network, batch, config, rng, lambda _: None)
        assert len(network.shown) == 2
        return network.shown

    return show


def test_instance_noise_lies_on_every_volume_the_discriminator_sees(
    shown: Callable[..., list[tuple[Tensor, Tensor]]], batch: StepBatch
) -> None:
    for without, noisy in zip(shown(), shown(instance_noise=0.5), strict=True):
        for volume, other in zip(without, noisy, strict=True):
            if torch.equal(volume, batch.source):  # the reals' slight motion is drawn from the same stream
                assert float((other - volume).std()) == pytest.approx(0.5, rel=0.05)
            assert float(other.std()) > 0.5 > float(volume.std())


def test_the_augmentation_reaches_source_and_candidate_alike(
    shown: Callable[..., list[tuple[Tensor, Tensor]]], batch: StepBatch
) -> None:
    def of_sibling(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return min(pairs, key=lambda pair: float((pair[0] - pair[1]).abs().mean()))

    still, moved = of_sibling(shown()), of_sibling(shown(augment=1))
    assert torch.allclose(still[0], batch.source)
    # The generator does nothing here, so that sibling and source are one and the same, moved or not.
    assert torch.allclose(still[0], still[1], atol=1e-4)
    assert torch.allclose(moved[0], moved[1], atol=1e-4)
    for pairs in shown(augment=1):
        assert all(float((a - b).abs().mean()) > 0.01 for a, b in zip(pairs[0], batch.source, strict=True))


def test_siblings_that_look_alike_cost_and_those_that_differ_enough_do_not(batch: StepBatch) -> None:
    def cost(brighten: float) -> float:
        generator = Shifter(0.0, brighten)
        with_term = made(batch, generator, mode_seeking_appearance=3.0, appearance_spread=0.01)
        return with_term - made(batch, generator)

    assert cost(0.0) == pytest.approx(3, rel=0.05)
    assert cost(0.5) == pytest.approx(0, abs=1e-5)


def test_siblings_that_lie_alike_cost_and_those_that_differ_enough_do_not(batch: StepBatch) -> None:
    def cost(shift: float, **settings: Any) -> float:
        generator = Shifter(shift, 0.0)
        return made(batch, generator, mode_seeking_shape=2.0, shape_spread=0.1, **settings) - made(batch, generator)

    assert cost(0.0) == pytest.approx(2, rel=0.05)
    assert cost(3.0) == pytest.approx(0, abs=1e-4)
    # A move of the whole volume is no anatomy that varies.
    assert cost(3.0, mode_seeking_affine=False) == pytest.approx(2, rel=0.05)
