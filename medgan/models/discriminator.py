"""The discriminator: are these two volumes of two patients of this class?

Each volume is encoded by the same network down to an eighth of the resolution before the two meet. A warped copy
shares its fine texture with its source, which no warp can change; compared early, that alone would tell it from
another patient's volume. Compared late, anatomy and contrast are what counts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.config import ModelConfig
from medgan.models.blocks import DownBlock


class Discriminator(nn.Module):
    """Scores pairs, with class projection (Miyato & Koyama 2018, arXiv:1802.05637).

    With ``config.batch_diversity`` it also sees how much the pairs of its batch differ (Karras et al. 2018,
    arXiv:1710.10196): a generator that makes the same of every volume gives itself away.

    Args:
        config: widths, batch diversity.
        channels: image channels.
        classes: number of classes; class index ``classes`` means unknown.
    """

    def __init__(self, config: ModelConfig, channels: int, classes: int) -> None:
        super().__init__()
        w = config.width
        self.encoder = nn.Sequential(
            DownBlock(channels, w, norm=False), DownBlock(w, 2 * w, norm=False), DownBlock(2 * w, 4 * w, norm=False)
        )
        self.pair = nn.Conv3d(3 * 4 * w, 4 * w, 1)
        self.down = nn.Conv3d(4 * w, 4 * w, 3, stride=2, padding=1)
        self.batch_diversity = config.batch_diversity
        self.dense = nn.Linear(2 * 4 * w + config.batch_diversity, 4 * w)
        self.score = nn.Linear(4 * w, 1)
        self.projection = nn.Embedding(classes + 1, 4 * w)

    def forward(self, source: Tensor, candidate: Tensor, class_index: Tensor) -> Tensor:
        """Return ``(B,)`` scores, higher for pairs of two real patients of the class.

        Args:
            source: ``(B, C, D, H, W)`` in 0..1.
            candidate: the same shape; another patient's volume, or a generated sibling.
            class_index: ``(B,)`` int64 in 0..classes.
        """
        a, b = self.encoder(torch.cat([source, candidate]) * 2 - 1).chunk(2)
        h = F.leaky_relu(self.pair(torch.cat([a, b, b - a], dim=1)), 0.2)
        h = F.leaky_relu(self.down(h), 0.2)
        pooled = torch.cat([h.mean(dim=(2, 3, 4)), h.amax(dim=(2, 3, 4))], dim=1)
        if self.batch_diversity:
            pooled = torch.cat([pooled, _diversity(h).expand(len(h), 1)], dim=1)
        features = F.leaky_relu(self.dense(pooled), 0.2)
        projected = (self.projection(class_index) * features).sum(dim=1) / math.sqrt(features.shape[1])
        scores: Tensor = self.score(features).squeeze(1) + projected
        return scores


def _diversity(h: Tensor) -> Tensor:
    """Return the mean over features and places of their SD over the batch; 0 for a batch of one."""
    return (h.var(dim=0, correction=0) + 1e-8).sqrt().mean()
