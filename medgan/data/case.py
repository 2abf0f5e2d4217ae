"""What a cohort is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medgan.errors import InputFault

SplitName = Literal["training", "validation", "test"]
Report = Callable[[InputFault], None]
"""What to do about a fault of one case: raise it, or note it and go on with the others."""


@dataclass(frozen=True)
class Case:
    """One scan.

    Attributes:
        case_id: unique in its cohort.
        patient_id: whom it is of; splits are by patient.
        images: one path a channel, or one 4-D file or one DICOM folder.
        label: its label map.
        class_name: its class; ``None`` where it has none, or none of those asked for.
        split: the part it was given by its source.
        channels: channels of the file, where ``images`` is one 4-D file.
        frame: which frame, from 0, of a 4-D file that holds several; ``None`` for a 3-D file.
        series: SeriesInstanceUID of the one meant, of a DICOM folder that holds several.
    """

    case_id: str
    patient_id: str
    images: tuple[Path, ...]
    label: Path | None = None
    class_name: str | None = None
    split: SplitName | None = None
    channels: int = 1
    frame: int | None = None
    series: str | None = None


@dataclass(frozen=True)
class Cohort:
    """The cases and what is known of all of them.

    Attributes:
        source: the file or folder it was read from.
        cases: in the order of the source.
        label_names: label values and names, without the background 0; empty where the source declares none.
        class_names: the classes, in the order of their index.
        modality: ``mri``, ``ct`` or what else the source says.
        channels: channels of every image.
    """

    source: Path
    cases: tuple[Case, ...]
    label_names: Mapping[int, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    modality: str | None = None
    channels: int = 1


def raise_fault(fault: InputFault) -> None:
    """Stop at the first fault."""
    raise fault
