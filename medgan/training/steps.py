"""One update of the discriminator, one update of the generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medgan.config import TrainingConfig
from medgan.models.discriminator import Discriminator
from medgan.models.fields import Fields, appearance_change, apply_on_grid
from medgan.models.generator import Generator
from medgan.models.posterior import PairEncoder
from medgan.models.resampling import resample_slightly
from medgan.training import losses
from medgan.training.augmentation import augment_pair


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The volumes of one step, ``(B, C, *shape)`` in 0..1, on the training device.

    Attributes:
        source: x_i.
        partner: x_j, same class, another patient.
        stranger: x_k, another class where ``has_stranger``.
        has_stranger: ``(B,)`` bool.
        class_index: ``(B,)`` class of the source; the number of classes for unknown.
        z, z_other: ``(B, latent)`` two noise vectors.
        z_pair: ``(B, latent)`` of the draw from the estimate for (source, partner).
    """

    source: Tensor
    partner: Tensor
    stranger: Tensor
    has_stranger: Tensor
    class_index: Tensor
    z: Tensor
    z_other: Tensor
    z_pair: Tensor


@dataclass(frozen=True, eq=False)
class PastRows:
    """Siblings of earlier steps, for some rows of a batch whose sources are theirs.

    Attributes:
        rows: ``(B,)`` bool.
        fakes: ``(B, C, *shape)``; only the true rows are looked at.
    """

    rows: Tensor
    fakes: Tensor


def discriminator_step(
    discriminator: Discriminator,
    generator: Generator,
    batch: StepBatch,
    config: TrainingConfig,
    rng: torch.Generator,
    backward: Callable[[Tensor], None],
    *,
    penalised: Discriminator | None,
    past: PastRows | None = None,
) -> dict[str, float]:
    """Accumulate the discriminator's gradients for one batch; the caller owns the optimiser.

    Args:
        discriminator, generator: the networks; the generator gets no gradient here.
        batch: volumes and noise.
        config: weights.
        rng: CPU generator of this step.
        backward: ``fabric.backward``.
        penalised: the bare discriminator (not Fabric's wrapper, which would bring autocast back) when the lazy penalty
            is due, else ``None``.
        past: rows of the batch that meet a sibling of an earlier step instead of one made now.

    Returns:
        figures to log.
    """
    with torch.no_grad():
        fake, _ = apply_on_grid(generator(batch.source, batch.z, batch.class_index), batch.source)
    if past is not None:
        fake = torch.where(past.rows.to(fake.device).reshape(-1, 1, 1, 1, 1), past.fakes.to(fake), fake)
    real = resample_slightly(batch.partner, rng)

    def seen(candidate: Tensor) -> tuple[Tensor, Tensor]:
        return _as_seen(batch.source, candidate, config, rng)

    real_pair, fake_pair = seen(real), seen(fake)
    real_score = discriminator(*real_pair, batch.class_index)
    fake_score = discriminator(*fake_pair, batch.class_index)
    loss = losses.discriminator_loss(config.loss, real_score, fake_score)
    figures = {
        "discriminator/loss": float(loss.detach()),
        "discriminator/margin": float((real_score - fake_score).detach().mean()),
        "discriminator/accuracy": float((real_score > fake_score).float().mean()),
    }
    if config.mismatch > 0 and bool(batch.has_stranger.any()):
        strange_pair = seen(resample_slightly(batch.stranger, rng))
        strange_score = discriminator(*strange_pair, batch.class_index)
        rows = batch.has_stranger
        mismatch = losses.mismatch_loss(real_score[rows], strange_score[rows])
        loss = loss + config.mismatch * mismatch
        figures["discriminator/mismatch"] = float(mismatch.detach())
    if penalised is not None and config.penalty > 0:
        penalty = _penalty(penalised, real_pair, fake_pair, batch.class_index, config.loss, rng)
        loss = loss + config.penalty * config.penalty_every * penalty
        figures["discriminator/penalty"] = float(penalty.detach())
    backward(loss)
    return figures


