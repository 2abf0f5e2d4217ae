"""What ends a training that can no longer succeed: a number that is none, a network that does nothing.

A number that is none is noticed at once, the others after :data:`STEPS` updates in a row; a generator that has not
begun to vary is given :data:`WARM_UP`. The last good state stays on disk, because nothing is written while one is
suspected (:attr:`Watch.suspicious`) or a weight is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import torch
from torch import nn

from medgan.errors import TrainingFailure
from medgan.training.state import START_OVER, latest_step

STEPS = 50
"""Updates in a row that decide."""
WARM_UP = 200
"""A generator begins near the identity: until it has once varied, it is given this many updates to begin with."""
COLLAPSE_VOXELS = 0.02
"""Siblings of two noise vectors that differ by less than this everywhere: the noise does nothing."""
VIVID_VOXELS = 5 * COLLAPSE_VOXELS
"""Siblings that once differed by so much: less than ``COLLAPSE_VOXELS`` afterwards is no wavering of a beginner."""
CONSTANT_MARGIN = 1e-6
"""A discriminator whose scores of real and fake pairs differ by less than this tells nothing from anything."""


class Watch:
    """Looks at the figures of every update.

    Args:
        output: the folder, for the message.
        varied: whether the training asks for varied siblings (``training.mode_seeking_shape`` above 0).
        seen: what has been seen so far, by name; changed in place, and part of the training's state.
    """

    def __init__(self, output: Path, *, varied: bool, seen: MutableMapping[str, int] | None = None) -> None:
        self.output = output
        self.varied = varied
        self.seen: MutableMapping[str, int] = {} if seen is None else seen
        for name in ("has_varied", "vivid", "alike", "constant"):
            self.seen.setdefault(name, 0)

    @property
    def suspicious(self) -> bool:
        """Whether a collapse may have begun: what would be written now might be no good state."""
        return self.seen["constant"] > 0 or bool(self.varied and self.seen["vivid"] and self.seen["alike"])

    def look(self, step: int, figures: Mapping[str, float]) -> None:
        """Note one update.

        Args:
            step: updates done.
            figures: of :func:`~medgan.training.steps.discriminator_step` and ``generator_step``.

        Raises:
            TrainingFailure: ``NOT_FINITE``, ``COLLAPSED`` or ``DISCRIMINATOR_CONSTANT``, with the step and a remedy.
        """
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            raise self._failure("NOT_FINITE", f"{bad[0]} is not a number at step {step}", START_OVER)
        spread, seen = figures["diversity/shape_voxels"], self.seen
        seen["has_varied"] = int(seen["has_varied"] or spread >= COLLAPSE_VOXELS)
        seen["vivid"] = int(seen["vivid"] or spread >= VIVID_VOXELS)
        seen["alike"] = seen["alike"] + 1 if spread < COLLAPSE_VOXELS else 0
        if self.varied and seen["alike"] >= (STEPS if seen["has_varied"] else WARM_UP):
            reason = f"siblings differ by under {COLLAPSE_VOXELS} voxels for {seen['alike']} steps up to step {step}"
            raise self._failure("COLLAPSED", reason, "raise training.mode_seeking_shape and start over with --fresh")
        seen["constant"] = seen["constant"] + 1 if abs(figures["discriminator/margin"]) < CONSTANT_MARGIN else 0
        if seen["constant"] >= STEPS:
            reason = f"it scores real and fake pairs alike for {seen['constant']} steps up to step {step}"
            raise self._failure("DISCRIMINATOR_CONSTANT", reason, START_OVER)

    def require_finite(self, step: int, networks: Mapping[str, nn.Module]) -> None:
        """Look at the weights themselves, before anything is made of them that stays.

        Raises:
            TrainingFailure: ``NOT_FINITE``, with the name of a weight.
        """
        for name, network in networks.items():
            for key, value in network.state_dict().items():
                if not bool(torch.isfinite(value).all()):
                    raise self._failure("NOT_FINITE", f"{name}/{key} is not finite at step {step}", START_OVER)

    def _failure(self, code: str, reason: str, remedy: str) -> TrainingFailure:
        step = latest_step(self.output)
        kept = "" if step is None else f"; rolled back to step {step}, the last good state, which is kept"
        return TrainingFailure(f"{self.output}: {code}: {reason}{kept}; {remedy}")
