"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """Keeps ``average``, a copy of a network that follows it slowly.

    Args:
        network: the network to follow.
        halflife: samples seen after which the past weighs one half.
    """

    def __init__(self, network: nn.Module, halflife: float) -> None:
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.halflife = halflife

    @torch.no_grad()
    def update(self, network: nn.Module, samples: int) -> None:
        """Move towards ``network`` after a step on ``samples`` samples."""
        weight = 1 - 0.5 ** (samples / self.halflife)
        for mine, new in zip(self.average.parameters(), network.parameters(), strict=True):
            mine.lerp_(new.detach().to(mine), weight)
        for kept, buffer in zip(self.average.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
