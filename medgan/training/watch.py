"""What ends a training that can no longer succeed: a number that is none, a network that does nothing.

Each is noticed within :data:`STEPS` updates of its beginning. The last good state stays on disk, because states are
written only when every weight is finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from medgan.errors import TrainingFailure
from medgan.training.state import START_OVER

STEPS = 50
"""Updates in a row that decide."""
WARM_UP = 200
"""A generator begins near the identity: until it has once varied, it is given this many updates to begin with."""
COLLAPSE_VOXELS = 0.02
"""Siblings of two noise vectors that differ by less than this everywhere: the noise does nothing."""
CONSTANT_MARGIN = 1e-6
"""A discriminator whose scores of real and fake pairs differ by less than this tells nothing from anything."""


class Watch:
    """Looks at the figures of every update.

    Args:
        output: the folder, for the message.
        varied: whether the training asks for varied siblings (``training.mode_seeking_shape`` above 0).
    """

    def __init__(self, output: Path, *, varied: bool) -> None:
        self.output = output
        self.varied = varied
        self.has_varied = False
        self.alike = 0
        self.constant = 0

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
            raise TrainingFailure(f"{self.output}: NOT_FINITE: {bad[0]} is not a number at step {step}, {START_OVER}")
        spread = figures["diversity/shape_voxels"]
        self.has_varied = self.has_varied or spread >= COLLAPSE_VOXELS
        self.alike = self.alike + 1 if spread < COLLAPSE_VOXELS else 0
        if self.varied and self.alike >= (STEPS if self.has_varied else WARM_UP):
            raise TrainingFailure(
                f"{self.output}: COLLAPSED: siblings differ by less than {COLLAPSE_VOXELS} voxels for {self.alike} "
                f"steps up to step {step}, raise training.mode_seeking_shape and start over with --fresh"
            )
        self.constant = self.constant + 1 if abs(figures["discriminator/margin"]) < CONSTANT_MARGIN else 0
        if self.constant >= STEPS:
            raise TrainingFailure(
                f"{self.output}: DISCRIMINATOR_CONSTANT: it scores real and fake pairs alike for {self.constant} steps "
                f"up to step {step}, {START_OVER}"
            )
