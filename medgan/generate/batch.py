"""``medgan generate``: siblings of a cohort as NIfTI volumes with label maps, each with a sidecar."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgan.checkpoint import file_digest, write_atomically
from medgan.data.cohort import Case, Cohort, load_image, load_label, read_cohort
from medgan.data.nifti import write_nifti
from medgan.data.volume import Volume
from medgan.errors import InputFault
from medgan.generate.plan import Order, choose_sources, plan_orders
from medgan.generate.sidecar import build_sidecar, voxels_digest
from medgan.pictures import save_figure, siblings_figure
from medgan.progress import progress_bar
from medgan.sampler import Recipe, Sampler, load, render, render_label

logger = logging.getLogger(__name__)

SHEET_ROWS = 6
SHEET_SIBLINGS = 4


@dataclass(frozen=True, eq=False)
class Source:
    """A case in memory, as tensors for the sampler and volumes for the writer."""

    case: Case
    image: Volume
    label: Volume | None
    tensor: Tensor


def generate(
    checkpoint: str | Path,
    data: Path,
    output: Path,
    *,
    count: int,
    seed: int = 0,
    strength: float = 1.0,
    sources: str = "training",
    class_name: str | None = None,
) -> Path:
    """Make ``count`` siblings of a cohort; return the path of their manifest.

    ``output`` becomes a cohort itself: ``images/``, ``labels/``, ``manifest.csv`` (patient ids are the sources'), a
    sidecar beside each image, ``summary.json`` and ``contact_sheet.png``. Siblings already there are kept, so an
    interrupted call continues.

    Args:
        checkpoint: folder of the generator.
        data: cohort of the sources.
        output: folder to write.
        count: number of siblings, spread evenly over the sources.
        seed: of all noise.
        strength: 0 is the identity, exactly; 1 what was learned.
        sources: see :func:`~medgan.generate.plan.choose_sources`.
        class_name: only sources of this class.

    Raises:
        InputFault: an input is missing or damaged, or ``output`` holds siblings made otherwise.
    """
    sampler = load(checkpoint)
    config = sampler.checkpoint.config
    cohort = read_cohort(
        data,
        class_key=config.data.class_key,
        classes=sampler.class_names,
        labels=dict(sampler.checkpoint.origin.label_names),
    )
    orders = plan_orders(choose_sources(cohort, sampler.checkpoint, sources, class_name), count, seed)
    if not orders:
        raise InputFault(output, "COUNT", f"--count is {count}", "ask for at least 1")
    (output / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    source: Source | None = None
    with progress_bar() as bar:
        task = bar.add_task("generating", total=len(orders), note="")
        for order in orders:
            if not _is_done(order, output, sampler, strength):
                if source is None or source.case is not order.case:
                    source = _read(order.case, cohort)
                make_sibling(source, order, sampler, strength, output, data)
            rows.append(_manifest_row(order, output, config.data.class_key or "class"))
            bar.advance(task)
    _write_summary(rows, output, sampler, seed, strength)
    _write_contact_sheet(orders, output, cohort)
    return _write_manifest(rows, output)


def make_sibling(source: Source, order: Order, sampler: Sampler, strength: float, output: Path, data: Path) -> None:
    """Make one sibling and write image, label map and – last, as the mark that it is whole – the sidecar."""
    class_name = source.case.class_name if source.case.class_name in sampler.class_names else None
    parameters = sampler.draw(order.seed, order.index, strength, class_name)
    recipe = sampler.recipe(source.tensor, parameters, source.image.affine)
    image = render(recipe, source.tensor).numpy()
    image_path = output / "images" / f"{order.name}.nii.gz"
    write_nifti(image_path, image, source.image)
    label, label_path = None, None
    if source.label is not None:
        label = warp_label(recipe, source.label)
        label_path = output / "labels" / f"{order.name}.nii.gz"
        label_path.parent.mkdir(exist_ok=True)
        write_nifti(label_path, label, source.label)
    sidecar = build_sidecar(
        recipe, source.case, source.image.data, image, source.label, label, cohort=data, checkpoint=sampler.checkpoint,
        files={"image": image_path, "label": label_path}, folder=output,
    )  # fmt: skip
    write_atomically(sidecar_path(order, output), json.dumps(sidecar, indent=1).encode())


def warp_label(recipe: Recipe, label: Volume) -> np.ndarray[Any, Any]:
    """Return the label map's voxels under the sibling's deformation, in its own dtype."""
    data = np.ascontiguousarray(label.data)
    return render_label(recipe, torch.from_numpy(data.astype(np.float32))).numpy().astype(data.dtype)


def sidecar_path(order: Order, output: Path) -> Path:
    """Return where an order's sidecar lies."""
    return output / "images" / f"{order.name}.json"


def _read(case: Case, cohort: Cohort) -> Source:
    image = load_image(case)
    label = load_label(case, image, cohort.label_names)
    data = np.ascontiguousarray(image.data)
    # torch has no arithmetic on unsigned 16 bits and wider; float64 would cost memory for nothing.
    data = data if data.dtype in (np.int16, np.uint8, np.int32, np.float32) else data.astype(np.float32)
    return Source(case, image, label, torch.from_numpy(data))


def _is_done(order: Order, output: Path, sampler: Sampler, strength: float) -> bool:
    path = sidecar_path(order, output)
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    drawn = found["parameters"]
    wanted = {"seed": order.seed, "index": order.index, "strength": strength, "checkpoint": sampler.checkpoint.digest}
    if any(drawn[key] != value for key, value in wanted.items()):
        raise InputFault(path, "OTHER_OUTPUT", "the folder holds siblings made otherwise", "name another --output")
    return all((output / file["path"]).is_file() for file in found["files"].values())


def _manifest_row(order: Order, output: Path, class_key: str) -> dict[str, str]:
    case = order.case
    label = output / "labels" / f"{order.name}.nii.gz"
    return {
        "case_id": order.name,
        "patient_id": case.patient_id,
        "image": f"images/{order.name}.nii.gz",
        "label": f"labels/{order.name}.nii.gz" if label.is_file() else "",
        class_key: case.class_name or "",
        "source_case": case.case_id,
    }


def _write_manifest(rows: Sequence[dict[str, str]], output: Path) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = output / "manifest.csv"
    write_atomically(path, text.getvalue().encode())
    return path


def _write_summary(rows: Sequence[dict[str, str]], output: Path, sampler: Sampler, seed: int, strength: float) -> None:
    sidecars = [json.loads((output / "images" / f"{row['case_id']}.json").read_text()) for row in rows]
    quality = {
        name: {"min": min(values), "median": float(np.median(values)), "max": max(values)}
        for name in ("jacobian_min", "fold_share", "displacement_mm", "correlation_with_source")
        for values in [[sidecar["quality"][name] for sidecar in sidecars]]
    }
    by_class: dict[str, int] = {}
    by_source: dict[str, int] = {}
    for sidecar in sidecars:
        name = sidecar["parameters"]["class_name"] or "unknown"
        by_class[name] = by_class.get(name, 0) + 1
        source = sidecar["source"]["case_id"]
        by_source[source] = by_source.get(source, 0) + 1
    summary = {
        "count": len(rows),
        "checkpoint_sha256": sampler.checkpoint.digest,
        "seed": seed,
        "strength": strength,
        "by_class": by_class,
        "by_source": by_source,
        "quality": quality,
    }
    write_atomically(output / "summary.json", json.dumps(summary, indent=1).encode())


def _write_contact_sheet(orders: Sequence[Order], output: Path, cohort: Cohort) -> None:
    """Draw the first sources with their first siblings, read back from disk as a user would read them."""
    by_source: dict[str, list[Order]] = {}
    for order in orders:
        by_source.setdefault(order.case.case_id, []).append(order)
    rows = []
    siblings = cohort.label_names
    for of_source in list(by_source.values())[:SHEET_ROWS]:
        image = load_image(of_source[0].case)
        label = load_label(of_source[0].case, image, siblings)
        made = []
        for order in of_source[:SHEET_SIBLINGS]:
            path = output / "labels" / f"{order.name}.nii.gz"
            case = Case(
                order.name,
                order.case.patient_id,
                (output / "images" / f"{order.name}.nii.gz",),
                path if path.is_file() else None,
            )
            volume = load_image(case)
            mask = load_label(case, volume, siblings)
            made.append((volume.data[0], None if mask is None else mask.data[0]))
        rows.append((image.data[0], None if label is None else label.data[0], made))
    save_figure(siblings_figure(rows), output / "contact_sheet.png")


def reproduce(sidecar_file: Path, output: Path, checkpoint: Path | None = None) -> bool:
    """Make one volume again from its sidecar; return whether it equals the recorded one bit for bit.

    Args:
        sidecar_file: written by :func:`generate`.
        output: file to write, ``.nii`` or ``.nii.gz``.
        checkpoint: where the checkpoint lies now, if it was moved.

    Raises:
        InputFault: sidecar, source or checkpoint are missing or are not those of the sidecar.
    """
    if not sidecar_file.is_file():
        raise InputFault(
            sidecar_file, "MISSING_FILE", "there is no such sidecar", "give the .json beside a synthetic volume"
        )
    try:
        sidecar = json.loads(sidecar_file.read_text())
        wanted, source, recorded = sidecar["parameters"], sidecar["source"], sidecar["files"]["image"]["voxels_sha256"]
        sampler = load(checkpoint or (sidecar_file.parent / sidecar["checkpoint"]["path"]).resolve())
        images = tuple((sidecar_file.parent / path).resolve() for path in source["images"])
        hashes = [file_digest(path) for path in images if path.is_file()]
    except (ValueError, KeyError, TypeError) as error:
        raise InputFault(
            sidecar_file, "SIDECAR", f"not a sidecar of medgan ({error!r})", "give the .json beside a synthetic volume"
        ) from error
    if sampler.checkpoint.digest != wanted["checkpoint"]:
        raise InputFault(
            sampler.checkpoint.folder,
            "OTHER_CHECKPOINT",
            "not the checkpoint of the sidecar",
            "name it with --checkpoint",
        )
    if all(path.is_file() for path in images) and hashes != source["sha256"]:
        raise InputFault(images[0], "OTHER_SOURCE", "the source has changed since", "restore the original file")
    image = load_image(Case(source["case_id"], "", images))
    loaded = _read(Case(source["case_id"], "", images), Cohort(sidecar_file, (), channels=image.data.shape[0]))
    parameters = sampler.draw(wanted["seed"], wanted["index"], wanted["strength"], wanted["class_name"])
    volume = render(sampler.recipe(loaded.tensor, parameters, image.affine), loaded.tensor).numpy()
    write_nifti(output, volume, image)
    return voxels_digest(output) == str(recorded)
