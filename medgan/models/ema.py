"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """Keeps ``average``, a copy of a network that follows it slowly.

    Args:
        network: the network to follow.
        halflife: samples seen after which the past weighs one half; early on, when there is little past to speak of
            but the random start, a twentieth of what has been seen (Karras et al. 2020, StyleGAN2-ADA).
    """

    def __init__(self, network: nn.Module, halflife: float) -> None:
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.halflife = halflife

    @torch.no_grad()
    def update(self, network: nn.Module, samples: int, seen: int) -> None:
        """Move towards ``network`` after a step on ``samples`` samples, ``seen`` of them so far."""
        weight = 1 - 0.5 ** (samples / min(self.halflife, max(seen / 20, 1e-8)))
        for mine, new in zip(self.average.parameters(), network.parameters(), strict=True):
            mine.lerp_(new.detach().to(mine), weight)
        for kept, buffer in zip(self.average.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
