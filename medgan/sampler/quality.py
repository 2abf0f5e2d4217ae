"""The quality of a sibling: what the checkpoint's independent critic says of it; and redrawing one that falls short.

A sibling is judged on the network's grid, where the critic has met real volumes: the source as the network sees it,
under the recipe, before a voxel of the result is made. So a refused attempt costs no warp at full resolution, and the
score depends on source and recipe alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from medgan.checkpoint import Checkpoint
from medgan.data.preprocess import Scale
from medgan.errors import InputFault
from medgan.measures.critic import Critic
from medgan.measures.features import volume_features
from medgan.sampler.recipe import Parameters, Recipe
from medgan.sampler.render import render
from medgan.sampler.view import View

MAX_ATTEMPTS = 20
ATTEMPT_STRIDE = 1_000_000
"""Noise of the second attempt at sibling 7 is number 1,000,007: none depends on how often others were refused."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One draw of a sibling.

    Attributes:
        recipe: its fields.
        quality: its score, see :func:`sibling_quality`; ``None`` where the checkpoint has no critic.
    """

    recipe: Recipe
    quality: float | None

    def passes(self, min_quality: float) -> bool:
        """Whether its score is at least ``min_quality``; anything passes 0."""
        return min_quality == 0 or (self.quality is not None and self.quality >= min_quality)


def attempt_at(parameters: Parameters, number: int) -> Parameters:
    """Return the parameters of attempt ``number``, counted from 0, at the sibling of ``parameters``."""
    return replace(parameters, index=parameters.index + number * ATTEMPT_STRIDE)


def attempt_number(index: int) -> int:
    """Return which attempt a recorded noise index is of, counted from 1."""
    return index // ATTEMPT_STRIDE + 1


def first_passing(attempts: Iterable[Attempt], min_quality: float) -> tuple[Attempt | None, int]:
    """Return the first attempt that passes, or ``None``, and how many were refused before it."""
    refused = 0
    for attempt in attempts:
        if attempt.passes(min_quality):
            return attempt, refused
        refused += 1
    return None, refused


@torch.no_grad()
def sibling_quality(critic: Critic, view: View, recipe: Recipe) -> float:
    """Return how usual a sibling is among real volumes: the share of them, in (0, 1], that are no more usual.

    Of real volumes of other patients 5 % have 0.05 or less. The source itself (strength 0) has 1: it is real. A sibling
    that is not finite has 0.

    Args:
        critic: of the checkpoint (:mod:`medgan.measures.critic`).
        view: the source.
        recipe: made for it.
    """
    if recipe.is_identity:
        return 1.0
    one = torch.ones(len(view.unit), 1, 1, 1, device=view.unit.device)
    sibling = render(replace(recipe, matrix=np.eye(4), scale=Scale(torch.zeros_like(one), one)), view.unit)
    if not bool(torch.isfinite(sibling).all()):
        return 0.0
    return float(critic.quality(volume_features(sibling[None]))[0])


def require_gate(checkpoint: Checkpoint, min_quality: float, name: str = "min_quality") -> None:
    """Refuse a smallest quality that the checkpoint cannot keep.

    Args:
        checkpoint: whose critic judges.
        min_quality: from 0, which asks for nothing, to below 1.
        name: of the argument, as the user knows it.

    Raises:
        InputFault: ``MIN_QUALITY``: out of range, or so low that no sibling could be refused. ``NO_CRITIC``: the
            checkpoint has none.
    """
    if not 0 <= min_quality < 1:
        raise InputFault(name, "MIN_QUALITY", f"{min_quality} is not from 0 to below 1", "give e.g. 0.05")
    if min_quality == 0:
        return
    critic = checkpoint.critic
    if critic is None:
        reason = f"the checkpoint has no critic to judge siblings by, so there is no {name}"
        remedy = "train it again with this version on at least 6 volumes, or leave the option out"
        raise InputFault(checkpoint.folder, "NO_CRITIC", reason, remedy)
    if min_quality <= critic.lowest:
        volumes = len(critic.rarest)
        reason = (
            f"{min_quality:g} refuses nothing: against {volumes} real volumes the lowest score is {critic.lowest:.3g}"
        )
        raise InputFault(name, "MIN_QUALITY", reason, "ask for more than that, or train on more volumes")
