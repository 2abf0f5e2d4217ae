"""The generator: a real volume, its class and noise → the recipe of another volume of the same class.

After DAGAN (Antoniou et al. 2017, arXiv:1711.04340), with the image replaced by a deformation and an appearance so
that a label map can follow exactly (cf. VoxelMorph, Balakrishnan et al. 2019; style modulation after Karras et al.).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.config import ModelConfig
from medgan.models.blocks import Convolution, DownBlock, MappingNetwork, ModulatedBlock
from medgan.models.fields import Fields, Shape

STYLE = 64


class Generator(nn.Module):
    """Predicts :class:`~medgan.models.fields.Fields` on control points four grid voxels apart.

    Args:
        config: widths and bounds. With ``linear`` a volume and its class decide on ``latent`` modes – recipes – and z
            weighs their sum, as in a statistical shape model (Cootes et al. 1995) whose modes are the volume's own: the
            recipe is odd in z, so that it lies about the source, and each number of z has a direction of its own.
            Without, z modulates the layers that make one recipe.
        channels: image channels.
        classes: number of classes (0 or more; class index ``classes`` means unknown).
        shape: the network's grid, multiples of 8.
    """

    def __init__(self, config: ModelConfig, channels: int, classes: int, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        self.classes = classes
        self.shape = shape
        w = config.width
        self.mapping = MappingNetwork(config.latent, classes, STYLE)
        self.encode_half = DownBlock(channels, w, norm=True)
        self.encode_quarter = DownBlock(w, 2 * w, norm=True)
        self.encode_eighth = DownBlock(2 * w, 4 * w, norm=True)
        # A learned constant gives z something to weigh that does not depend on the volume: modes of variation.
        self.basis = nn.Parameter(torch.randn(1, config.basis, *(n // 8 for n in shape)))
        self.decode_eighth = ModulatedBlock(4 * w + config.basis, 4 * w, STYLE)
        self.decode_quarter = ModulatedBlock(4 * w + 2 * w, 2 * w, STYLE)
        self.refine_quarter = ModulatedBlock(2 * w, 2 * w, STYLE)
        modes = config.latent if config.linear else 1
        self.velocity = Convolution(2 * w, modes * 3, 3, padding=1)
        self.appearance = Convolution(2 * w, modes * 2 * channels, 3, padding=1)
        self.affine = nn.Linear(4 * w + STYLE, modes * 12)
        if config.max_texture > 0:
            self.decode_half = ModulatedBlock(2 * w + w, w, STYLE)
            self.texture = Convolution(w, modes * channels, 3, padding=1)
        for head in (self.velocity, self.appearance, self.affine):
            # Small at first: training starts near the identity, yet not on it, so that z already has a gradient.
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, unit: Tensor, z: Tensor, class_index: Tensor) -> Fields:
        """Predict the recipe of one sibling for each volume.

        Args:
            unit: ``(B, C, *shape)`` in 0..1.
            z: ``(B, latent)`` standard normal.
            class_index: ``(B,)`` int64 in 0..classes; ``classes`` means unknown.
        """
        half = self.encode_half(unit * 2 - 1)
        quarter = self.encode_quarter(half)
        features = (half, quarter, self.encode_eighth(quarter))
        if self.config.linear:
            return self._fields(features, self.mapping(torch.zeros_like(z), class_index), z)
        return self._fields(features, self.mapping(z, class_index), None)

    def _fields(self, features: tuple[Tensor, Tensor, Tensor], style: Tensor, weights: Tensor | None) -> Fields:
        """Predict a recipe from what was read of the volume, at a half, a quarter and an eighth of its resolution.

        Args:
            features: of the volume.
            style: ``(B, STYLE)``, modulates every layer.
            weights: ``(B, latent)`` of the modes; ``None`` where there is one recipe.
        """
        config = self.config
        half, quarter, eighth = features
        basis = self.basis.expand(eighth.shape[0], -1, -1, -1, -1)
        h = self.decode_eighth(torch.cat([eighth, basis], dim=1), style)
        pooled = torch.cat([h.mean(dim=(2, 3, 4)), style], dim=1)
        h = F.interpolate(h, scale_factor=2, mode="trilinear", align_corners=False)
        h = self.decode_quarter(torch.cat([h, quarter], dim=1), style)
        h = self.refine_quarter(h, style)
        extent = torch.tensor(self.shape, dtype=torch.float32, device=h.device).reshape(1, 3, 1, 1, 1)
        velocity = torch.tanh(_sum_of_modes(self.velocity(h), weights)) * config.max_velocity * extent
        gain, offset = torch.tanh(_sum_of_modes(self.appearance(h), weights)).chunk(2, dim=1)
        return Fields(
            velocity,
            self._generators(pooled, weights),
            gain * config.max_gain,
            offset * config.max_offset,
            self._texture(h, half, style, weights),
        )

    def _generators(self, pooled: Tensor, weights: Tensor | None) -> Tensor:
        """Return bounded ``(B, 4, 4)`` generators: rotation, scale and shear, shift."""
        config = self.config
        a = torch.tanh(_sum_of_modes(self.affine(pooled), weights))
        linear = a[:, :9].reshape(-1, 3, 3)
        rotation = (linear - linear.transpose(1, 2)) / 2 * config.max_rotation
        stretch = (linear + linear.transpose(1, 2)) / 2 * config.max_scale
        extent = torch.tensor(self.shape, dtype=torch.float32, device=a.device)
        shift = a[:, 9:] * config.max_shift * extent
        top = torch.cat([rotation + stretch, shift[:, :, None]], dim=2)
        return F.pad(top, (0, 0, 0, 1))

    def _texture(self, h: Tensor, half: Tensor, style: Tensor, weights: Tensor | None) -> Tensor | None:
        if self.config.max_texture == 0:
            return None
        up = F.interpolate(h, scale_factor=2, mode="trilinear", align_corners=False)
        t = self.texture(self.decode_half(torch.cat([up, half], dim=1), style))
        return torch.tanh(_sum_of_modes(t, weights)) * self.config.max_texture


def _sum_of_modes(modes: Tensor, weights: Tensor | None) -> Tensor:
    """Return ``(B, n, ...)`` float32: the weighed sum of ``(B, K n, ...)`` modes, or what there is without weights."""
    modes = modes.float()  # products with the noise before tanh: bfloat16 would round small recipes away
    if weights is None:
        return modes
    apart = modes.reshape(len(modes), weights.shape[1], -1, *modes.shape[2:])
    return torch.einsum("bk,bk...->b...", weights.float(), apart)
