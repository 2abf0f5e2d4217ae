"""``medgan generate``: siblings of a cohort as NIfTI volumes with label maps, each with a sidecar."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor

from medgan.checkpoint import make_output, write_atomically
from medgan.data.cohort import Case, Cohort, load_image, load_label, read_cohort
from medgan.data.nifti import write_nifti
from medgan.data.split import content_hash
from medgan.data.volume import Volume
from medgan.errors import InputFault
from medgan.generate.plan import Order, choose_sources, plan_orders
from medgan.generate.sidecar import build_sidecar
from medgan.pictures import save_figure, siblings_figure
from medgan.progress import progress_bar
from medgan.sampler import Recipe, Sampler, load, render, render_label

logger = logging.getLogger(__name__)

FOLDERS = ("images", "labels")
RESERVED = ("case_id", "patient_id", "image", "label", "split", "source_case")
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

    Label maps are moved along as ``data`` has them, also those that the training was not shown.

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
        class_optional=True,
    )
    _require_own_folder(output, cohort)
    orders = plan_orders(choose_sources(cohort, sampler.checkpoint, sources, class_name), count, seed)
    if not orders:
        raise InputFault(output, "COUNT", f"--count is {count}", "ask for at least 1")
    make_output(output)
    for name in FOLDERS:
        (output / name).mkdir(exist_ok=True)
    rows = []
    source: Source | None = None
    with progress_bar() as bar:
        task = bar.add_task("generating", total=len(orders), note="")
        for order in orders:
            if not _is_done(order, output, sampler, strength):
                if source is None or source.case is not order.case:
                    source = read_source(order.case, cohort.label_names)
                make_sibling(source, order, sampler, strength, output, data)
            rows.append(_manifest_row(order, output, class_column(config.data.class_key)))
            bar.advance(task)
    manifest = _write_manifest(rows, output)
    _write_summary(rows, output, sampler, seed, strength)
    _write_contact_sheet(orders, output, cohort)
    return manifest


def make_sibling(source: Source, order: Order, sampler: Sampler, strength: float, output: Path, data: Path) -> None:
    """Make one sibling and write image, label map and – last, as the mark that it is whole – the sidecar."""
    class_name = source.case.class_name if source.case.class_name in sampler.class_names else None
    parameters = sampler.draw(order.seed, order.index, strength, class_name)
    recipe = sampler.recipe(source.tensor, parameters, source.image.affine)
    image = sibling_image(recipe, source)
    files = {"image": image_files(order.name, output, image.shape[0]), "label": []}
    for channel, path in enumerate(files["image"]):
        write_nifti(path, image[channel : channel + 1], source.image)
    label = None
    if source.label is not None:
        label = warp_label(recipe, source.label)
        files["label"] = [output / "labels" / f"{order.name}.nii.gz"]
        write_nifti(files["label"][0], label, source.label)
    sidecar = build_sidecar(
        recipe, source.case, source.image.data, image, source.label, label, cohort=data, checkpoint=sampler.checkpoint,
        files=files, folder=output,
    )  # fmt: skip
    write_atomically(sidecar_path(order, output), json.dumps(sidecar, indent=1).encode())


def image_files(name: str, output: Path, channels: int) -> list[Path]:
    """Return where a sibling's image lies: one file, or ``NAME_0000``, ``NAME_0001``, ... for several channels."""
    suffixes = [""] if channels == 1 else [f"_{channel:04d}" for channel in range(channels)]
    return [output / "images" / f"{name}{suffix}.nii.gz" for suffix in suffixes]


def class_column(class_key: str | None) -> str:
    """Return the manifest's column for the class, which must not be one of the others."""
    return class_key if class_key and class_key not in RESERVED else "class"


def sibling_image(recipe: Recipe, source: Source) -> np.ndarray[Any, Any]:
    """Return the sibling's voxels, ``(C, X, Y, Z)``; at strength 0 the source's own, whatever their dtype."""
    return np.asarray(source.image.data) if recipe.is_identity else render(recipe, source.tensor).numpy()


