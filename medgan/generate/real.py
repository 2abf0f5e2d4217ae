"""Real cases beside the synthetic ones, in a stated ratio: linked where they are what a tool reads, else converted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from medgan.data.cohort import Case
from medgan.errors import InputFault
from medgan.generate.formats.base import Format, Setting, nifti_piece
from medgan.generate.source import Source, read_source
from medgan.generate.store import Store
from medgan.seeding import numpy_generator

logger = logging.getLogger(__name__)

ENDING = ".nii.gz"


def choose_real(sources: Sequence[Case], count: int, share: float, seed: int, layout: Format) -> list[Case]:
    """Return the real cases that make up ``share`` of an output with ``count`` siblings, drawn by the seed.

    Args:
        sources: the cases siblings are made of.
        count: number of siblings.
        share: of real cases in the whole, in [0, 1).
        seed: the user's.
        layout: the output's format.

    Raises:
        InputFault: ``REAL_SHARE``: there are not so many, or the format takes none.
    """
    if share == 0:
        return []
    if not layout.takes_real:
        reason = f"real cases cannot lie in a {layout.name} output: their headers may name patients"
        raise InputFault("--real-share", "REAL_SHARE", reason, "choose --format nifti, nnunet or decathlon")
    if not 0 < share < 1:
        raise InputFault("--real-share", "REAL_SHARE", f"{share} is not from 0 to below 1", "give e.g. 0.5")
    number = round(count * share / (1 - share))
    if number > len(sources):
        reason = f"{share:.0%} real beside {count} siblings are {number} cases, but there are {len(sources)}"
        raise InputFault("--real-share", "REAL_SHARE", reason, "lower the share or --count")
    drawn = numpy_generator(seed, "real cases").permutation(len(sources))[:number]
    return [sources[i] for i in sorted(drawn.tolist())]


def add_real(case: Case, layout: Format, setting: Setting, store: Store, level: int) -> dict[str, str]:
    """Put a real case beside the siblings, if it is not there, and return its row of the manifest.

    ``level`` is that of compression, where a case is converted.
    """
    channels = setting.checkpoint.origin.channels
    images, label = layout.real_paths(case.case_id, channels)
    linked = len(images) == len(case.images) and all(path.name.endswith(ENDING) for path in case.images)
    linked = linked and (case.label is None or case.label.name.endswith(ENDING))
    if linked:
        for name, target in zip(images, case.images, strict=True):
            if not store.exists(name):
                store.link(name, target)
        if case.label is not None and not store.exists(label):
            store.link(label, case.label)
    elif not all(store.exists(name) for name in (*images, *([label] if case.label else []))):
        logger.info("%s: converted, not linked: its files are not one %s a channel", case.case_id, ENDING)
        _convert(read_source(case, setting.cohort.label_names), images, label, store, level)
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "image": ";".join(images),
        "label": label if case.label is not None else "",
        setting.class_column: case.class_name or "",
        "source_case": case.case_id,
        "synthetic": "no",
        "quality": "",
    }


def _convert(source: Source, images: Sequence[str], label: str, store: Store, level: int) -> None:
    data = source.image.data
    for number, name in enumerate(images):
        part = data if len(images) == 1 else data[number : number + 1]
        store.put(name, nifti_piece(name, part, source.image).packed(level))
    if source.label is not None:
        like = replace(source.label, affine=source.image.affine)
        store.put(label, nifti_piece(label, source.label.data, like).packed(level))
