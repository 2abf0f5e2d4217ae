"""The encoder of a pair: which noise would turn this volume into that one?

Only training needs it. With it the generator is a conditional variational auto-encoder as well (Zhu et al. 2017,
BicycleGAN, arXiv:1711.11586): noise comes to mean how patients of a class differ, and siblings drawn from it vary as
patients do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.config import ModelConfig
from medgan.models.blocks import DownBlock
from medgan.models.fields import Shape

SUMMARY = 8  # channels at an eighth of the resolution that the estimate is made of


class PairEncoder(nn.Module):
    """Estimates the noise between two volumes as a normal distribution.

    Args:
        config: widths and length of the noise.
        channels: image channels.
        shape: the network's grid, multiples of 8.
    """

    def __init__(self, config: ModelConfig, channels: int, shape: Shape) -> None:
        super().__init__()
        w = config.width
        self.encoder = nn.Sequential(
            DownBlock(3 * channels, w, norm=True), DownBlock(w, 2 * w, norm=True), DownBlock(2 * w, 4 * w, norm=True)
        )
        self.summary = nn.Conv3d(4 * w, SUMMARY, 1)
        self.estimate = nn.Linear(SUMMARY * math.prod(n // 8 for n in shape), 2 * config.latent)

    def forward(self, source: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the noise, ``(B, latent)`` each.

        Args:
            source, partner: ``(B, C, *shape)`` in 0..1.
        """
        a, b = source * 2 - 1, partner * 2 - 1
        h = F.leaky_relu(self.summary(self.encoder(torch.cat([a, b, b - a], dim=1))), 0.2)
        mean, log_variance = self.estimate(h.flatten(1)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 4)
