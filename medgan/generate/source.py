"""A source in memory: read once through the gate, however many siblings are made of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medgan.data.cohort import Case, load_image, load_label
from medgan.data.split import content_hash
from medgan.data.volume import Volume

# While a DICOM header is parsed the process keeps foreign parsers' words to itself; two at a time would undo that.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, eq=False)
class Source:
    """A case in memory, as tensors for the sampler and volumes for the writer.

    Attributes:
        case: which.
        image: ``(C, X, Y, Z)`` in real units.
        label: ``(1, X, Y, Z)``, or ``None``.
        tensor: the image in a type that torch can compute with.
        content: SHA-256 of the image's files.
        label_names: label values and names that the cohort declares, without the background.
    """

    case: Case
    image: Volume
    label: Volume | None
    tensor: Tensor
    content: str
    label_names: Mapping[int, str]


def read_source(case: Case, label_names: Mapping[int, str], content: str | None = None) -> Source:
    """Read a case through the gate.

    Args:
        case: which.
        label_names: the values declared, without 0; empty accepts any.
        content: its content hash, where it is known already.

    Raises:
        InputFault: for every fault the gate knows.
    """
    with _ONE_AT_A_TIME:
        image = load_image(case)
        label = load_label(case, image, label_names)
        content = content or content_hash(case)
    data = np.ascontiguousarray(image.data)
    # torch has no arithmetic on unsigned 16 bits and wider; float64 would cost memory for nothing.
    data = data if data.dtype in (np.int16, np.uint8, np.int32, np.float32) else data.astype(np.float32)
    return Source(case, image, label, torch.from_numpy(data), content, dict(label_names))
