"""Pseudo-labels from fitted scans: what other patients' scans, bent until they show this one, say about it.

A teacher errs in its own way; label maps carried over from other scans err in another. For each unlabelled scan the
training scans most like it are bent as siblings are until they show it (:mod:`medgan.models.fitting`), and their label
maps – true ones where there are, the teacher's where not – are averaged, each voxel of each by how well it fits there.
That, averaged with the teacher's own answer, is the pseudo-label.

The fits look at images alone: they are the same for every seed and every teacher, and are made once.

Source: multi-atlas segmentation with local weights (Artaechevarria et al., IEEE TMI 2009; Iglesias and Sabuncu, Medical
Image Analysis 2015); atlases that have no manual labels themselves: Wolz et al., LEAP, NeuroImage 2010.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.models.deformation import sample_at, voxel_grid
from medgan.models.fields import Fields, Shape, without_folds
from medgan.models.fitting import Effort, fit_shape, identity, mismatch, positions, standardised

logger = logging.getLogger(__name__)

SHARPNESS = 6.0  # how fast a source's weight falls with its mismatch
NEIGHBOURHOOD = 5  # voxels along an axis that a mismatch is averaged over
TEACHER = 0.3  # weight of the teacher's own answer, chosen on validation cases (docs/research-log.md)

Predict = Callable[[Sequence[Prepared]], Tensor]


@dataclass(frozen=True, eq=False)
class Fit:
    """What was fitted to one scan: the ``sources``, by row of the atlas, and the ``(K, ...)`` fields of each."""

    sources: tuple[int, ...]
    fields: Fields


class Atlas:
    """The scans that others are explained by.

    Args:
        images: ``(N, C, *shape)`` in 0..1: the labelled scans first, then the unlabelled.
        labelled: how many are labelled.
        sources: scans that are fitted to one, half of them labelled where there are as many.
        effort: of each fit.
    """

    def __init__(self, images: Tensor, labelled: int, *, sources: int, effort: Effort | None = None) -> None:
        self.labelled, self.sources, self.effort = labelled, sources, effort
        self.shape: Shape = (images.shape[2], images.shape[3], images.shape[4])
        self.standard = standardised(images)
        self._coarse = F.avg_pool3d(self.standard, 2).flatten(1)
        self._fits: dict[int, Fit] = {}

    def fit(self, row: int) -> Fit:
        """Fit the scans most like it to the scan at ``row``; once."""
        if row not in self._fits:
            chosen = self.nearest(row)
            start = identity(len(chosen), self.shape)
            fitted = fit_shape(self.standard[chosen], self.standard[row : row + 1], start, self.effort)
            self._fits[row] = Fit(tuple(chosen), without_folds(fitted, self.shape)[0])
        return self._fits[row]

    def fit_all(self) -> None:
        """Fit the scans most like it to every unlabelled scan."""
        missing = [row for row in range(self.labelled, len(self.standard)) if row not in self._fits]
        if missing:
            logger.info("fitting %d scans to each of %d unlabelled ones, once", self.sources, len(missing))
        for row in missing:
            self.fit(row)

    @torch.no_grad()
    def say(self, row: int, shares: Tensor) -> Tensor:
        """Return what other scans say of the scan at ``row``: ``(L, *shape)``, summing to 1 over L.

        Args:
            row: which scan.
            shares: ``(N, L, *shape)`` probabilities of each label in each scan.
        """
        fit = self.fit(row)
        chosen = list(fit.sources)
        apart = mismatch(self.standard[chosen], self.standard[row : row + 1], fit.fields)
        half = NEIGHBOURHOOD // 2
        apart = F.avg_pool3d(apart, NEIGHBOURHOOD, stride=1, padding=half, count_include_pad=False)
        weights = torch.softmax(-SHARPNESS * apart, dim=0)
        where = positions(fit.fields, self.shape, voxel_grid(self.shape, apart))
        return (sample_at(shares[chosen], where) * weights).sum(dim=0)

    def nearest(self, row: int) -> list[int]:
        """Return the scans to fit to the scan at ``row``: the most alike, labelled ones first."""
        order = (self._coarse - self._coarse[row]).square().mean(dim=1).argsort().tolist()
        known = [r for r in order if r < self.labelled and r != row]
        others = [r for r in order if r >= self.labelled and r != row]
        half = max(-(-self.sources // 2), self.sources - len(others))
        known = known[:half]
        return known + others[: self.sources - len(known)]


def atlas_predictions(
    atlas: Atlas, teacher: Predict, labelled: Sequence[Prepared], unlabelled: Sequence[Prepared], values: Sequence[int]
) -> Predict:
    """Return the mean of what a teacher says of an unlabelled case and what the scans fitted to it say.

    Args:
        atlas: of the images of both, in this order.
        teacher: cases to ``(B, 1 + len(values), *shape)`` probabilities, background first.
        labelled, unlabelled: the cases of the atlas.
        values: of the labels.
    """
    answers = torch.cat([teacher(unlabelled[i : i + 8]).cpu() for i in range(0, len(unlabelled), 8)])
    truth = torch.stack([_one_hot(case, (0, *values)) for case in labelled])
    shares = torch.cat([truth.to(answers.dtype), answers])
    row_of = {case.case.case_id: len(labelled) + i for i, case in enumerate(unlabelled)}

    def predict(cases: Sequence[Prepared]) -> Tensor:
        rows = [row_of[case.case.case_id] for case in cases]
        return torch.stack([TEACHER * shares[row] + (1 - TEACHER) * atlas.say(row, shares) for row in rows])

    return predict


def _one_hot(case: Prepared, values: Sequence[int]) -> Tensor:
    assert case.label is not None  # a labelled case
    return torch.cat([case.label == value for value in values])
