"""Building blocks of the networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Conv3d):
    """``nn.Conv3d``, with oneDNN for a single small volume too.

    For one volume of few voxels torch chooses a plain loop on the CPU, which takes five to ten times as long: most of
    what a sibling in a pipeline costs. Training, larger batches, other devices and types are left to torch.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolved: Tensor
        if not _is_single(input):
            convolved = super()._conv_forward(input, weight, bias)
            return convolved
        assert not isinstance(self.padding, str)
        convolved = torch.mkldnn_convolution(input, weight, bias, self.padding, self.stride, self.dilation, self.groups)
        return convolved


def _is_single(volumes: Tensor) -> bool:
    return (
        volumes.shape[0] == 1
        and volumes.device.type == "cpu"
        and volumes.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


class MappingNetwork(nn.Module):
    """Noise and class to a style vector: ``(B, latent)``, ``(B,)`` → ``(B, style)``.

    Args:
        latent: length of z.
        classes: number of classes; one more embedding stands for "class unknown" (index ``classes``).
        style: length of the style vector.
    """

    def __init__(self, latent: int, classes: int, style: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes + 1, style)
        self.layers = nn.Sequential(
            nn.Linear(latent + style, style), nn.LeakyReLU(0.2), nn.Linear(style, style), nn.LeakyReLU(0.2)
        )

    def forward(self, z: Tensor, class_index: Tensor) -> Tensor:
        """Return the style of each sample."""
        style: Tensor = self.layers(torch.cat([z, self.embedding(class_index)], dim=1))
        return style


class ModulatedBlock(nn.Module):
    """Convolution, group norm, and a scale and shift that the style gives (FiLM, Perez et al. 2018)."""

    def __init__(self, channels_in: int, channels_out: int, style: int) -> None:
        super().__init__()
        self.convolution = Convolution(channels_in, channels_out, 3, padding=1)
        self.norm = nn.GroupNorm(math.gcd(8, channels_out), channels_out, affine=False)
        self.modulation = nn.Linear(style, 2 * channels_out)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return ``(B, channels_out, d, h, w)``."""
        scale, shift = self.modulation(style)[:, :, None, None, None].chunk(2, dim=1)
        h = self.norm(self.convolution(x)) * (1 + scale) + shift
        return F.leaky_relu(h, 0.2)


class DownBlock(nn.Module):
    """Convolution of stride 2 and a second one, with leaky ReLU; group norm where the network may use it."""

    def __init__(self, channels_in: int, channels_out: int, *, norm: bool) -> None:
        super().__init__()
        self.down = Convolution(channels_in, channels_out, 3, stride=2, padding=1)
        self.refine = Convolution(channels_out, channels_out, 3, padding=1)
        self.norm = nn.GroupNorm(math.gcd(8, channels_out), channels_out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, channels_out, D/2, H/2, W/2)``."""
        h = F.leaky_relu(self.down(x), 0.2)
        return F.leaky_relu(self.norm(h + self.refine(h)), 0.2)
