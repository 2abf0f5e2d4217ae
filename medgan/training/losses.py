"""Losses as functions of tensors: they know nothing of logging, devices or loops.

Scores are ``(B,)``, higher for "two real patients of this class". Real and fake scores of index ``i`` share the source
volume, so the relativistic loss compares like with like.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.models.deformation import bending, roughness
from medgan.models.fields import Fields


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return the adversarial loss of the discriminator.

    Args:
        kind: ``relativistic`` (Jolicoeur-Martineau 2018; Huang et al. 2024, R3GAN), ``nonsaturating`` (Goodfellow et
            al. 2014), ``hinge`` (Lim & Ye 2017) or ``wgan-gp`` (Gulrajani et al. 2017).
        real: scores of real pairs.
        fake: scores of (source, sibling).
    """
    if kind == "relativistic":
        return F.softplus(fake - real).mean()
    if kind == "nonsaturating":
        return F.softplus(fake).mean() + F.softplus(-real).mean()
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "wgan-gp":
        return fake.mean() - real.mean()
    raise ValueError(f"unknown adversarial loss {kind!r}")


def generator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return the adversarial loss of the generator; arguments as in :func:`discriminator_loss`."""
    if kind == "relativistic":
        return F.softplus(real - fake).mean()
    if kind == "nonsaturating":
        return F.softplus(-fake).mean()
    if kind in ("hinge", "wgan-gp"):
        return -fake.mean()
    raise ValueError(f"unknown adversarial loss {kind!r}")


def mismatch_loss(real: Tensor, mismatched: Tensor) -> Tensor:
    """Return the relativistic loss that ranks a pair of one class above a pair of two (0-dim; 0 for none)."""
    loss: Tensor = F.softplus(mismatched - real).mean() if len(real) else real.sum()
    return loss


def squared_gradient(score: Callable[[Tensor], Tensor], volumes: Tensor) -> Tensor:
    """Return the mean squared gradient norm of the score at ``volumes``: R1 at reals, R2 at fakes (Mescheder 2018).

    Always in float32: a second derivative through bfloat16 is noise.
    """
    with torch.autocast(volumes.device.type, enabled=False):
        volumes = volumes.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(volumes).sum(), volumes, create_graph=True)
        norm: Tensor = gradient.square().flatten(1).sum(dim=1).mean()
        return norm


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return WGAN-GP's penalty: the gradient's norm between real and fake is to be 1. ``mix``: ``(B, 1, 1, 1, 1)``."""
    with torch.autocast(real.device.type, enabled=False):
        between = (mix * real + (1 - mix) * fake).detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
        penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return penalty


def spread_loss(first: Tensor, second: Tensor, wanted: float) -> Tensor:
    """Return the mode-seeking term for what two noise vectors make of one volume (after Mao et al. 2019, MSGAN).

    Zero once their RMS distance reaches ``wanted``: it keeps the noise from being ignored and then leaves the
    discriminator the say, where an unbounded term would saturate.

    Args:
        first, second: ``(B, ...)`` displacements (voxels) or appearance changes (0..1 range) of two z.
        wanted: RMS distance at which the term is 0, in the same unit.
    """
    if wanted == 0:
        return first.sum() * 0
    distance = (first - second).square().flatten(1).mean(dim=1).add(1e-8).sqrt()
    return F.relu(1 - distance / wanted).square().mean()


def alignment_loss(apart: Tensor) -> Tensor:
    """Return how much the noise does one and the same thing: the mean squared cosine between rows, 0 to 1.

    A distance alone is reached along a single direction; n equal directions give 1/n here. Rows that do not differ at
    all count as aligned with none.

    Args:
        apart: ``(B, ...)`` what separates two siblings of one volume, a row for each volume. One row gives 0.
    """
    rows = F.normalize(apart.flatten(1), dim=1, eps=1e-6)
    cosines = rows @ rows.T
    others = len(rows) * (len(rows) - 1)
    return (cosines.square().sum() - cosines.diagonal().square().sum()) / max(others, 1)


def beyond_affine(displacement: Tensor) -> Tensor:
    """Return ``(B, 3, D, H, W)`` without its best affine map: pose and size taken away, anatomy left.

    On a whole grid a constant and the three coordinates are orthogonal, so each is taken away by itself.
    """
    left = displacement - displacement.mean(dim=(2, 3, 4), keepdim=True)
    for axis in (2, 3, 4):
        shape = [1] * 5
        shape[axis] = displacement.shape[axis]
        ramp = torch.linspace(-1, 1, shape[axis], dtype=left.dtype, device=left.device).reshape(shape)
        slope = (left * ramp).mean(dim=(2, 3, 4), keepdim=True) / ramp.square().mean()
        left = left - slope * ramp
    return left


def normal_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of normal distributions from the standard one, per dimension, 0-dim."""
    divergence: Tensor = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return divergence


def coarse_difference(rebuilt: Tensor, volume: Tensor) -> Tensor:
    """Return the mean absolute difference at half the resolution: the noise of a scan cannot be rebuilt by a warp."""
    return F.l1_loss(F.avg_pool3d(rebuilt, 2), F.avg_pool3d(volume, 2))


def field_penalty(fields: Fields, displacement: Tensor, *, shape: float, appearance: float) -> Tensor:
    """Return the penalty on rough fields: bending of the displacement, gradient of gain and offset."""
    rough = roughness(fields.gain) + roughness(fields.offset) * 10
    return shape * bending(displacement) * 10 + appearance * rough


def magnitude_penalty(displacement: Tensor, change: Tensor) -> Tensor:
    """Return the mean squared displacement (voxels²) plus that of the appearance change (in tenths of the range)."""
    return displacement.square().mean() + (change * 10).square().mean()