def generator_step(
    generator: Generator,
    discriminator: Discriminator,
    batch: StepBatch,
    config: TrainingConfig,
    rng: torch.Generator,
    backward: Callable[[Tensor], None],
    encoder: PairEncoder | None = None,
) -> tuple[dict[str, float], Tensor]:
    """Accumulate the generator's gradients for one batch, and the pair encoder's, where there is one.

    Returns:
        figures to log, and the siblings made, detached, for a buffer of past fakes.
    """
    fields = generator(batch.source, batch.z, batch.class_index)
    fake, displacement = apply_on_grid(fields, batch.source)
    change = _change(fields, batch.source)
    source_seen, fake_seen = _as_seen(batch.source, fake, config, rng)
    fake_score = discriminator(source_seen, fake_seen, batch.class_index)
    with torch.no_grad():
        real_seen = _as_seen(batch.source, resample_slightly(batch.partner, rng), config, rng)
        real_score = discriminator(*real_seen, batch.class_index)
    adversarial = losses.generator_loss(config.loss, real_score, fake_score)

    other = generator(batch.source, batch.z_other, batch.class_index)
    _, displacement_other = apply_on_grid(other, batch.source)
    change_other = _change(other, batch.source)
    apart = displacement - displacement_other
    if not config.mode_seeking_affine:
        apart = losses.beyond_affine(apart)
    shape_spread = losses.spread_loss(apart, torch.zeros_like(apart), config.shape_spread)
    alignment = losses.alignment_loss(apart)
    appearance_spread = losses.spread_loss(change, change_other, config.appearance_spread)
    rough = losses.field_penalty(fields, displacement, shape=config.smoothness, appearance=config.appearance_smoothness)
    magnitude = losses.magnitude_penalty(displacement, change)
    loss = (
        adversarial
        + config.mode_seeking_shape * shape_spread
        + config.mode_seeking_appearance * appearance_spread
        + rough
        + config.magnitude * magnitude
    )
    if config.mode_seeking_directions > 0:
        loss = loss + config.mode_seeking_directions * alignment
    pair_figures: dict[str, float] = {}
    if encoder is not None:
        pair, pair_figures = _pair_term(generator, encoder, batch, config)
        loss = loss + pair
    backward(loss)
    figures = pair_figures | {
        "generator/loss": float(loss.detach()),
        "generator/adversarial": float(adversarial.detach()),
        "generator/roughness": float(rough.detach()),
        "diversity/shape_voxels": _rms(displacement - displacement_other),
        "diversity/alignment": float(alignment.detach()),
        "diversity/appearance": _rms(change - change_other),
        "magnitude/shape_voxels": _rms(displacement),
        "magnitude/appearance": _rms(change),
    }
    return figures, fake.detach()


def _pair_term(
    generator: Generator, encoder: PairEncoder, batch: StepBatch, config: TrainingConfig
) -> tuple[Tensor, dict[str, float]]:
    """Rebuild the partner from the source by the noise that the encoder estimates for the two."""
    mean, log_variance = encoder(batch.source, batch.partner)
    z = mean + batch.z_pair * (log_variance / 2).exp()
    rebuilt, _ = apply_on_grid(generator(batch.source, z, batch.class_index), batch.source)
    difference = losses.coarse_difference(rebuilt, batch.partner)
    divergence = losses.normal_divergence(mean, log_variance)
    figures = {
        "pair/difference": float(difference.detach()),
        "pair/before": float(losses.coarse_difference(batch.source, batch.partner)),
        "pair/divergence": float(divergence.detach()),
    }
    return config.pair * (difference + config.pair_divergence * divergence), figures


def _as_seen(source: Tensor, candidate: Tensor, config: TrainingConfig, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a pair as the discriminator sees it: augmented alike, with instance noise."""
    source, candidate = augment_pair(source, candidate, config.augment, rng)
    if config.instance_noise > 0:
        source, candidate = (
            v + torch.randn(v.shape, generator=rng).to(v) * config.instance_noise for v in (source, candidate)
        )
    return source, candidate


def _penalty(
    discriminator: Discriminator,
    real: tuple[Tensor, Tensor],
    fake: tuple[Tensor, Tensor],
    class_index: Tensor,
    kind: str,
    rng: torch.Generator,
) -> Tensor:
    def score(source: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda candidate: discriminator(source.float(), candidate, class_index)

    if kind == "wgan-gp":
        mix = torch.rand(len(class_index), 1, 1, 1, 1, generator=rng).to(real[1])
        return losses.gradient_penalty(score(real[0]), real[1], fake[1], mix)
    return losses.squared_gradient(score(real[0]), real[1]) + losses.squared_gradient(score(fake[0]), fake[1])


def _change(fields: Fields, unit: Tensor) -> Tensor:
    shape = (unit.shape[2], unit.shape[3], unit.shape[4])
    return appearance_change(fields, unit, None, shape)


def _rms(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())
