"""Cohorts described by a ``dataset.json``: the Medical Segmentation Decathlon's form and nnU-Net's."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medgan.data.case import Case, Cohort, Report
from medgan.data.manifest import existing
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 50_000_000


def read_decathlon(path: Path, class_key: str | None, report: Report) -> Cohort:
    """Read a ``dataset.json``.

    All entries of ``training`` are the annotated cohort: their split is made later, by patient. Entries of ``test`` and
    ``validation`` are kept where their files exist.

    Raises:
        InputFault: the file is no such description. Faults of single entries go to ``report``.
    """
    tree = _read_json(path)
    modalities = _names(tree.get("modality", tree.get("channel_names")))
    entries = list(_entries(path, tree))
    keys = sorted({key for _, entry in entries for key in entry})
    if class_key is not None and class_key not in keys:
        reason = f"no entry has the key {class_key!r} (keys: {', '.join(keys)})"
        raise InputFault(path, "UNKNOWN_CLASS_KEY", reason, "choose one of them or write a CSV manifest")
    cases, absent = [], 0
    for where, entry in entries:
        try:
            cases.append(_case(path, where, entry, max(1, len(modalities)), class_key))
        except InputFault as fault:
            if fault.code == "MISSING_FILE" and not where.startswith("training"):
                absent += 1
            else:
                report(fault)
    if absent:
        logger.info("%s: %d test or validation entries have no files here and are passed over", path, absent)
    text = " ".join(modalities).lower()
    modality = "ct" if text.startswith("ct") else "mri" if "mr" in text else text or None
    return Cohort(path, tuple(cases), label_names(path, tree.get("labels", {})), modality=modality)


def label_names(path: Path, labels: Any) -> dict[int, str]:
    """Return values and names without the background, from ``{"1": "name"}`` or nnU-Net's ``{"name": 1}``."""
    if not isinstance(labels, dict):
        raise InputFault(path, "DATASET_JSON", "labels is no mapping of values and names", "mend it")
    names: dict[int, str] = {}
    for key, value in labels.items():
        number, name = (value, key) if isinstance(value, int) and not isinstance(value, bool) else (key, value)
        try:
            names[int(number)] = str(name)
        except (TypeError, ValueError) as error:
            reason = f"the label {key!r}: {value!r} is not a value and a name (regions of several values are not read)"
            raise InputFault(path, "DATASET_JSON", reason, "give each label one whole number") from error
    return {number: name for number, name in sorted(names.items()) if number != 0}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputFault(path, "DATASET_JSON", f"it is larger than {MAX_JSON_BYTES} bytes", "give a dataset.json")
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputFault(path, "DATASET_JSON", f"not readable as JSON ({error})", "mend it") from error
    if not isinstance(tree, dict):
        raise InputFault(path, "DATASET_JSON", f"the top level is a {type(tree).__name__}, not an object", "mend it")
    return tree


def _names(modalities: Any) -> list[str]:
    if isinstance(modalities, dict):
        return [str(name) for name in modalities.values()]
    if isinstance(modalities, list):
        return [str(name) for name in modalities]
    return [] if modalities is None else [str(modalities)]


def _entries(path: Path, tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, entry) with at least an image each."""
    if not isinstance(tree.get("training"), list) and (path.parent / "imagesTr").is_dir():
        yield from _nnunet_entries(path, tree)
        return
    for part in ("training", "validation", "test"):
        listed = tree.get(part, [])
        if not isinstance(listed, list):
            raise InputFault(path, "DATASET_JSON", f"{part} is a {type(listed).__name__}, not a list", "mend it")
        for index, entry in enumerate(listed):
            item = {"image": entry} if isinstance(entry, str) else entry
            images = item.get("image") if isinstance(item, dict) else None
            if not isinstance(images, str | list) or not images or not all(isinstance(name, str) for name in images):
                raise InputFault(path, "DATASET_JSON", f"{part}[{index}] names no image", "give it an image")
            yield f"{part}[{index}]", item


def _nnunet_entries(path: Path, tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cases of nnU-Net's layout, where names say all: ``imagesTr/CASE_0000``, ``labelsTr/CASE``."""
    ending = str(tree.get("file_ending", ".nii.gz"))
    for part, images, labels in (("training", "imagesTr", "labelsTr"), ("test", "imagesTs", "labelsTs")):
        channels: dict[str, list[str]] = {}
        for file in sorted((path.parent / images).glob(f"*_[0-9][0-9][0-9][0-9]{ending}")):
            channels.setdefault(file.name.removesuffix(ending)[:-5], []).append(f"{images}/{file.name}")
        for case_id, names in channels.items():
            entry: dict[str, Any] = {"image": names, "case_id": case_id}
            if (path.parent / labels / f"{case_id}{ending}").is_file():
                entry["label"] = f"{labels}/{case_id}{ending}"
            yield f"{part} case {case_id}", entry


def _case(path: Path, where: str, entry: dict[str, Any], channels: int, class_key: str | None) -> Case:
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    label = entry.get("label")
    if label is not None and not isinstance(label, str) and class_key != "label":
        raise InputFault(
            path, "DATASET_JSON", f"{where}: the label {label!r} is no file name", "name a file, or use it as class_key"
        )
    case_id = str(entry.get("case_id") or PurePosixPath(images[0]).name.removesuffix(".gz").removesuffix(".nii"))
    value = entry.get(class_key) if class_key else None
    return Case(
        case_id=case_id,
        patient_id=str(entry.get("patient_id") or case_id),
        images=tuple(existing(path, where, name, folder_allowed=len(images) == 1) for name in images),
        label=existing(path, where, label) if isinstance(label, str) and class_key != "label" and label else None,
        class_name=None if value is None or value == "" else str(value),
        channels=channels if len(images) == 1 else 1,
    )
