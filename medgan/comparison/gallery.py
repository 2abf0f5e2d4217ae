"""Volumes for the report's pictures, ``gallery.npz`` and ``gallery.json``: the cases arms are worst at, and siblings.

No names and no ids: a case is known by its number among the test cases of ``results.csv``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medgan.checkpoint import write_atomically
from medgan.comparison.arms import image_mode
from medgan.comparison.design import Cell
from medgan.comparison.material import Material
from medgan.comparison.results import RunRecord, run_file
from medgan.sampler import known_affine, render_pair
from medgan.seeding import derive_seed

JSON, ARRAYS, PREDICTIONS = "gallery.json", "gallery.npz", "predictions"
WORST_CASES, SOURCES, SIBLINGS = 6, 3, 3


def save_predictions(folder: Path, cell: Cell, maps: NDArray[np.uint8]) -> None:
    """Keep a run's label maps of the test cases, ``(N, *shape)``, for the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / f"{run_file(**cell.coordinates)}.npz", {"maps": maps})


def save_gallery(output: Path, material: Material, runs: Mapping[int, Mapping[str, Sequence[RunRecord]]]) -> None:
    """Write the volumes of the worst cases, one or more of each arm, and of siblings of training cases.

    Args:
        output: the study's folder.
        material: its cases and generators.
        runs: finished runs by block and arm.
    """
    arrays: dict[str, NDArray[np.uint8]] = {}
    cases = _worst_cases(output, material, runs, arrays) if material.task.kind == "segmentation" else []
    sources = _siblings(material, arrays)
    if not cases and not sources:
        return
    _save(output / ARRAYS, arrays)
    labels = {str(i): name for i, name in enumerate(material.task.structures, start=1)}  # the maps are compact
    tree = {"cases": cases, "sources": sources, "labels": labels}
    write_atomically(output / JSON, json.dumps(tree, indent=1).encode())


def _worst_cases(
    output: Path,
    material: Material,
    runs: Mapping[int, Mapping[str, Sequence[RunRecord]]],
    arrays: dict[str, NDArray[np.uint8]],
) -> list[dict[str, Any]]:
    block = min(runs)
    tested = material.block(block, 0).used["test"]
    number = {p.case.case_id: i for i, p in enumerate(tested)}
    means: dict[str, dict[int, float]] = {}
    maps: dict[str, NDArray[np.uint8]] = {}
    for arm, records in runs[block].items():
        path = output / PREDICTIONS / f"{run_file(arm, block, 0, 0)}.npz"
        first = [r for r in records if r.replicate == (0, 0)]
        if not first or not path.is_file():
            continue
        found = np.load(path, allow_pickle=False)["maps"]
        if len(found) != len(tested):
            continue
        maps[arm] = found
        values: dict[int, list[float]] = {}
        for s in first[0].scores:
            if s.split == "test" and s.metric == "dice" and np.isfinite(s.value):
                values.setdefault(number[s.case_id], []).append(s.value)
        means[arm] = {i: sum(v) / len(v) for i, v in values.items()}
    chosen: dict[int, str] = {}
    for rank in range(WORST_CASES):
        for arm, scores in means.items():
            order = sorted(scores, key=lambda i: scores[i])
            if rank < len(order) and len(chosen) < WORST_CASES and order[rank] not in chosen:
                chosen[order[rank]] = arm
    listed = []
    for i, (index, arm) in enumerate(chosen.items()):
        key, case = f"case{i}", tested[index]
        arrays[f"{key}/image"] = _bytes(case.image)
        if case.label is not None:
            arrays[f"{key}/truth"] = material.task.compact(case.label)[0].numpy().astype(np.uint8)
        for name, found in maps.items():
            arrays[f"{key}/prediction/{name}"] = found[index]
        of_case = {name: means[name][index] for name in means if index in means[name]}
        listed.append(
            {"key": key, "number": index + 1, "block": block, "scores": of_case, "why": f"among the worst of {arm}"}
        )
    return listed


def _siblings(material: Material, arrays: dict[str, NDArray[np.uint8]]) -> list[dict[str, Any]]:
    """Draw siblings of the first labelled training cases, one of each class before a second."""
    if not material.generators:
        return []
    (name, labelled, fold), sampler = next(iter(material.generators.items()))
    training = material.block(labelled, fold).used["training"]
    by_class: dict[str | None, list[int]] = {}
    for i, prepared in enumerate(training):
        by_class.setdefault(prepared.case.class_name, []).append(i)
    ranked = sorted(range(len(training)), key=lambda i: (by_class[training[i].case.class_name].index(i), i))
    mode = image_mode(material.config.data.modality)
    listed = []
    for i, index in enumerate(ranked[:SOURCES]):
        key, source = f"source{i}", training[index]
        arrays[f"{key}/image"] = _bytes(source.image)
        label = None
        if source.label is not None and material.task.kind == "segmentation":
            label = material.task.compact(source.label)
            arrays[f"{key}/label"] = label[0].numpy().astype(np.uint8)
        known = source.case.class_name if source.case.class_name in sampler.class_names else None
        for j in range(SIBLINGS):
            parameters = sampler.draw(derive_seed(material.config.seed, "gallery", i), j, 1.0, known)
            recipe = sampler.recipe(source.image, parameters, known_affine(source.image), (0.0, 1.0))
            image, mask = render_pair(recipe, source.image, label, mode)
            arrays[f"{key}/sibling{j}/image"] = _bytes(image)
            if mask is not None:
                arrays[f"{key}/sibling{j}/label"] = mask[0].numpy().astype(np.uint8)
        listed.append({"key": key, "class": source.case.class_name, "siblings": SIBLINGS, "generator": name})
    return listed


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return the first channel in 8 bits."""
    return np.round(image[0].numpy() * 255).clip(0, 255).astype(np.uint8)


def _save(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())
