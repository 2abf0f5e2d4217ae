"""The real volumes of an evaluation, as they are and interpolated once, as siblings are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.models.resampling import resample, resample_labels, slight_motion
from medgan.seeding import torch_generator

SMOOTHING = (
    "Includes the smoothing of one interpolation: a deformation interpolates, and so every sibling has less fine noise "
    "than a volume straight from the scanner."
)


@dataclass(frozen=True, eq=False)
class Real:
    """The real volumes on the grid. ``training`` is empty for a cohort the generator has not seen."""

    training: Sequence[Prepared]
    held_out: Sequence[Prepared]

    @property
    def sources(self) -> Sequence[Prepared]:
        """What siblings are made of: training cases; where there are none, the cohort's own."""
        return self.training or self.held_out

    @property
    def others(self) -> Sequence[Prepared]:
        """Held-out cases that no sibling was made of."""
        return self.held_out if self.training else ()

    def interpolated(self, seed: int) -> Real:
        """Return the same cases, each sampled once under a motion of less than a voxel."""
        return Real(interpolate_once(self.training, seed), interpolate_once(self.held_out, seed))


def interpolate_once(prepared: Sequence[Prepared], seed: int, *names: object) -> list[Prepared]:
    """Move cases by less than a voxel, their label maps alike (by the largest share, as for siblings).

    Args:
        prepared: cases on the grid.
        seed: with ``names`` and the case's id, of its motion: the same whatever other cases there are.
        names: what the motion is for, where a case is moved more than once.
    """
    return [_moved(case, seed, *names) for case in prepared]


def patients_of(prepared: Sequence[Prepared]) -> list[str]:
    """Return the patient of each case."""
    return [p.case.patient_id for p in prepared]


def _moved(prepared: Prepared, seed: int, *names: object) -> Prepared:
    theta = slight_motion(prepared.image[None], torch_generator(seed, "interpolation", *names, prepared.case.case_id))
    label: Tensor | None = None
    if prepared.label is not None:
        label = resample_labels(prepared.label, theta)
    return replace(prepared, image=resample(prepared.image[None], theta)[0], label=label)
