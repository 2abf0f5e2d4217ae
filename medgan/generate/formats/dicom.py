"""DICOM: a folder of slices a channel, and a segmentation object for the label map."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from pydicom.dataset import Dataset

from medgan.checkpoint import library_versions
from medgan.data.dicom_headers import pseudonym
from medgan.errors import InputFault
from medgan.generate.formats.base import Encoded, Piece, Setting, modality_of
from medgan.generate.formats.dicom_image import MODALITIES, Identity, dicom_bytes, series, to_stored
from medgan.generate.formats.dicom_seg import segmentation
from medgan.generate.making import Made
from medgan.generate.store import Store


class Dicom:
    """``images/NAME/0001.dcm``, ... (``NAME_0000/``, ``NAME_0001/`` for several channels) and ``labels/NAME.dcm``."""

    name = "dicom"
    folders: tuple[str, ...] = ("images", "labels")
    needs_label = False
    takes_real = False  # their headers name patients

    def check(self, setting: Setting) -> None:
        """Refuse what is neither CT nor MR."""
        modality = modality_of(setting)
        if modality not in MODALITIES:
            reason = f"the modality is {modality!r}, and series are written as CT or MR"
            raise InputFault(setting.cohort.source, "MODALITY", reason, "choose --format nifti")

    def encode(self, made: Made, setting: Setting) -> Encoded:
        """Return a series a channel and the segmentation, which refers to the first."""
        who = identity(made)
        channels = made.image.shape[0]
        images: list[Piece] = []
        first: list[Dataset] = []
        for channel in range(channels):
            slices = list(self._series(made, setting, who, channel))
            first = first or slices
            suffix = "" if channels == 1 else f"_{channel:04d}"
            files = {f"{ds.InstanceNumber:04d}.dcm": dicom_bytes(ds) for ds in slices}
            files = dict(sorted(files.items()))
            digest = hashlib.sha256()
            for content in files.values():
                digest.update(content)
            images.append(Piece(f"images/{made.order.name}{suffix}", files, digest.hexdigest()))
        if made.label is None or made.source.label is None:
            return Encoded(tuple(images))
        names = setting.cohort.label_names
        values = sorted(names) or sorted(int(v) for v in np.unique(made.source.label.data) if v)
        if not values:
            return Encoded(tuple(images))
        content = dicom_bytes(segmentation(made.label[0], values, names, first, who))
        path = f"labels/{made.order.name}.dcm"
        return Encoded(tuple(images), (Piece(path, content, hashlib.sha256(content).hexdigest()),))

    def real_paths(self, case_id: str, channels: int) -> tuple[list[str], str]:
        """Never asked for."""
        raise NotImplementedError(case_id, channels)

    def write_index(self, rows: Iterable[Mapping[str, str]], setting: Setting, store: Store) -> None:
        """Write nothing: the manifest is the index."""

    def _series(self, made: Made, setting: Setting, who: Identity, channel: int) -> Iterable[Dataset]:
        like = made.source.image
        low, span = (float(part[channel].reshape(-1)[0]) for part in (made.recipe.scale.low, made.recipe.scale.span))
        window = (low + span / 2, max(span, 1.0))
        stored = to_stored(made.image[channel], like)
        return series(stored, like.affine, MODALITIES[modality_of(setting)], who, window, channel + 1)


def identity(made: Made) -> Identity:
    """Return who a sibling's study is: a function of source, checkpoint and what was drawn; its patient's pseudonym."""
    drawn = made.recipe.parameters
    names = (
        drawn.checkpoint, made.source.content, str(drawn.seed), str(drawn.index), repr(drawn.strength),
        str(drawn.class_name),
    )  # fmt: skip
    how = f"checkpoint {drawn.checkpoint}, seed {drawn.seed}, index {drawn.index}, strength {drawn.strength}"
    patient = pseudonym(f"{made.source.case.patient_id}")
    return Identity(names, patient, how, library_versions()["medgan"])
