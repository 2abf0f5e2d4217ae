"""What a format is: a function from a sibling in memory to named bytes, and an index of them all at the end.

A format does not compress. Whoever writes its pieces does (:meth:`Piece.packed`), beside what is computed meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from isal import igzip
from numpy.typing import NDArray

from medgan.checkpoint import Checkpoint
from medgan.data.cohort import Cohort
from medgan.data.nifti import encode_nifti
from medgan.data.volume import Volume
from medgan.generate.making import Made
from medgan.generate.store import Content, Store

LEVEL = 2
"""Default compression: as small as gzip's level 3 within a few per cent, several times as fast, on real scans and on
phantoms (``benchmarks/compression.py``)."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A file, or a folder of files, of a sibling.

    Attributes:
        path: relative to the output.
        content: its bytes, or each file's, before compression.
        digest: SHA-256 of the content.
        compressed: whether it is written as a gzip file.
    """

    path: str
    content: Content
    digest: str
    compressed: bool = False

    def packed(self, level: int) -> Content:
        """Return what is written; ``level`` is that of compression, where it is compressed."""
        if self.compressed and isinstance(self.content, bytes):
            return compress(self.content, level)
        return self.content


@dataclass(frozen=True, eq=False)
class Encoded:
    """A sibling as it will lie in the store; the label map's pieces are empty where there is none."""

    image: tuple[Piece, ...] = ()
    label: tuple[Piece, ...] = ()

    def by_kind(self) -> dict[str, tuple[Piece, ...]]:
        """Return the pieces of ``image`` and of ``label``, each only where there are any."""
        return {kind: pieces for kind, pieces in (("image", self.image), ("label", self.label)) if pieces}


@dataclass(frozen=True)
class Setting:
    """What all volumes of an output have in common.

    Attributes:
        cohort: of the sources.
        checkpoint: of the generator.
        class_column: name of the class in an index.
    """

    cohort: Cohort
    checkpoint: Checkpoint
    class_column: str


class Format(Protocol):
    """A way to write siblings."""

    name: str
    folders: tuple[str, ...]
    """Of images and label maps; sidecars lie beside the images."""
    needs_label: bool
    takes_real: bool
    """Whether real cases may be linked into the same output."""

    def check(self, setting: Setting) -> None:
        """Refuse, before anything is made, what cannot be written.

        Raises:
            InputFault: what, and why.
        """

    def encode(self, made: Made, setting: Setting) -> Encoded:
        """Return the bytes of a sibling: a function of it alone."""

    def real_paths(self, case_id: str, channels: int) -> tuple[list[str], str]:
        """Return where a real case's image and label map are linked."""

    def write_index(self, rows: Iterable[Mapping[str, str]], setting: Setting, store: Store) -> None:
        """Write what tools want beside ``manifest.csv``, whose rows these are."""


def compress(raw: bytes, level: int) -> bytes:
    """Return a gzip file; without a time stamp the same bytes always give the same file."""
    return bytes(igzip.compress(raw, compresslevel=level, mtime=0))


def content_size(content: Content) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return len(content) if isinstance(content, bytes) else sum(map(len, content.values()))


def nifti_piece(path: str, data: NDArray[Any], like: Volume) -> Piece:
    """Return ``(C, X, Y, Z)`` as a ``.nii.gz`` in the geometry, type and scale of ``like``."""
    raw = encode_nifti(data, like)
    return Piece(path, raw, hashlib.sha256(raw).hexdigest(), compressed=True)


def channel_names(setting: Setting, channels: int) -> dict[str, str]:
    """Return the names of the channels as nnU-Net knows them: ``CT`` has a normalisation of its own there."""
    modality = modality_of(setting)
    name = {"ct": "CT", "mri": "MRI"}.get(modality, modality)
    return {"0": name} if channels == 1 else {str(number): f"{name}{number}" for number in range(channels)}


def modality_of(setting: Setting) -> str:
    """Return ``ct``, ``mri`` or what else the cohort says, and where it says nothing, the generator."""
    return setting.cohort.modality or setting.checkpoint.config.data.modality
