"""Cases read, checked and laid on the network's grid, ready in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medgan.data.cohort import Case, Cohort, load_image, load_label
from medgan.data.preprocess import Preprocessing
from medgan.progress import track


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case on the grid.

    Attributes:
        case: where it came from.
        image: ``(C, *shape)`` float32 in 0..1.
        label: ``(1, *shape)`` uint8, or ``None`` for a case without a label map.
        class_index: index into the cohort's class names, -1 without a class.
    """

    case: Case
    image: Tensor
    label: Tensor | None
    class_index: int


def prepare(
    cases: Sequence[Case], cohort: Cohort, preprocessing: Preprocessing, description: str = "reading"
) -> list[Prepared]:
    """Read cases through the gate and lay them on the grid.

    Raises:
        InputFault: a file is missing, damaged, or does not fit its label map.
    """
    prepared = []
    for case in track(cases, description):
        image = load_image(case)
        label = load_label(case, image, cohort.label_names)
        prepared.append(
            Prepared(
                case,
                preprocessing.image_to_grid(image.data, image.affine),
                None if label is None else preprocessing.label_to_grid(label.data, label.affine),
                cohort.class_names.index(case.class_name) if case.class_name in cohort.class_names else -1,
            )
        )
    return prepared


def stack_images(prepared: Sequence[Prepared]) -> Tensor:
    """Return ``(N, C, *shape)``."""
    return torch.stack([p.image for p in prepared])
