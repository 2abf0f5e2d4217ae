"""Differentiable augmentation of what the discriminator sees (Zhao et al. 2020; Karras et al. 2020).

Applied alike to real and fake pairs, with the same draw for both members of a pair, it keeps a discriminator with few
real volumes from learning them by heart, and cannot leak into what the generator makes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medgan.models.resampling import resample, small_affine

ROTATION = 0.15  # rad
SCALE = 0.1  # log
SHIFT = 0.1  # share of half the axis
GAIN = 0.15  # log
OFFSET = 0.05  # of the 0..1 range


def augment_pair(source: Tensor, candidate: Tensor, probability: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move, scale and relight both members of each pair alike, with the given probability.

    Args:
        source, candidate: ``(B, C, D, H, W)`` in 0..1.
        probability: of a pair being augmented.
        rng: CPU generator.
    """
    batch, channels = source.shape[:2]
    # Drawn whatever the probability, so that it changes nothing else in the stream.
    chosen = (torch.rand(batch, generator=rng) < probability).float()
    theta = small_affine(batch, rng, ROTATION, SCALE, torch.full((3,), SHIFT), chosen)
    gain = torch.exp(torch.randn(batch, 1, 1, 1, 1, generator=rng) * GAIN * chosen.reshape(-1, 1, 1, 1, 1))
    offset = torch.randn(batch, 1, 1, 1, 1, generator=rng) * OFFSET * chosen.reshape(-1, 1, 1, 1, 1)
    if probability == 0:
        return source, candidate
    both = torch.cat([source, candidate], dim=1)
    moved = resample(both, theta)
    moved = moved * gain.to(both) + offset.to(both)
    return moved[:, :channels], moved[:, channels:]


LEADS = 4
"""Steps whose mean lead moves the probability, as there: of one small batch, the sign balances far below the target."""


def adapted(probability: float, leads: list[float], target: float, batch: int, span: int) -> tuple[float, list[float]]:
    """Return the next probability of the augmentation (Karras et al. 2020, StyleGAN2-ADA, arXiv:2006.06676).

    There it follows how often the discriminator scores a real volume above 0; the scores of pairs have no zero of their
    own, so here it follows how often a real pair is scored above the fake one of the same source.

    Args:
        probability: now, 0 to 1.
        leads: the discriminator's lead over chance, ``2 accuracy - 1``, in each step since the probability last moved.
        target: lead at which the probability stays.
        batch: pairs in a step.
        span: pairs seen while the probability goes from 0 to 1.

    Returns:
        the probability, and the leads to go on with: it moves every :data:`LEADS` steps.
    """
    if len(leads) < LEADS:
        return probability, leads
    lead = sum(leads) / len(leads)
    step = batch * len(leads) / span * ((lead > target) - (lead < target))
    return min(1.0, max(0.0, probability + step)), []