def warp_label(recipe: Recipe, label: Volume) -> np.ndarray[Any, Any]:
    """Return the label map's voxels under the sibling's deformation, in its own dtype."""
    data = np.ascontiguousarray(label.data)
    if recipe.is_identity:
        return data
    return render_label(recipe, torch.from_numpy(data.astype(np.float32))).numpy().astype(data.dtype)


def sidecar_path(order: Order, output: Path) -> Path:
    """Return where an order's sidecar lies."""
    return output / "images" / f"{order.name}.json"


def read_source(case: Case, label_names: Mapping[int, str]) -> Source:
    """Read a case through the gate."""
    image = load_image(case)
    label = load_label(case, image, label_names)
    data = np.ascontiguousarray(image.data)
    # torch has no arithmetic on unsigned 16 bits and wider; float64 would cost memory for nothing.
    data = data if data.dtype in (np.int16, np.uint8, np.int32, np.float32) else data.astype(np.float32)
    return Source(case, image, label, torch.from_numpy(data))


def _is_done(order: Order, output: Path, sampler: Sampler, strength: float) -> bool:
    path = sidecar_path(order, output)
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    name = order.case.class_name if order.case.class_name in sampler.class_names else None
    wanted = sampler.draw(order.seed, order.index, strength, name).to_json()
    if found["parameters"] != wanted or found["source"]["content_sha256"] != content_hash(order.case):
        raise InputFault(path, "OTHER_OUTPUT", "the folder holds siblings made otherwise", "name another --output")
    return all((output / file).is_file() for entry in found["files"].values() for file in entry["paths"])


def _require_own_folder(output: Path, cohort: Cohort) -> None:
    """Refuse to write among the sources, or into a folder that something else filled."""
    home = cohort.source if cohort.source.is_dir() else cohort.source.parent
    target = output.resolve()
    if home.resolve() in (target, *target.parents) and target.is_dir() and (target / "manifest.csv").exists():
        inside = not (target / "summary.json").exists()
    else:
        inside = home.resolve() == target
    foreign = output.is_dir() and any(output.iterdir()) and not all((output / name).is_dir() for name in FOLDERS)
    if inside or foreign:
        raise InputFault(output, "OUTPUT_IN_USE", "the folder holds something else", "name a new folder")


def _manifest_row(order: Order, output: Path, class_key: str) -> dict[str, str]:
    case = order.case
    label = output / "labels" / f"{order.name}.nii.gz"
    sidecar = json.loads(sidecar_path(order, output).read_text())
    return {
        "case_id": order.name,
        "patient_id": case.patient_id,
        "image": ";".join(sidecar["files"]["image"]["paths"]),
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
    for of_source in list(by_source.values())[:SHEET_ROWS]:
        image, label, spacing = _drawable(of_source[0].case, cohort)
        made = []
        for order in of_source[:SHEET_SIBLINGS]:
            sidecar = json.loads(sidecar_path(order, output).read_text())
            images = tuple(output / path for path in sidecar["files"]["image"]["paths"])
            path = output / "labels" / f"{order.name}.nii.gz"
            made.append(_drawable(Case(order.name, "", images, path if path.is_file() else None), cohort)[:2])
        rows.append((image, label, made))
    save_figure(siblings_figure(rows, spacing=spacing), output / "contact_sheet.png")


def _drawable(case: Case, cohort: Cohort) -> tuple[Any, Any, tuple[float, float, float]]:
    """Return the first channel and the label map with axes along R, A, S, and the spacing along these."""
    image = load_image(case)
    label = load_label(case, image, cohort.label_names)
    orientation = nibabel.orientations.io_orientation(image.affine)
    turned = [
        None if volume is None else nibabel.orientations.apply_orientation(volume.data[0], orientation)
        for volume in (image, label)
    ]
    order = np.argsort(orientation[:, 0])
    x, y, z = (image.spacing[int(axis)] for axis in order)
    return turned[0], turned[1], (x, y, z)
