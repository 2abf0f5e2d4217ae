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
        config: widths and bounds.
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
        self.velocity = Convolution(2 * w, 3, 3, padding=1)
        self.appearance = Convolution(2 * w, 2 * channels, 3, padding=1)
        self.affine = nn.Linear(4 * w + STYLE, 12)
        if config.max_texture > 0:
            self.decode_half = ModulatedBlock(2 * w + w, w, STYLE)
            self.texture = Convolution(w, channels, 3, padding=1)
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
        fields = self._fields(features, self.mapping(z, class_index))
        if not self.config.centred:
            return fields
        return _half_difference(fields, self._fields(features, self.mapping(-z, class_index)))

    def _fields(self, features: tuple[Tensor, Tensor, Tensor], style: Tensor) -> Fields:
        """Predict a recipe from what was read of the volume, at a half, a quarter and an eighth of its resolution."""
        config = self.config
        half, quarter, eighth = features
        basis = self.basis.expand(eighth.shape[0], -1, -1, -1, -1)
        h = self.decode_eighth(torch.cat([eighth, basis], dim=1), style)
        pooled = torch.cat([h.mean(dim=(2, 3, 4)), style], dim=1)
        h = F.interpolate(h, scale_factor=2, mode="trilinear", align_corners=False)
        h = self.decode_quarter(torch.cat([h, quarter], dim=1), style)
        h = self.refine_quarter(h, style)
        extent = torch.tensor(self.shape, dtype=torch.float32, device=h.device).reshape(1, 3, 1, 1, 1)
        velocity = torch.tanh(self.velocity(h).float()) * config.max_velocity * extent
        gain, offset = torch.tanh(self.appearance(h).float()).chunk(2, dim=1)
        return Fields(
            velocity,
            self._generators(pooled),
            gain * config.max_gain,
            offset * config.max_offset,
            self._texture(h, half, style),
        )

    def _generators(self, pooled: Tensor) -> Tensor:
        """Return bounded ``(B, 4, 4)`` generators: rotation, scale and shear, shift."""
        config = self.config
        a = torch.tanh(self.affine(pooled).float())
        linear = a[:, :9].reshape(-1, 3, 3)
        rotation = (linear - linear.transpose(1, 2)) / 2 * config.max_rotation
        stretch = (linear + linear.transpose(1, 2)) / 2 * config.max_scale
        extent = torch.tensor(self.shape, dtype=torch.float32, device=a.device)
        shift = a[:, 9:] * config.max_shift * extent
        top = torch.cat([rotation + stretch, shift[:, :, None]], dim=2)
        return F.pad(top, (0, 0, 0, 1))

    def _texture(self, h: Tensor, half: Tensor, style: Tensor) -> Tensor | None:
        if self.config.max_texture == 0:
            return None
        up = F.interpolate(h, scale_factor=2, mode="trilinear", align_corners=False)
        t = self.texture(self.decode_half(torch.cat([up, half], dim=1), style))
        return torch.tanh(t.float()) * self.config.max_texture


def _half_difference(a: Fields, b: Fields) -> Fields:
    """Return half of what lies between two recipes, within the bounds that both keep."""
    return Fields(
        (a.velocity - b.velocity) / 2,
        (a.generators - b.generators) / 2,
        (a.gain - b.gain) / 2,
        (a.offset - b.offset) / 2,
        None if a.texture is None or b.texture is None else (a.texture - b.texture) / 2,
    )
